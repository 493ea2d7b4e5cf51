// SPDX-License-Identifier: Apache-2.0
// What is open and known in the kernel, from one mirror to the next (docs/formats/handover.md).
#include "capture/handover.h"
#include "capture/server.h"

namespace holdfast::capture {

void Server::hand_over(ByteWriter& to, std::vector<Descriptor>& pins) {
  to.u64(offered_);
  to.u64(agreed_);
  to.u32(max_write_bytes);
  to.u32(options_.set);
  inodes_.hand_over(to, pins);
  std::uint64_t count = 0;
  files_.for_each([&](std::uint64_t, const FileHandle&) { ++count; });
  to.u64(count);
  files_.for_each([&](std::uint64_t number, const FileHandle& file) {
    to.u64(number);
    to.u64(file.inode->nodeid);
    to.u8(file.write);
  });
  count = 0;
  directories_.for_each([&](std::uint64_t, DirectoryHandle&) { ++count; });
  to.u64(count);
  directories_.for_each([&](std::uint64_t number, DirectoryHandle& directory) {
    to.u64(number);
    to.u64(directory.inode()->nodeid);
  });
}

Status Server::take_over(ByteReader& from, std::vector<Descriptor>& pins) {
  offered_ = from.u64();
  agreed_ = from.u64();
  const std::uint32_t write_bytes = from.u32(), set = from.u32();
  if (!from.ok() || set != options_.set) return fail(ErrorCode::corrupt, "another folder was handed over");
  if (agreed_ != (offered_ & wanted_flags()) || write_bytes != max_write_bytes)
    return fail(ErrorCode::unavailable, "this version wants something else of the kernel than the one before it did");
  setxattr_ext_ = agreed_ & fuse::init_setxattr_ext;
  HF_TRY(inodes_.take_over(from, pins));
  std::uint64_t last = 0;
  for (std::uint64_t left = from.u64(); left > 0; --left) {
    const std::uint64_t number = from.u64(), node = from.u64();
    const bool write = from.u8() != 0;
    InodePtr inode = inodes_.find(node);
    if (!from.ok() || number <= last || !inode) return fail(ErrorCode::corrupt, "an open file is of no known node");
    SharedDescriptor data = inodes_.open_data(*inode, write);
    if (!data) return fail_errno(errno, "a file that is open can't be opened below again");
    files_.restore(last = number, std::make_unique<FileHandle>(std::move(inode), std::move(data), write));
  }
  last = 0;
  for (std::uint64_t left = from.u64(); left > 0; --left) {
    const std::uint64_t number = from.u64(), node = from.u64();
    SharedDescriptor path;
    InodePtr inode = inode_of(node, path);
    if (!from.ok() || number <= last || !inode) return fail(ErrorCode::corrupt, "an open folder is of no known node");
    Descriptor fd(openat(path->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
    if (fd.get() < 0) return fail_errno(errno, "a folder that is open can't be opened below again");
    directories_.restore(last = number, std::make_unique<DirectoryHandle>(std::move(inode), std::move(fd)));
  }
  return from.ok() ? Status() : fail(ErrorCode::corrupt, "what the mirror before this one knew can't be read");
}

}  // namespace holdfast::capture
