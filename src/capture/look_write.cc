// SPDX-License-Identifier: Apache-2.0
// What is changed in a view of the past: each request becomes one call of the scratch tree. Nothing is durable, so a sync has nothing to do.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <ctime>

#include "capture/look_server.h"
#include "log/record.h"

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1 << 2)
#endif

namespace holdfast::capture {
namespace {

std::int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

std::int64_t time_of(std::uint64_t seconds, std::uint32_t rest) {
  return static_cast<std::int64_t>(seconds) * 1'000'000'000 + rest;
}

ports::ScratchNode node_for(const Request& r, std::uint32_t mode, std::uint32_t umask) {
  ports::ScratchNode node;
  node.mode = mode;
  node.umask = umask;
  node.uid = r.head.uid;
  node.gid = r.head.gid;
  return node;
}

}  // namespace

LookServer::Change LookServer::change_of(fuse::Op op) {
  using O = fuse::Op;
  switch (op) {
    case O::setattr:
      return &LookServer::setattr;
    case O::create:
      return &LookServer::create;
    case O::tmpfile:
      return &LookServer::tmpfile;
    case O::mkdir:
      return &LookServer::mkdir;
    case O::mknod:
      return &LookServer::mknod;
    case O::symlink:
      return &LookServer::symlink;
    case O::link:
      return &LookServer::link;
    case O::unlink:
      return &LookServer::unlink;
    case O::rmdir:
      return &LookServer::rmdir;
    case O::rename:
      return &LookServer::rename;
    case O::rename2:
      return &LookServer::rename2;
    case O::write:
      return &LookServer::write;
    case O::fallocate:
      return &LookServer::fallocate;
    case O::lseek:
      return &LookServer::lseek;
    case O::setxattr:
      return &LookServer::setxattr;
    case O::removexattr:
      return &LookServer::removexattr;
    case O::fsync:
    case O::fsyncdir:
      return &LookServer::fsync;
    default:
      return nullptr;
  }
}

Answer LookServer::refused_change(const Error& why) {
  switch (why.code) {
    case ErrorCode::not_found:
      return -ENOENT;
    case ErrorCode::exists:
      return -EEXIST;
    case ErrorCode::busy:
      return -ENOTEMPTY;
    case ErrorCode::invalid:
      return -EINVAL;
    case ErrorCode::denied:
      return -EPERM;
    case ErrorCode::refused:
      return -EOPNOTSUPP;
    case ErrorCode::no_space:
      tell(full_told_, why);
      return -ENOSPC;
    default:
      return refused(why);
  }
}

// Folders above the sets are ours.
bool LookServer::folder_of(std::uint64_t number, Node& node, int& error) const {
  error = !node_of(number, node) ? ESTALE : node.set == 0 ? EROFS : 0;
  return error == 0;
}

// --- new objects

Answer LookServer::make(Request& r, std::string_view name, const ports::ScratchNode& node, bool open) {
  Node dir, made;
  int error = 0;
  if (!folder_of(r.head.nodeid, dir, error)) return -error;
  const auto id = scratch_->make(dir.set, dir.id, name, node);
  if (!id) return refused_change(id.error());
  made.set = dir.set;
  made.id = *id;
  fuse::EntryOut out{};
  if (const Answer failed = entry(std::move(made), dir, out); failed < 0) return failed;
  const Answer size = put(r, out);
  if (!open) return size;
  const fuse::OpenOut opened{0, fuse::fopen_keep_cache, 0};
  std::memcpy(r.reply.data() + size, &opened, sizeof opened);
  return size + static_cast<Answer>(sizeof opened);
}

Answer LookServer::create(Request& r) {
  const auto in = r.in<fuse::CreateIn>();
  Name name;
  if (const int error = name.take(r.args)) return -error;
  return make(r, name.view(), node_for(r, S_IFREG | (in.mode & 07777), in.umask), true);
}

Answer LookServer::tmpfile(Request& r) {
  const auto in = r.in<fuse::CreateIn>();
  return make(r, {}, node_for(r, S_IFREG | (in.mode & 07777), in.umask), true);
}

Answer LookServer::mkdir(Request& r) {
  const auto in = r.in<fuse::MkdirIn>();
  Name name;
  if (const int error = name.take(r.args)) return -error;
  return make(r, name.view(), node_for(r, S_IFDIR | (in.mode & 07777), in.umask), false);
}

Answer LookServer::mknod(Request& r) {
  const auto in = r.in<fuse::MknodIn>();
  Name name;
  if (const int error = name.take(r.args)) return -error;
  ports::ScratchNode node = node_for(r, in.mode, in.umask);
  node.rdev = in.rdev;
  return make(r, name.view(), node, false);
}

Answer LookServer::symlink(Request& r) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  const void* end = std::memchr(r.args.data(), 0, r.args.size());
  if (!end) return -EINVAL;
  const std::string target(reinterpret_cast<const char*>(r.args.data()));
  if (target.size() >= 4096) return -ENAMETOOLONG;
  ports::ScratchNode node = node_for(r, S_IFLNK | 0777, 0);
  node.target = target;
  return make(r, name.view(), node, false);
}

