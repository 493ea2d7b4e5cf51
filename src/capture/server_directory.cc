// SPDX-License-Identifier: Apache-2.0
// Folders: listing them, with look-ups where the kernel wants them, and making them durable.
#include <dirent.h>

#include "capture/server.h"

namespace holdfast::capture {
namespace {

bool is_dots(std::string_view name) { return name == "." || name == ".."; }

}  // namespace

Answer Server::opendir(Request& r) {
  SharedDescriptor path;
  InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  Descriptor fd(
      with_descriptors([&] { return openat(path->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME); }));
  if (fd.get() < 0) return failed(errno, "opening a folder below failed");
  auto directory = std::make_unique<DirectoryHandle>(std::move(inode), std::move(fd));
  directory->to_park = parker_ != 0 && static_cast<std::int32_t>(r.head.pid) == parker_;
  const std::uint64_t fh = directories_.add(std::move(directory));
  return put(r, fuse::OpenOut{fh, fuse::fopen_keep_cache | fuse::fopen_cache_dir, 0});
}

Answer Server::releasedir(Request& r) {
  const std::uint64_t fh = r.in<fuse::ReleaseIn>().fh;
  if (hold_releases_ && directories_.at(fh).to_park) return held_answer;
  (void)directories_.take(fh);
  return 0;
}

Answer Server::fsyncdir(Request& r) {
  const auto& in = r.in<fuse::FsyncIn>();
  return make_durable(r, directories_.at(in.fh).fd(), in.flags & fuse::fsync_data_only);
}

// d_ino must be what stat says: the id's number, not the one below.
std::uint64_t Server::shown_ino_of(DirectoryHandle& dir, const DirectoryEntry& entry) {
  const std::string_view name(entry.name);
  if (name == "." || (name == ".." && dir.inode() == root_)) return dir.inode()->shown_ino();
  if (const InodePtr known = inodes_.find_lower(entry.lower_ino)) return known->shown_ino();
  Child child;
  if (peek_child(dir.fd(), entry.name, child) != 0) return 0;
  return child.known ? child.known->shown_ino() : preferred_node(child.id);
}

// Writes one entry at `to`; 0 = no room. A name that vanished meanwhile takes no room and is told by SIZE_MAX.
std::size_t Server::emit(Request&, DirectoryHandle& dir, const DirectoryEntry& entry, bool plus, std::uint8_t* to,
                         std::size_t room) {
  const std::size_t length = std::strlen(entry.name);
  const std::size_t head = plus ? sizeof(fuse::DirentPlus) : sizeof(fuse::Dirent);
  const std::size_t whole = fuse::record_aligned(head + length);
  if (whole > room) return 0;
  fuse::DirentPlus out{};
  if (plus && !is_dots(entry.name)) {
    InodePtr inode;
    struct stat st;
    const int error = look_up_child(dir.fd(), entry.name, inode, st);
    if (error == ENOENT) return SIZE_MAX;
    if (!error) {
      fill_entry(*inode, st, out.entry);
      out.dirent.ino = inode->shown_ino();
    }
  }
  if (out.dirent.ino == 0) out.dirent.ino = shown_ino_of(dir, entry);
  if (out.dirent.ino == 0) return SIZE_MAX;
  out.dirent.off = static_cast<std::uint64_t>(entry.next);
  out.dirent.namelen = static_cast<std::uint32_t>(length);
  out.dirent.type = entry.type;
  if (plus)
    std::memcpy(to, &out, sizeof out);
  else
    std::memcpy(to, &out.dirent, sizeof out.dirent);
  std::memset(to + head + length, 0, whole - head - length);
  std::memcpy(to + head, entry.name, length);
  return whole;
}

Answer Server::list(Request& r, bool plus) {
  const auto in = r.in<fuse::ReadIn>();
  DirectoryHandle& dir = directories_.at(in.fh);
  const std::lock_guard guard(dir.mutex());
  if (const int error = dir.seek(static_cast<std::int64_t>(in.offset))) return -error;
  const std::size_t room = std::min<std::size_t>(in.size, r.reply.size());
  std::size_t used = 0;
  for (;;) {
    DirectoryEntry entry;
    const int got = dir.peek(entry);
    if (got < 0 && used == 0) return failed(-got, "reading a folder below failed");
    if (got <= 0) break;
    if (!hidden(*dir.inode(), entry.name)) {
      const std::size_t size = emit(r, dir, entry, plus, r.reply.data() + used, room - used);
      if (size == 0) break;
      if (size != SIZE_MAX) used += size;
    }
    dir.advance();
  }
  return static_cast<Answer>(used);
}

}  // namespace holdfast::capture
