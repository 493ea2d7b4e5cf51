// SPDX-License-Identifier: Apache-2.0
// The smallest possible passive: records applied by id onto an empty folder. What the mount showed must come out.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include <fmt/format.h>

#include "capture/test_mount.h"
#include "log/xattrs.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

namespace holdfast::capture {
namespace {

class Replayer {
 public:
  Replayer(const std::string& root, SetNumber set) {
    adopt(FileId::root(set), open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }

  // Empty: done.
  std::string apply(const log::Record& r) {
    error_.clear();
    what_ = fmt::format("record {} {} {}", r.sequence.value, log::to_string(r.kind), r.name);
    switch (r.kind) {
      case log::Kind::write:
        written(r);
        break;
      case log::Kind::truncate:
        check(::truncate(path(r.file), static_cast<off_t>(r.length)));
        stamp(r.file, r.mtime_ns);
        break;
      case log::Kind::fallocate:
        preallocate(r);
        break;
      case log::Kind::create:
      case log::Kind::mkdir:
      case log::Kind::symlink:
      case log::Kind::mknod:
        create(r);
        break;
      case log::Kind::link:
        check(linkat(fd(r.file), "", fd(r.parent), name(r.name), AT_EMPTY_PATH));
        break;
      case log::Kind::unlink:
        expect(r.parent, r.name, r.file);
        check(unlinkat(fd(r.parent), name(r.name), 0));
        break;
      case log::Kind::rmdir:
        expect(r.parent, r.name, r.file);
        check(unlinkat(fd(r.parent), name(r.name), AT_REMOVEDIR));
        break;
      case log::Kind::rename:
        rename(r);
        break;
      case log::Kind::set_attributes:
        attributes(r);
        break;
      case log::Kind::set_xattr:
        check(setxattr(path(r.file), name(r.name), r.payload.data(), r.payload.size(), 0));
        break;
      case log::Kind::remove_xattr:
        removexattr(path(r.file), name(r.name));
        break;  // may have gone with the write before it
      default:
        error_ = what_ + ": not expected here";
    }
    stamp(r.parent, r.parent_mtime_ns);
    stamp(r.parent2, r.parent2_mtime_ns);
    return error_;
  }

 private:
  void check(long result) {
    if (result < 0 && error_.empty()) error_ = what_ + ": " + std::strerror(errno);
  }
  int fd(const FileId& id) {
    const auto it = objects_.find(id);
    if (it == objects_.end() && error_.empty()) error_ = what_ + ": unknown id " + id.to_hex();
    return it == objects_.end() ? -1 : it->second->get();
  }
  const char* path(const FileId& id) {
    path_ = fmt::format("/proc/self/fd/{}", fd(id));
    return path_.c_str();
  }
  const char* name(std::string_view text) {
    names_[turn_ ^= 1] = text;
    return names_[turn_].c_str();
  }
  void adopt(const FileId& id, int opened) { objects_[id] = std::make_unique<Descriptor>(opened); }
  void stamp(const FileId& id, std::int64_t mtime_ns) {
    if (id.is_none() || !mtime_ns) return;
    const std::int64_t part = ((mtime_ns % 1'000'000'000) + 1'000'000'000) % 1'000'000'000;  // before 1970 too
    const timespec times[2] = {{0, UTIME_OMIT}, {(mtime_ns - part) / 1'000'000'000, part}};
    check(utimensat(AT_FDCWD, path(id), times, 0));
  }
  // The name means, here, the object the record says it meant there.
  void expect(const FileId& parent, std::string_view text, const FileId& id) {
    struct stat there, known;
    if (fstatat(fd(parent), name(text), &there, AT_SYMLINK_NOFOLLOW) != 0 || fstat(fd(id), &known) != 0 ||
        there.st_ino != known.st_ino)
      if (error_.empty()) error_ = what_ + ": the name means something else";
  }
  void written(const log::Record& r) {
    const Descriptor file(open(path(r.file), O_WRONLY | O_CLOEXEC));
    check(pwrite(file.get(), r.payload.data(), r.payload.size(), static_cast<off_t>(r.offset)));
    stamp(r.file, r.mtime_ns);
  }
  void preallocate(const log::Record& r) {
    const Descriptor file(open(path(r.file), O_WRONLY | O_CLOEXEC));
    check(fallocate(file.get(), static_cast<int>(r.mode_flags), static_cast<off_t>(r.offset),
                    static_cast<off_t>(r.length)));
    stamp(r.file, r.mtime_ns);
  }
  void create(const log::Record& r) {
    const int parent = fd(r.parent);
    const bool orphan = r.flags & log::flag_orphan;
    if (orphan) {
      adopt(r.file, open(path(r.parent), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    } else {
      if (r.kind == log::Kind::mkdir)
        check(mkdirat(parent, name(r.name), 0700));
      else if (r.kind == log::Kind::symlink)
        check(symlinkat(std::string(as_text(r.payload)).c_str(), parent, name(r.name)));
      else
        check(mknodat(parent, name(r.name), r.mode & ~07777U, r.rdev));
      adopt(r.file, openat(parent, name(r.name), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    }
    check(fchownat(fd(r.file), "", r.uid, r.gid, AT_EMPTY_PATH));
    if (r.kind != log::Kind::symlink) {
      check(chmod(path(r.file), r.mode & 07777));
      const auto xattrs = log::decode_xattrs(r.payload);
      if (!xattrs)
        error_ = what_ + ": " + xattrs.error().message;
      else
        for (const auto& x : *xattrs) check(setxattr(path(r.file), name(x.name), x.value.data(), x.value.size(), 0));
    }
    stamp(r.file, r.mtime_ns);
  }
  void rename(const log::Record& r) {
    expect(r.parent, r.name, r.file);
    if (!r.replaced.is_none()) expect(r.parent2, r.name2, r.replaced);
    const std::string from(r.name), to(r.name2);
    check(renameat2(fd(r.parent), from.c_str(), fd(r.parent2), to.c_str(),
                    r.flags & log::flag_rename_exchange ? RENAME_EXCHANGE : 0));
  }
  void attributes(const log::Record& r) {
    if (r.valid & log::valid_owner) check(fchownat(fd(r.file), "", r.uid, r.gid, AT_EMPTY_PATH));
    struct stat st;
    if ((r.valid & log::valid_mode) && fstat(fd(r.file), &st) == 0 && !S_ISLNK(st.st_mode))
      check(chmod(path(r.file), r.mode & 07777));
    if (r.valid & log::valid_mtime) stamp(r.file, r.mtime_ns);
  }

  std::map<FileId, std::unique_ptr<Descriptor>> objects_;
  std::string what_, error_, path_, names_[2];
  int turn_ = 0;
};

}  // namespace

std::string replay(const std::deque<std::unique_ptr<KeptRecord>>& records, const std::string& root, SetNumber set) {
  Replayer replayer(root, set);
  for (const auto& record : records)
    if (std::string problem = replayer.apply(record->fields); !problem.empty()) return problem;
  return {};
}

}  // namespace holdfast::capture