// --- names

Answer LookServer::link(Request& r) {
  const std::uint64_t old_node = r.in<fuse::LinkIn>().old_node;
  Name name;
  if (const int error = name.take(r.args)) return -error;
  Node dir, node;
  int error = 0;
  if (!folder_of(r.head.nodeid, dir, error)) return -error;
  if (!node_of(old_node, node)) return -ESTALE;
  if (node.set != dir.set) return -EXDEV;
  if (const auto linked = scratch_->link(dir.set, node.id, dir.id, name.view()); !linked)
    return refused_change(linked.error());
  fuse::EntryOut out{};
  if (const Answer failed = entry(std::move(node), dir, out); failed < 0) return failed;
  return put(r, out);
}

Answer LookServer::unlink(Request& r) { return remove(r, false); }
Answer LookServer::rmdir(Request& r) { return remove(r, true); }

Answer LookServer::remove(Request& r, bool folder) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  Node dir;
  int error = 0;
  if (!folder_of(r.head.nodeid, dir, error)) return -error;
  return done(scratch_->remove(dir.set, dir.id, name.view(), folder));
}

Answer LookServer::rename(Request& r) { return rename_names(r, r.in<fuse::RenameIn>().new_parent, 0); }

Answer LookServer::rename2(Request& r) {
  const auto in = r.in<fuse::Rename2In>();
  return rename_names(r, in.new_parent, in.flags);
}

Answer LookServer::rename_names(Request& r, std::uint64_t new_parent, std::uint32_t flags) {
  Name name, name2;
  if (const int error = name.take(r.args)) return -error;
  if (const int error = name2.take(r.args)) return -error;
  Node dir, dir2;
  int error = 0;
  if (!folder_of(r.head.nodeid, dir, error) || !folder_of(new_parent, dir2, error)) return -error;
  if (dir.set != dir2.set) return -EXDEV;
  const std::uint32_t wanted = (flags & RENAME_EXCHANGE ? log::flag_rename_exchange : 0) |
                               (flags & RENAME_NOREPLACE ? log::flag_rename_noreplace : 0);
  const ports::ScratchNode whiteout = node_for(r, S_IFCHR, 0);
  const Status renamed = scratch_->rename(dir.set, dir.id, name.view(), dir2.id, name2.view(), wanted,
                                          flags & RENAME_WHITEOUT ? &whiteout : nullptr);
  if (!renamed) return refused_change(renamed.error());
  moved(dir2, name2.view());
  if (flags & RENAME_EXCHANGE) moved(dir, name.view());
  return 0;
}

// For the ".." of a folder that has come here.
void LookServer::moved(const Node& parent, std::string_view name) {
  const auto now = scratch_->lookup(parent.set, parent.id, name);
  if (!now || !*now || !S_ISDIR((*now)->mode)) return;
  const std::lock_guard lock(mutex_);
  if (const auto it = known_.find({parent.set, (*now)->id}); it != known_.end())
    nodes_[it->second].parent_ino = parent.ino;
}

// --- contents

