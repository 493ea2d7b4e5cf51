// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <vector>

#include "log/hash.h"
#include "log/record.h"
#include "log/xattrs.h"
#include "platform/object_xattrs.h"
#include "platform/posix_tree.h"
#include "platform/read_aside.h"
#include "platform/stat_attributes.h"
#include "platform/tree_probe.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t max_pieces = 64;
constexpr std::uint64_t perhaps_big_bytes = 64 * 1024;  // a file of which so much is compared at once
// Of the hidden folder.
constexpr const char* names_attribute = "trusted.holdfast.names";
constexpr const char* mark_attribute(ports::Mark which) {
  return which == ports::Mark::hot ? "trusted.holdfast.hot" : "trusted.holdfast.checkpoint";
}

timespec to_timespec(std::int64_t ns) {
  timespec t{ns / 1'000'000'000, ns % 1'000'000'000};
  if (t.tv_nsec < 0) t.tv_nsec += 1'000'000'000, --t.tv_sec;
  return t;
}

}  // namespace

Result<std::optional<ports::NodeAttributes>> PosixTree::attributes(const FileId& id) {
  Node* node = opened(id);  // looked at below
  if (!node) {
    HF_ASSIGN(node, find(id));
  }
  if (!node) return std::optional<ports::NodeAttributes>{};
  struct stat st {};
  if (::fstatat(node->fd.get(), "", &st, AT_EMPTY_PATH) != 0)
    return fail_errno(errno, "set {}: cannot stat {}", set_, id.to_hex());
  // Known by a descriptor that is kept, and removed below the mirror: it is not there.
  if (st.st_nlink == 0 && !node->staged_file) {
    drop(id);
    return std::optional<ports::NodeAttributes>{};
  }
  return std::optional(attributes_of(st));
}

Result<std::size_t> PosixTree::read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) {
  HF_ASSIGN(Node * node, need(id));
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t n =
        ::pread(node->fd.get(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "set {}: cannot read {}", set_, id.to_hex());
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<std::size_t> PosixTree::read_aside(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) {
  HF_ASSIGN(Node * node, need(id));
  const std::int64_t n = platform::read_aside(node->fd.get(), offset, into);
  if (n < 0) return fail_errno(static_cast<int>(-n), "set {}: cannot read {}", set_, id.to_hex());
  return static_cast<std::size_t>(n);
}

Result<std::string> PosixTree::read_target(const FileId& id) {
  HF_ASSIGN(Node * node, need(id));
  std::string target(4096, '\0');
  const ssize_t n = ::readlinkat(node->fd.get(), "", target.data(), target.size());
  if (n < 0) return fail_errno(errno, "set {}: cannot read the link {}", set_, id.to_hex());
  target.resize(static_cast<std::size_t>(n));
  return target;
}

Status PosixTree::write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) {
  ahead_.forget(id);
  HF_ASSIGN(Node * node, need_writable(id));
  while (!pieces.empty()) {
    std::array<iovec, max_pieces> vectors;
    std::size_t count = 0, total = 0;
    for (; count < std::min(pieces.size(), max_pieces); ++count) {
      vectors[count] = {const_cast<std::uint8_t*>(pieces[count].data()), pieces[count].size()};
      total += pieces[count].size();
    }
    iovec* next = vectors.data();
    std::size_t left = count;
    for (std::size_t done = 0; done < total;) {
      const ssize_t n = ::pwritev(node->fd.get(), next, static_cast<int>(left), static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "set {}: cannot write {}", set_, id.to_hex());
      done += static_cast<std::size_t>(n);
      for (auto rest = static_cast<std::size_t>(n); rest > 0;) {
        const std::size_t taken = std::min(rest, next->iov_len);
        next->iov_base = static_cast<std::uint8_t*>(next->iov_base) + taken;
        next->iov_len -= taken;
        rest -= taken;
        if (next->iov_len == 0) ++next, --left;
      }
    }
    offset += total;
    pieces = pieces.subspan(count);
  }
  return {};
}

Status PosixTree::truncate(const FileId& id, std::uint64_t size) {
  ahead_.forget(id);
  HF_ASSIGN(Node * node, need_writable(id));
  if (::ftruncate(node->fd.get(), static_cast<off_t>(size)) == 0) return {};
  if (errno == EFBIG) return not_held(limits_, ports::Limit::file_bytes, id.to_hex());
  return fail_errno(errno, "set {}: cannot truncate {}", set_, id.to_hex());
}

Status PosixTree::fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) {
  ahead_.forget(id);
  HF_ASSIGN(Node * node, need_writable(id));
  int rc = 0;
  do
    rc = ::fallocate(node->fd.get(), static_cast<int>(mode_flags), static_cast<off_t>(offset),
                     static_cast<off_t>(length));
  while (rc != 0 && errno == EINTR);
  if (rc != 0) return fail_errno(errno, "set {}: cannot allocate in {} (mode {:#x})", set_, id.to_hex(), mode_flags);
  return {};
}

