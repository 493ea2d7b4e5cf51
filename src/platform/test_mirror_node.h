// SPDX-License-Identifier: Apache-2.0
// For tests only: an "application" that changes the active's tree at random the way capture would: note, reserve, lock, do, append, unlock.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include <linux/fs.h>
#include <sys/syscall.h>

#include "log/xattrs.h"
#include "platform/test_node.h"

namespace holdfast::platform::testing {

// Random operations on a tree of a few dozen names, so that they meet each other often.
class RandomApplication {
 public:
  RandomApplication(TestNode& node, unsigned seed, SetNumber set = 1) : node_(node), random_(seed), set_(set) {
    root_ = UniqueFd(::open(node.tree_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }

  void run(int operations) {
    for (int i = 0; i < operations; ++i) step();
  }

  void step() {
    static constexpr std::size_t space = 192 * 1024;
    node_.reserve(space);
    const std::lock_guard lock(node_.object_mutex);
    used_ = false;
    space_ = space;
    choose();
    if (!used_) node_.log->capture_log().give_back(space);
    guard_.leave();
  }

 private:
  using Record = log::Record;
  using Kind = log::Kind;

  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }

  UniqueFd some_folder(int depth = 0) {
    UniqueFd at(::openat(root_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (; depth < 4 && pick(3) != 0; ++depth) {
      UniqueFd down(
          ::openat(at.get(), fmt::format("d{}", pick(4)).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (!down) break;
      at = std::move(down);
    }
    return at;
  }
  std::string file_name() { return fmt::format("f{}", pick(8)); }
  std::string any_name() {
    return pick(3) == 0 ? fmt::format("d{}", pick(4)) : pick(4) == 0 ? fmt::format("s{}", pick(4)) : file_name();
  }

  FileId id_of(int fd) { return node_.index->identify(fd, set_).value(); }
  FileId id_at(int dir, const std::string& name, mode_t* mode = nullptr) {
    UniqueFd fd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return {};
    struct stat st {};
    ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH);
    if (mode) *mode = st.st_mode;
    return id_of(fd.get());
  }
  static std::int64_t mtime(int fd) {
    struct stat st {};
    ::fstatat(fd, "", &st, AT_EMPTY_PATH);
    return st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
  }
  // Before each change, with descriptors of what it is about. False: as enter_hot().
  bool hot(std::initializer_list<int> about, bool folders = true) {
    std::vector<std::pair<FileId, bool>> objects;
    for (const int fd : about) objects.emplace_back(id_of(fd), folders);
    return node_.enter_hot(guard_, set_, objects);
  }
  // The same before something is made in a folder; it gets `made_`.
  bool hot_for_new(int dir) {
    if (!hot({dir})) return false;
    const auto id = node_.log->capture_log().hot()->fresh(set_);
    if (id) made_ = *id;
    return id.has_value();
  }
  void append(Record& r) {
    r.set = set_;
    node_.log->capture_log().append(r, space_);
    used_ = true;
  }

  void choose() {
    switch (pick(24)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return create();
      case 5:
      case 6:
      case 7:
      case 8:
        return write();
      case 9:
        return truncate();
      case 10:
        return fallocate();
      case 11:
      case 12:
        return make_folder();
      case 13:
        return symlink();
      case 14:
        return make_node();
      case 15:
        return link();
      case 16:
      case 17:
        return remove();
      case 18:
      case 19:
      case 20:
      case 21:
        return rename();
      case 22:
        return set_attributes();
      default:
        return xattr();
    }
  }

  void created(Record& r, int dir, const std::string& name) {
    UniqueFd fd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st {};
    ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH);
    r.file = made_;
    CHECK(node_.index->bind(fd.get(), set_, r.file), "bind");
    r.parent = id_of(dir);
    r.name = name;
    r.mode = st.st_mode;
    r.uid = st.st_uid;
    r.gid = st.st_gid;
    r.rdev = st.st_rdev;
    r.mtime_ns = r.atime_ns = mtime(fd.get());
    r.parent_mtime_ns = mtime(dir);
    append(r);
  }

  void create() {
    const UniqueFd dir = some_folder();
    const std::string name = file_name();
    if (!hot_for_new(dir.get())) return;
    const UniqueFd fd(::openat(dir.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600 + pick(64)));
    if (!fd) {
      guard_.leave();
      return write();
    }
    Record r;
    r.kind = Kind::create;
    created(r, dir.get(), name);
  }

  UniqueFd some_file() {
    for (int attempt = 0; attempt < 4; ++attempt) {
      const UniqueFd dir = some_folder();
      UniqueFd fd(::openat(dir.get(), file_name().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
      struct stat st {};
      if (fd && ::fstat(fd.get(), &st) == 0 && S_ISREG(st.st_mode)) return fd;
    }
    return UniqueFd();
  }

  void write() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Bytes data(pick(10) == 0 ? pick(150'000) + 1 : pick(9000) + 1);
    for (auto& b : data) b = static_cast<std::uint8_t>(random_());
    struct stat st {};
    ::fstat(fd.get(), &st);
    if (!hot({fd.get()}, false)) return;
    const std::uint64_t offset = pick(2) ? static_cast<std::uint64_t>(st.st_size) : pick(400'000);
    CHECK(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(data.size()),
          "pwrite");
    Record r;
    r.kind = Kind::write;
    r.file = id_of(fd.get());
    r.offset = offset;
    r.mtime_ns = mtime(fd.get());
    r.payload = data;
    append(r);
  }

  void truncate() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Record r;
    r.kind = Kind::truncate;
    r.length = pick(200'000);
    if (!hot({fd.get()}, false)) return;
    CHECK(::ftruncate(fd.get(), static_cast<off_t>(r.length)) == 0, "ftruncate");
    r.file = id_of(fd.get());
    r.mtime_ns = mtime(fd.get());
    append(r);
  }

  void fallocate() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    struct stat st {};
    ::fstat(fd.get(), &st);
    Record r;
    r.kind = Kind::fallocate;
    static constexpr std::uint32_t modes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                              FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE};
    r.mode_flags = modes[pick(20) == 0 ? 3 + pick(2) : pick(3)];
    r.offset = pick(20) * 4096;
    r.length = (1 + pick(10)) * 4096;
    // Refused only after it has changed the modification time (ext4).
    if (r.mode_flags & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) &&
        r.offset + r.length >= static_cast<std::uint64_t>(st.st_size))
      return;
    if (!hot({fd.get()}, false)) return;
    if (::fallocate(fd.get(), static_cast<int>(r.mode_flags), static_cast<off_t>(r.offset),
                    static_cast<off_t>(r.length)) != 0)
      return;
    ::fstat(fd.get(), &st);
    r.size = static_cast<std::uint64_t>(st.st_size);
    r.file = id_of(fd.get());
    r.mtime_ns = mtime(fd.get());
    append(r);
  }

  void make_folder() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("d{}", pick(4));
    if (!hot_for_new(dir.get())) return;
    if (::mkdirat(dir.get(), name.c_str(), 0700 + pick(64)) != 0) return;
    Record r;
    r.kind = Kind::mkdir;
    created(r, dir.get(), name);
  }

  void symlink() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("s{}", pick(4)), target = "to/" + std::to_string(random_());
    if (!hot_for_new(dir.get())) return;
    if (::symlinkat(target.c_str(), dir.get(), name.c_str()) != 0) return;
    Record r;
    r.kind = Kind::symlink;
    r.payload = as_bytes(target);
    created(r, dir.get(), name);
  }

  void make_node() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("s{}", pick(4));
    static constexpr mode_t types[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    const mode_t type = types[pick(4)];
    if (!hot_for_new(dir.get())) return;
    if (::mknodat(dir.get(), name.c_str(), type | 0640,
                  type == S_IFCHR || type == S_IFBLK ? makedev(7, pick(100)) : 0) != 0)
      return;
    Record r;
    r.kind = Kind::mknod;
    created(r, dir.get(), name);
  }

  void link() {
    const UniqueFd from = some_folder(), to = some_folder();
    const std::string name = any_name(), name2 = name[0] == 's' ? fmt::format("s{}", pick(4)) : file_name();
    mode_t mode = 0;
    Record r;
    r.file = id_at(from.get(), name, &mode);
    if (!hot({to.get()})) return;
    if (r.file.is_none() || S_ISDIR(mode) || ::linkat(from.get(), name.c_str(), to.get(), name2.c_str(), 0) != 0)
      return;
    r.kind = Kind::link;
    r.mode = mode & S_IFMT;
    r.parent = id_of(to.get());
    r.name = name2;
    r.parent_mtime_ns = mtime(to.get());
    append(r);
    node_.log->capture_log().moved(set_, r.file);
  }

  void remove() {
    const UniqueFd dir = some_folder();
    const std::string name = any_name();
    mode_t mode = 0;
    Record r;
    r.file = id_at(dir.get(), name, &mode);
    if (!hot({dir.get()})) return;
    if (r.file.is_none() || ::unlinkat(dir.get(), name.c_str(), S_ISDIR(mode) ? AT_REMOVEDIR : 0) != 0) return;
    r.kind = S_ISDIR(mode) ? Kind::rmdir : Kind::unlink;
    r.parent = id_of(dir.get());
    r.name = name;
    r.parent_mtime_ns = mtime(dir.get());
    append(r);
  }

  void rename() {
    const UniqueFd from = some_folder(), to = some_folder();
    const std::string name = any_name();
    const std::string name2 = name[0] == 'd'   ? fmt::format("d{}", pick(4))
                              : name[0] == 's' ? fmt::format("s{}", pick(4))
                                               : file_name();
    mode_t mode = 0, mode2 = 0;
    Record r;
    r.file = id_at(from.get(), name, &mode);
    r.replaced = id_at(to.get(), name2, &mode2);
    if (r.file.is_none() || r.file == r.replaced) return;
    if (!hot({from.get(), to.get()})) return;
    const bool exchange = pick(5) == 0 && !r.replaced.is_none();
    if (::syscall(SYS_renameat2, from.get(), name.c_str(), to.get(), name2.c_str(), exchange ? RENAME_EXCHANGE : 0) !=
        0)
      return;
    r.kind = Kind::rename;
    r.mode = mode & S_IFMT;
    r.flags = exchange ? log::flag_rename_exchange : 0;
    r.parent = id_of(from.get());
    r.name = name;
    r.parent2 = id_of(to.get());
    r.name2 = name2;
    r.parent_mtime_ns = mtime(from.get());
    r.parent2_mtime_ns = mtime(to.get());
    append(r);
    node_.log->capture_log().moved(set_, r.file);
    if (exchange) node_.log->capture_log().moved(set_, r.replaced);
  }

  void set_attributes() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Record r;
    r.kind = Kind::set_attributes;
    r.valid = log::valid_mode | log::valid_owner | log::valid_mtime;
    r.mode = 0600 + pick(64);
    r.uid = pick(5);
    r.gid = pick(5);
    r.mtime_ns = 1'600'000'000'123'456'789 + pick(1000);
    if (!hot({fd.get()}, false)) return;
    const timespec times[2] = {{0, UTIME_OMIT}, {r.mtime_ns / 1'000'000'000, r.mtime_ns % 1'000'000'000}};
    CHECK(::fchown(fd.get(), r.uid, r.gid) == 0 && ::fchmod(fd.get(), r.mode) == 0 && ::futimens(fd.get(), times) == 0,
          "attributes");
    r.file = id_of(fd.get());
    append(r);
  }

  void xattr() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    const std::string name = fmt::format("user.x{}", pick(3));
    if (!hot({fd.get()}, false)) return;
    Record r;
    r.name = name;
    Bytes value(pick(60));
    for (auto& b : value) b = static_cast<std::uint8_t>(random_());
    if (pick(3) == 0) {
      if (::fremovexattr(fd.get(), name.c_str()) != 0) return;
      r.kind = Kind::remove_xattr;
    } else {
      if (::fsetxattr(fd.get(), name.c_str(), value.data(), value.size(), 0) != 0) return;
      r.kind = Kind::set_xattr;
      r.payload = value;
    }
    r.file = id_of(fd.get());
    append(r);
  }

  TestNode& node_;
  std::mt19937 random_;
  SetNumber set_;
  UniqueFd root_;
  bool used_ = false;
  std::size_t space_ = 0;
  mirror::HotGate::Guard guard_;
  FileId made_;
};

}  // namespace holdfast::platform::testing
