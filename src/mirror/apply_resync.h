// SPDX-License-Identifier: Apache-2.0
// Apply while a set is being (re)synchronized: the tree may be empty, identical, or anything else. Shipped objects are made as they are said to
// be; live operations do what they can: on unknown objects nothing (they are shipped later), on names they make the postcondition true.
// Nothing that is in the way is deleted: it goes to limbo by id, and a later listing may pull it back. Limbo is emptied at resync_end.
// A partial resync (changed_walk.h) ships no tree: what is missing here, and what is made here without its contents, is asked for.
#pragma once

#include <functional>

#include "log/record.h"
#include "mirror/apply_ops.h"
#include "mirror/channel.h"
#include "mirror/resync_memory.h"
#include "mirror/stage_ahead.h"

namespace holdfast::mirror {

class ResyncApply {
 public:
  using NakSink = std::function<void(const Nak&)>;
  ResyncApply(TreeBatch& batch, ResyncMemory& memory, Staged& staged, NakSink nak)
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
  Status ship_dressed(const log::Record& r, bool sized);
  Status become(const log::Record& r, const ports::NodeAttributes* there);
  bool all_follows(const log::Record& node) const { return !memory_.partial || node.rdev == log::rdev_all_follows; }
  void is_shipped(const log::Record& node);
  Status name_all(const log::Record& r);
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
  Staged& staged_;
  NakSink nak_;
};

}  // namespace holdfast::mirror
