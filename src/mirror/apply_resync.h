// SPDX-License-Identifier: Apache-2.0
// Apply while a set is being (re)synchronized: the tree may be empty, identical, or anything else. Shipped objects are made as they are said to
// be; live operations do what they can: on unknown objects nothing (they are shipped later), on names they make the postcondition true.
// Nothing that is in the way is deleted: it goes to limbo by id, and a later listing may pull it back. Limbo is emptied at resync_end.
// A partial resync (changed_walk.h) ships no tree: what is missing here, and what is made here without its contents, is asked for.
#pragma once

#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "log/record.h"
#include "mirror/apply_ops.h"
#include "mirror/channel.h"

namespace holdfast::mirror {

// What outlives a batch: listings whose last chunk has not come yet.
struct ResyncMemory {
  std::unordered_map<FileId, std::unordered_set<std::string>> listings;
  bool partial = false;
  std::unordered_set<FileId> asked;  // partial: unknown here, and asked for since
  // A live change may need something after the last thing that was to be shipped; then this resync can't make the set complete.
  std::unordered_set<FileId> made;    // without their contents, and not shipped since
  std::unordered_set<FileId> relist;  // folders that lack a name, which was asked for
  bool broken = false;  // a chunk came whose beginning this process never saw: this resync can't make the set complete
};

constexpr std::uint64_t log_max_hash_bytes = std::uint64_t{1} << 20;  // what one ship_hash may cover

class ResyncApply {
 public:
  using NakSink = std::function<void(const Nak&)>;
  ResyncApply(TreeBatch& batch, ResyncMemory& memory, const std::unordered_set<FileId>& staged, NakSink nak)
      : batch_(batch), tree_(batch.tree()), memory_(memory), staged_(staged), nak_(std::move(nak)) {}
  Status apply(const log::Record& record);

 private:
  Status change_names(const log::Record& r);
  Status note_done(const log::Record& r);
  Status make(const log::Record& r);
  Status link(const log::Record& r);
  Status remove(const log::Record& r);
  Status rename(const log::Record& r);
  Status ship_node(const log::Record& r);
  Status ship_dir(const log::Record& r);
  Status finish_listing(const log::Record& r);
  Status ship_data(const log::Record& r);
  Status ship_hash(const log::Record& r);

  Result<bool> known(const FileId& id);
  Status skip(const FileId& unknown);
  void ask(const FileId& id, std::uint64_t offset = 0) { nak_({tree_.set(), id, offset, 0}); }
  void ask_for_contents(const FileId& id, std::uint64_t offset = 0);
  Status make_placeholder(const FileId& id, std::uint32_t type, const FileId& dir, std::string_view name);
  // Whatever stands at the name leaves it, unless it is `keep`. True: `keep` stands there.
  Result<bool> clear(const FileId& dir, std::string_view name, const FileId& keep);
  Status bring(const FileId& id, const FileId& dir, std::string_view name);
  Status put(const FileId& id, std::uint32_t type, const FileId& dir, std::string_view name);
  void note_name(const FileId& dir, std::string_view name, bool there);

  TreeBatch& batch_;
  ports::Tree& tree_;
  ResyncMemory& memory_;
  const std::unordered_set<FileId>& staged_;
  NakSink nak_;
};

}  // namespace holdfast::mirror