Answer LookServer::write(Request& r) {
  const auto in = r.in<fuse::WriteIn>();
  Node node;
  if (!node_of(r.head.nodeid, node) || node.set == 0) return -ESTALE;
  const ByteView data = r.args.first(std::min<std::size_t>(in.size, r.args.size()));
  const bool kill = (in.write_flags & fuse::write_kill_suidgid) != 0;
  if (const auto written = scratch_->write(node.set, node.id, in.offset, data, kill); !written)
    return refused_change(written.error());
  return put(r, fuse::WriteOut{static_cast<std::uint32_t>(data.size()), 0});
}

Answer LookServer::fallocate(Request& r) {
  const auto in = r.in<fuse::FallocateIn>();
  Node node;
  if (!node_of(r.head.nodeid, node) || node.set == 0) return -ESTALE;
  return done(scratch_->fallocate(node.set, node.id, in.mode, in.offset, in.length, r.head.uid != 0));
}

Answer LookServer::lseek(Request& r) {
  const auto in = r.in<fuse::LseekIn>();
  Node node;
  if (!node_of(r.head.nodeid, node) || node.set == 0) return -ESTALE;
  const auto a = scratch_->attributes(node.set, node.id);
  if (!a) return refused_change(a.error());
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return -EINVAL;
  if (in.offset >= a->size) return -ENXIO;
  const auto at = in.whence == SEEK_DATA ? scratch_->next_data(node.set, node.id, in.offset)
                                         : scratch_->next_hole(node.set, node.id, in.offset);
  if (!at) return refused_change(at.error());
  if (in.whence == SEEK_DATA && *at >= a->size) return -ENXIO;
  return put(r, fuse::LseekOut{*at});
}

Answer LookServer::fsync(Request&) { return 0; }

// --- attributes

Answer LookServer::setattr(Request& r) {
  const auto in = r.in<fuse::SetattrIn>();
  Node node;
  if (!node_of(r.head.nodeid, node)) return -ESTALE;
  if (node.set == 0) return -EROFS;
  ports::ScratchChange to;
  if (in.valid & fuse::set_mode) to.mode = in.mode & 07777;
  if (in.valid & fuse::set_uid) to.uid = in.uid;
  if (in.valid & fuse::set_gid) to.gid = in.gid;
  if (in.valid & fuse::set_size) to.size = in.size;
  to.drop_set_id = (in.valid & fuse::set_kill_suidgid) != 0;
  if (in.valid & fuse::set_atime)
    to.atime_ns = in.valid & fuse::set_atime_now ? now_ns() : time_of(in.atime, in.atime_nsec);
  if (in.valid & fuse::set_mtime)
    to.mtime_ns = in.valid & fuse::set_mtime_now ? now_ns() : time_of(in.mtime, in.mtime_nsec);
  if (const auto changed = scratch_->change(node.set, node.id, to); !changed) return refused_change(changed.error());
  return getattr(r);
}

Answer LookServer::setxattr(Request& r) {
  auto in = r.in<fuse::SetxattrIn>();
  if (!setxattr_ext_) in.setxattr_flags = 0;
  Name name;
  if (const int error = name.take(r.args)) return -error;
  const ByteView value = r.args.first(std::min<std::size_t>(in.size, r.args.size()));
  Node node;
  if (!node_of(r.head.nodeid, node)) return -ESTALE;
  if (node.set == 0) return -EROFS;
  const auto how = in.flags & XATTR_CREATE    ? ports::XattrHow::create
                   : in.flags & XATTR_REPLACE ? ports::XattrHow::replace
                                              : ports::XattrHow::any;
  const Status set = scratch_->set_xattr(node.set, node.id, name.view(), value, how,
                                         (in.setxattr_flags & fuse::setxattr_acl_kill_sgid) != 0);
  if (!set && set.error().code == ErrorCode::not_found) return -ENODATA;
  return done(set);
}

Answer LookServer::removexattr(Request& r) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  Node node;
  if (!node_of(r.head.nodeid, node)) return -ESTALE;
  if (node.set == 0) return -EROFS;
  const Status removed = scratch_->remove_xattr(node.set, node.id, name.view());
  if (!removed && removed.error().code == ErrorCode::not_found) return -ENODATA;
  return done(removed);
}

}  // namespace holdfast::capture