Status PosixTree::punch(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  return fallocate(id, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

Status PosixTree::set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) {
  HF_ASSIGN(Node * node, need(id));
  const int fd = node->fd.get();
  // Owner first: a change of owner clears the set-id bits.
  if ((valid & log::valid_owner) && ::fchownat(fd, "", to.uid, to.gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno(errno, "set {}: cannot set the owner of {}", set_, id.to_hex());
  if ((valid & log::valid_mode) && node->type != S_IFLNK && change_mode(fd, to.mode & 07777) != 0)
    return fail_errno(errno, "set {}: cannot set the mode of {}", set_, id.to_hex());
  if (valid & (log::valid_atime | log::valid_mtime)) {
    const timespec omit{0, UTIME_OMIT};
    const timespec times[2] = {valid & log::valid_atime ? to_timespec(to.atime_ns) : omit,
                               valid & log::valid_mtime ? to_timespec(to.mtime_ns) : omit};
    if (::utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno(errno, "set {}: cannot set the times of {}", set_, id.to_hex());
  }
  return {};
}

Status PosixTree::set_xattr(const FileId& id, std::string_view name, ByteView value) {
  HF_ASSIGN(Node * node, need(id));
  return give_xattr(node->fd.get(), name, value, "of " + id.to_hex());
}

// A file system without room for more attributes of this one object says that it is full, and nothing would ever change that.
Status PosixTree::give_xattr(int fd, std::string_view name, ByteView value, const std::string& whose) const {
  if (platform::set_xattr(fd, std::string(name).c_str(), value.data(), value.size()) == 0) return {};
  const int error = errno;
  const std::string what = fmt::format("the attribute {} {}", name, whose);
  if (error == EOPNOTSUPP && ports::is_access_list(name) && limits_.most(ports::Limit::access_list_bytes) == 0)
    return not_held(limits_, ports::Limit::access_list_bytes, what);
  if (error == ENOSPC)
    if (const auto limit = exceeded_by_xattr(limits_, fd, name, value.size())) return not_held(limits_, *limit, what);
  return fail_errno(error, "set {}: cannot set {}", set_, what);
}

Status PosixTree::remove_xattr(const FileId& id, std::string_view name) {
  HF_ASSIGN(Node * node, need(id));
  if (platform::remove_xattr(node->fd.get(), std::string(name).c_str()) != 0 && errno != ENODATA)
    return fail_errno(errno, "set {}: cannot remove the attribute {} of {}", set_, name, id.to_hex());
  return {};
}

Status PosixTree::replace_xattrs(const FileId& id, ByteView list) {
  HF_ASSIGN(const auto wanted, log::decode_xattrs(list));
  HF_ASSIGN(Node * node, need(id));
  std::set<std::string_view> keep;
  for (const auto& x : wanted) keep.insert(x.name);
  HF_TRY(for_each_xattr_name(node->fd.get(), [&](const std::string& name) -> Status {
    if (keep.contains(name) || !is_replicated_xattr(name)) return {};
    return remove_xattr(id, name);
  }));
  for (const auto& x : wanted) HF_TRY(set_xattr(id, x.name, x.value));
  return {};
}

Result<ports::NamesMark> PosixTree::names_mark() {
  ports::NamesMark mark;
  std::uint64_t words[2] = {};
  const ssize_t n = ::fgetxattr(hidden_.get(), names_attribute, words, sizeof words);
  if (n < 0 && errno != ENODATA)
    return fail_errno(errno, "set {}: cannot read the attribute {}", set_, names_attribute);
  if (n == sizeof words) mark = {words[0], Sequence(words[1])};
  return mark;
}

Status PosixTree::set_names_mark(ports::NamesMark mark) {
  const std::uint64_t words[2] = {mark.log, mark.sequence.value};
  if (::fsetxattr(hidden_.get(), names_attribute, words, sizeof words, 0) != 0)
    return fail_errno(errno, "set {}: cannot set the attribute {}", set_, names_attribute);
  return {};
}

Result<Bytes> PosixTree::mark(ports::Mark which) {
  Bytes value(ports::mark_bytes);
  const ssize_t n = ::fgetxattr(hidden_.get(), mark_attribute(which), value.data(), value.size());
  if (n < 0 && errno != ENODATA && errno != ERANGE)  // another size: of a program that this one does not know
    return fail_errno(errno, "set {}: cannot read the attribute {}", set_, mark_attribute(which));
  value.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return value;
}

Status PosixTree::set_mark(ports::Mark which, ByteView value) {
  if (::fsetxattr(hidden_.get(), mark_attribute(which), value.data(), value.size(), 0) != 0)
    return fail_errno(errno, "set {}: cannot set the attribute {}", set_, mark_attribute(which));
  return {};
}

Result<ports::Digest> PosixTree::digest(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  if (const auto ready = ahead_.take(id, offset, length)) return *ready;
  Bytes bytes(length);
  HF_ASSIGN(const std::size_t n, read(id, offset, bytes));
  return ports::Digest{log::content_hash(ByteView(bytes).first(n)), n};
}

void PosixTree::will_digest(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  const auto node = find(id);
  if (!node || !*node || (*node)->type != S_IFREG) return;
  const auto own = [&] { return UniqueFd(::fcntl((*node)->fd.get(), F_DUPFD_CLOEXEC, 0)); };
  struct stat st {};
  if (length >= perhaps_big_bytes && ::fstat((*node)->fd.get(), &st) == 0 &&
      st.st_size >= static_cast<off_t>(read_once_least_bytes))
    return ahead_.ask_big(
        id,
        [&]() -> std::shared_ptr<ReadOnce> {
          UniqueFd file = own();
          return file ? std::make_shared<ReadOnce>(std::move(file), static_cast<std::uint64_t>(st.st_size)) : nullptr;
        },
        offset, length);
  if (UniqueFd file = own()) ahead_.ask(id, std::move(file), offset, length);
}

Status PosixTree::sync() {
  if (::syncfs(root_.get()) != 0)
    return fail_errno(errno, "set {}: the file system could not write what it holds", set_);
  return {};
}

}  // namespace holdfast::platform
