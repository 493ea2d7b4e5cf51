// SPDX-License-Identifier: Apache-2.0
// What the kernel knows, from one mirror to the next (docs/formats/handover.md).
#include <algorithm>
#include <cerrno>

#include "capture/fuse_abi.h"
#include "capture/inode_table.h"

namespace holdfast::capture {
namespace {

enum : std::uint8_t { has_no_name = 1, is_pinned = 2 };

}  // namespace

void InodeTable::hand_over(ByteWriter& to, std::vector<Descriptor>& pins) {
  to.u64(size() - 1);
  for (Shard& shard : by_node_) {
    const std::lock_guard guard(shard.mutex);
    for (const auto& [node, inode] : shard.map) {
      if (node == fuse::root_node) continue;
      const std::lock_guard one(inode->mutex_);
      to.u64(node);
      to.raw(inode->id.bytes);
      to.u64(inode->lower_ino);
      to.u32(inode->file_type);
      to.u32(static_cast<std::uint32_t>(inode->handle.type));
      to.bytes(ByteView(inode->handle.bytes.data(), inode->handle.size));
      to.u64(inode->nlookup_);
      to.u8(static_cast<std::uint8_t>((inode->unlinked ? has_no_name : 0) | (inode->pinned_ ? is_pinned : 0)));
      if (inode->pinned_) pins.emplace_back(fcntl(inode->path_->get(), F_DUPFD_CLOEXEC, 3));
    }
  }
}

Status InodeTable::take_over(ByteReader& from, std::vector<Descriptor>& pins) {
  std::size_t pinned = 0;
  for (std::uint64_t left = from.u64(); left > 0; --left) HF_TRY(take_one(from, pins, pinned));
  if (pinned != pins.size())
    return fail(ErrorCode::corrupt, "{} files without a name came along, {} were named", pins.size(), pinned);
  return {};
}

Status InodeTable::take_one(ByteReader& from, std::vector<Descriptor>& pins, std::size_t& pinned) {
  const std::uint64_t node = from.u64();
  FileId id;
  if (const ByteView raw = from.raw(id.bytes.size()); raw.size() == id.bytes.size())
    std::copy(raw.begin(), raw.end(), id.bytes.begin());
  const std::uint64_t lower_ino = from.u64();
  const mode_t type = from.u32();
  LowerHandle handle;
  handle.type = static_cast<std::int32_t>(from.u32());
  const ByteView bytes = from.bytes();
  const std::uint64_t look_ups = from.u64();
  const std::uint8_t flags = from.u8();
  if (!from.ok() || node <= fuse::root_node || id.is_none() || bytes.size() > handle.bytes.size() || look_ups == 0)
    return fail(ErrorCode::corrupt, "what the mirror before this one knew can't be read");
  handle.size = static_cast<std::uint8_t>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), handle.bytes.begin());
  const auto inode = std::make_shared<Inode>(id, node, lower_ino, type, handle);
  inode->nlookup_ = look_ups;
  inode->unlinked = (flags & has_no_name) != 0;
  if (flags & is_pinned) {
    struct stat st;
    if (pinned == pins.size() || fstat(pins[pinned].get(), &st) != 0 || st.st_ino != lower_ino)
      return fail(ErrorCode::corrupt, "a file without a name did not come along");
    inode->path_ = std::make_shared<Descriptor>(std::move(pins[pinned++]));
    inode->pinned_ = true;
    pinned_.fetch_add(1, std::memory_order_relaxed);
  }
  if (!node_shard(node).map.emplace(node, inode).second || !lower_shard(lower_ino).map.emplace(lower_ino, inode).second)
    return fail(ErrorCode::corrupt, "node {:x} was known twice", node);
  size_.fetch_add(1, std::memory_order_relaxed);
  return {};
}

}  // namespace holdfast::capture
