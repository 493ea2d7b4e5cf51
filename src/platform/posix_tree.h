// SPDX-License-Identifier: Apache-2.0
// ports::Tree over a real folder, reached through a descriptor on a private, detached mount: covers and FUSE on top are not in the way.
// Objects are opened by handle (file_index.h) and kept in a small cache. One user at a time, except sync().
#pragma once

#include <sys/stat.h>

#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "platform/digest_ahead.h"
#include "platform/file_index.h"
#include "platform/graveyard_purge.h"
#include "platform/unique_fd.h"
#include "ports/tree.h"

namespace holdfast::platform {

class PosixTree final : public ports::Tree {
 public:
  // Takes the root's descriptor. Makes the hidden folder, empties its staging corner, gives the root its fixed id. `index` outlives it.
  static Result<std::unique_ptr<PosixTree>> open(UniqueFd root, SetNumber set, FileIndex& index);

  SetNumber set() const override { return set_; }
  Result<std::optional<ports::NodeAttributes>> attributes(const FileId& id) override;
  Result<std::size_t> read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override;
  Result<std::size_t> read_aside(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override;
  Result<std::string> read_target(const FileId& id) override;
  Status write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) override;
  Status truncate(const FileId& id, std::uint64_t size) override;
  Status fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) override;
  Status punch(const FileId& id, std::uint64_t offset, std::uint64_t length) override;
  Status set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) override;
  Status set_xattr(const FileId& id, std::string_view name, ByteView value) override;
  Status remove_xattr(const FileId& id, std::string_view name) override;
  Status replace_xattrs(const FileId& id, ByteView list) override;

  Status stage(const FileId& id, const ports::NewNode& node) override;
  Status commit_ids() override { return index_.commit(); }
  Status unstage() override;
  Status place(const FileId& id, const FileId& dir, std::string_view name) override;
  Status place_in_grave(const FileId& id, ports::Grave why) override;

  Result<ports::Standing> at(const FileId& dir, std::string_view name, const FileId& expected) override;
  Result<std::optional<ports::TreeEntry>> lookup(const FileId& dir, std::string_view name) override;
  Result<ports::TreeListing> list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) override;
  Status for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) override;
  Status link(const FileId& id, const FileId& dir, std::string_view name) override;
  Status unlink(const FileId& dir, std::string_view name) override;
  Status rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                std::uint32_t flags) override;

  Result<std::optional<ports::Grave>> in_grave(const FileId& id) override;
  Status bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) override;
  Status exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) override;
  Status purge(ports::Grave what) override;
  Status adopt(const FileId& dir, std::string_view name, const FileId& id) override;
  Status bring(const FileId& id, const FileId& dir, std::string_view name) override;
  Status set_aside(const FileId& folder) override;
  Result<bool> is_empty() override;
  Result<ports::NamesMark> names_mark() override;
  Status set_names_mark(ports::NamesMark mark) override;
  Result<Bytes> mark(ports::Mark which) override;
  Status set_mark(ports::Mark which, ByteView value) override;
  ports::TreeLimits limits() const override { return limits_; }
  bool is_another() const override { return another_; }
  Status adopt_root() override;
  Result<ports::Digest> digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override;
  void will_digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override;
  void forget_digests() override { ahead_.forget_all(); }
  Status sync() override;
  Result<std::uint64_t> free_bytes() override;
  Result<Bytes> read_xattrs(const FileId& id) override;
  Result<std::uint64_t> next_data(const FileId& id, std::uint64_t offset) override;
  Result<std::uint64_t> next_hole(const FileId& id, std::uint64_t offset) override;
  Status revive(const FileId& id, const ports::NewNode& node) override;
  void burial_stamp(std::uint64_t stamp) override { burial_stamp_ = stamp; }
  Result<std::vector<ports::GraveEntry>> graves(ports::Grave what) override;
  Result<bool> purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) override;
  Status settle_limbo(std::uint64_t stamp) override;
  Result<std::optional<std::pair<FileId, std::string>>> place_of(const FileId& folder) override;
  Result<FileId> identify(const FileId& dir, std::string_view name) override;
  const std::atomic<std::uint64_t>& dead_names_gone() const { return dead_.names_gone(); }  // as Graveyard takes it

 private:
  struct Node {
    UniqueFd fd;             // regular: read and write, but of a program that runs; folder: read; others: O_PATH
    std::uint32_t type = 0;  // S_IFMT
    std::uint64_t ino = 0;
    bool read_only = false;    // a program that ran when it was opened
    bool staged_file = false;  // O_TMPFILE without a name yet: must not be dropped from the cache
    std::list<FileId>::iterator place;
  };
  PosixTree(UniqueFd root, SetNumber set, FileIndex& index);
  Status prepare();
  Status bind_root();
  struct Looked {  // what was looked up last: it may be adopted next
    FileId dir;
    std::string name;
    std::uint64_t ino = 0;
    std::uint32_t type = 0;  // S_IFMT
    UniqueFd fd;
  };
  Node* opened(const FileId& id);        // nullptr: not open; may have lost its last name since
  Result<Node*> find(const FileId& id);  // nullptr: absent
  Result<Node*> need(const FileId& id);  // absent is an error
  Result<Node*> need_writable(const FileId& id);
  Node& remember(const FileId& id, Node node);
  void drop(const FileId& id);
  Status stage_file(const FileId& id, const ports::NewNode& node);
  Status stage_other(const FileId& id, const ports::NewNode& node);
  Status dress(int fd, const struct stat& made, const ports::NewNode& node) const;
  Status give_xattr(int fd, std::string_view name, ByteView value, const std::string& whose) const;
  Result<std::string> grave_name(const FileId& id, ports::Grave why) const;
  Result<std::pair<UniqueFd, std::string>> locate_folder(Node& node);
  Status sum_below(int fd, ports::GraveEntry& sum) const;
  Result<std::uint64_t> seek(const FileId& id, std::uint64_t offset, int whence);
  Status stamp_grave(int dir_fd, const std::string& name, const std::string& grave, std::uint64_t stamp);
  Result<std::uint64_t> grave_stamp(int fd, const std::string& grave);
  Result<FileId> make_known(int fd);

  UniqueFd root_;
  const SetNumber set_;
  FileIndex& index_;
  const std::size_t cached_nodes_;
  bool another_ = false;
  ports::TreeLimits limits_;
  UniqueFd hidden_, staging_, grave_;
  std::unordered_map<FileId, Node> nodes_;
  std::list<FileId> recent_;  // front = used last
  Looked looked_;
  std::uint64_t burial_stamp_ = 0;
  GravePurge dead_;
  DigestAhead ahead_;
};

}  // namespace holdfast::platform
