// SPDX-License-Identifier: Apache-2.0
// A past moment that can be written to: what was changed here, laid over what the past says. Files keep their ids, so a folder that is moved brings
// what is in it along, and nothing is copied but pages that are written in part.
//
//   names       by folder: what stands there now, or that nothing does; no entry: what the past says
//   objects     made here, or touched: attributes, xattrs (all of them or none), content (mirror/scratch_data.h)
//   the store   pages of content, in one sparse file that is nobody's
//
// The past never changes, so it is asked before the lock is taken, and nothing that this view holds waits for apply; what another call changed in
// between is seen under the lock. All is gone with the view. Who stands above (capture/look_server.h) is a kernel: see ports/scratch_tree.h.
// Threads: any.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "mirror/scratch_data.h"
#include "ports/scratch_tree.h"
#include "ports/times.h"

namespace holdfast::mirror {

constexpr std::uint64_t most_scratch_objects = 1'000'000;  // some 300 bytes each

class ScratchView final : public ports::ScratchTree {
 public:
  struct Limits {
    std::uint64_t bytes = 1ULL << 30;
    std::uint64_t objects = most_scratch_objects;
  };
  ScratchView(std::shared_ptr<ports::PastTree> past, std::unique_ptr<ports::ScratchStore> store, ports::Times& times,
              Limits limits)
      : past_(std::move(past)),
        store_(std::move(store)),
        times_(times),
        limits_(limits),
        space_(limits.bytes / scratch_page) {}

  Result<std::optional<ports::TreeEntry>> lookup(SetNumber set, const FileId& dir, std::string_view name) override;
  Result<std::vector<ports::TreeEntry>> list(SetNumber set, const FileId& dir) override;
  Result<ports::PastAttributes> attributes(SetNumber set, const FileId& id) override;
  Result<Bytes> xattrs(SetNumber set, const FileId& id) override;
  Result<std::string> target(SetNumber set, const FileId& id) override;
  Result<std::size_t> read(SetNumber set, const FileId& id, std::uint64_t offset,
                           std::span<std::uint8_t> into) override;

  Result<FileId> make(SetNumber set, const FileId& dir, std::string_view name, const ports::ScratchNode& node) override;
  Status link(SetNumber set, const FileId& id, const FileId& dir, std::string_view name) override;
  Status remove(SetNumber set, const FileId& dir, std::string_view name, bool folder) override;
  Status rename(SetNumber set, const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                std::uint32_t flags, const ports::ScratchNode* left) override;
  Status write(SetNumber set, const FileId& id, std::uint64_t offset, ByteView bytes, bool drop_set_id) override;
  Status fallocate(SetNumber set, const FileId& id, std::uint32_t mode_flags, std::uint64_t offset,
                   std::uint64_t length, bool drop_set_id) override;
  Status change(SetNumber set, const FileId& id, const ports::ScratchChange& change) override;
  Status set_xattr(SetNumber set, const FileId& id, std::string_view name, ByteView value, ports::XattrHow how,
                   bool drop_set_gid) override;
  Status remove_xattr(SetNumber set, const FileId& id, std::string_view name) override;
  Result<std::uint64_t> next_data(SetNumber set, const FileId& id, std::uint64_t offset) override;
  Result<std::uint64_t> next_hole(SetNumber set, const FileId& id, std::uint64_t offset) override;
  void forgotten(SetNumber set, const FileId& id) override;
  ports::ScratchUse use() const override { return {used_bytes_, limits_.bytes, used_objects_, limits_.objects}; }

 private:
  // The lock of what changes something: says how much is used when it ends.
  class Held {
   public:
    explicit Held(ScratchView& view) : view_(view), lock_(view.mutex_) {}
    ~Held() {
      view_.used_bytes_ = view_.space_.used_bytes();
      view_.used_objects_ = view_.objects_ + view_.names_ + view_.runs_;
    }

   private:
    ScratchView& view_;
    const std::lock_guard<std::mutex> lock_;
  };
  using Xattrs = std::map<std::string, Bytes, std::less<>>;
  struct Object {
    ports::PastAttributes a;
    bool made = false;             // here: nothing of it is in the past
    bool removed = false;          // a folder without a name
    bool capability_lost = false;  // while xattrs are still the past's
    std::optional<Xattrs> xattrs;
    std::string target;
    ScratchData data;
  };
  struct Name {
    FileId id;  // none: nothing stands there
    std::uint32_t type = 0;
    bool in_past = false;  // something stood there then
  };
  using Names = std::map<std::string, Name, std::less<>>;
  struct Layer {  // of one set
    std::unordered_map<FileId, Object> objects;
    std::unordered_map<FileId, Names> names;  // by folder
  };
  // What the past says about what a change touches, asked before the lock.
  struct Told {
    std::unordered_map<FileId, ports::PastAttributes> objects;
    std::map<std::pair<FileId, std::string>, std::optional<ports::TreeEntry>> names;
    std::unordered_map<FileId, std::vector<ports::TreeEntry>> lists;
    std::unordered_map<FileId, Xattrs> xattrs;
  };
  using Entry = std::optional<ports::TreeEntry>;

  // --- asking the past, without the lock; what is known here already is not asked for
  Status ask_object(SetNumber set, const FileId& id, Told& told);
  Status ask_name(SetNumber set, const FileId& dir, std::string_view name, Told& told, Entry& stands);
  Status ask_list(SetNumber set, const FileId& dir, Told& told);
  Status ask_xattrs(SetNumber set, const FileId& id, Told& told);
  Result<PastPages> ask_pages(SetNumber set, const FileId& id, std::uint64_t begin, std::uint64_t end,
                              const Told& told);

  // --- under the lock
  Layer& layer(SetNumber set) { return layers_[set]; }
  const Object* find(SetNumber set, const FileId& id) const;
  const Name* find_name(SetNumber set, const FileId& dir, std::string_view name) const;
  Result<Object*> touch(SetNumber set, const FileId& id, const Told& told);
  Result<Object*> touch_folder(SetNumber set, const FileId& id, const Told& told);
  Result<Xattrs*> touch_xattrs(Object& object, const FileId& id, const Told& told);
  Entry standing(SetNumber set, const FileId& dir, std::string_view name, const Told& told) const;
  void set_name(SetNumber set, const FileId& dir, std::string_view name, const Entry& to, const Told& told);
  bool is_empty(SetNumber set, const FileId& dir, const Told& told) const;
  Status check_objects(std::uint64_t more) const;
  Result<FileId> put_object(SetNumber set, const Object& dir, const ports::ScratchNode& node);
  Status check_replaced(SetNumber set, const ports::TreeEntry& moved, const Entry& replaced, std::uint32_t flags,
                        const Told& told) const;
  void lose_name(Object& object);
  void lose_folder(Object& parent, Object& folder);
  static void leave_folder(Object& parent);
  void changed_in(Object& dir);
  void lose_privileges(Object& object, bool drop_set_id);
  void count_runs(const Object& object, std::size_t before);
  ScratchData::Where where() { return {space_, *store_}; }
  FileId fresh();

  const std::shared_ptr<ports::PastTree> past_;
  const std::unique_ptr<ports::ScratchStore> store_;
  ports::Times& times_;
  const Limits limits_;
  mutable std::mutex mutex_;  // all below, and the store's writers
  ScratchSpace space_;
  std::map<SetNumber, Layer> layers_;
  std::uint64_t last_id_ = 0, objects_ = 0, names_ = 0, runs_ = 0;
  std::atomic<std::uint64_t> used_bytes_{0}, used_objects_{0};  // for who must not wait for a slow disk
};

}  // namespace holdfast::mirror
