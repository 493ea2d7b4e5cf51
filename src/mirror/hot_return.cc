// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_return.h"

#include <fmt/core.h>

namespace holdfast::mirror {

ChangeSet changes_of(const std::vector<HotNote>& notes) {
  ChangeSet all;
  for (const HotNote& note : notes) {
    switch (note.kind) {
      case HotKind::file:
        all.note_file(note.set, note.id);
        break;
      case HotKind::folder:
        all.note_folder(note.set, note.id);
        break;
      case HotKind::block:
        all.note_block(note.set, IdBlock::of(note.id));
        break;
      case HotKind::set:
        all.note_set(note.set);
        break;
    }
  }
  return all;
}

//   both know of such lists, and it has one of the epoch that it led    else it can't say what differs
//   this node's trees were a log's, exactly, when its epoch began       else what they lack is in no list
//   that log ends in the very epoch                                     else another one led between, or this node never followed it
//   at or after where the list begins                                   else what was dropped from the list before may be missing here
std::string why_whole(const Welcome& peer, std::uint32_t features, const std::optional<LedFrom>& here) {
  constexpr std::uint32_t needed = feature_hot_return | feature_partial_resync;
  if ((peer.features & features & needed) != needed)
    return "one of the two nodes does not know how to say what may differ";
  if (peer.led == Epoch(0)) return "it has no notes of what it changed last";
  if (!here) return "this node's own folders were not exactly what a log says when its epoch began";
  if (here->base.epoch != peer.led)
    return fmt::format("it led epoch {}, and this node's log went on from epoch {}", peer.led.value,
                       here->base.epoch.value);
  if (here->base < peer.covered)
    return fmt::format("its notes begin at sequence {} of epoch {}, and this node went on from sequence {}",
                       peer.covered.sequence.value, peer.covered.epoch.value, here->base.sequence.value);
  return {};
}

std::string to_string(const Returned& r) {
  std::string text = fmt::format("{} was active and did not hand over", r.name);
  if (!r.why_whole.empty()) return text + ": all of it is compared, because " + r.why_whole;
  text += fmt::format(": reconciles {} files and {} folders instead of the whole tree", r.reconciled.files,
                      r.reconciled.folders);
  for (const SetNumber set : r.reconciled.whole)
    text += fmt::format("; all of set {}, in which too much was changed at once", set);
  return text;
}

namespace {

constexpr std::size_t noted_at_once = 4096;

// Notes what is added to it, piece by piece.
class Noting {
 public:
  Noting(ChangeMap& map, Reconciled& sum, const std::function<Status()>& between)
      : map_(map), sum_(sum), between_(between) {}
  ChangeSet& piece() { return piece_; }
  Status go_on() { return piece_.size() < noted_at_once ? Status{} : write(); }
  Status write() {
    piece_.for_each_object(
        [&](SetNumber, const FileId&, const ObjectChange& change) { ++(change.listing ? sum_.folders : sum_.files); });
    HF_TRY(map_.note(piece_, between_));
    if (map_.overflowed()) return fail(ErrorCode::refused, "it is too much to be listed");
    piece_.clear();
    return between_();
  }

 private:
  ChangeMap& map_;
  Reconciled& sum_;
  const std::function<Status()>& between_;
  ChangeSet piece_;
};

struct Made {
  SetNumber set;
  FileId id;
  bool folder;
};

}  // namespace

Result<Reconciled> note_left(ChangeMap& map, const std::vector<ports::ChangeEntry>& left, const IdsOfBlock& ids,
                             const std::function<Status()>& between) {
  Reconciled sum;
  Noting noting(map, sum, between);
  std::vector<IdBlock> blocks;
  for (const auto& entry : left) {
    HF_ASSIGN(const ChangeKey key, decode_change_key(entry.key));
    if (key.kind == ChangeKind::block) {
      blocks.push_back(key.block);
      continue;
    }
    if (key.kind == ChangeKind::set) sum.whole.insert(key.set);
    HF_TRY(noting.piece().add(entry.key, entry.value));
    HF_TRY(noting.go_on());
  }
  std::vector<Made> made;
  for (const IdBlock& block : blocks) {
    made.clear();
    HF_TRY(ids(block, [&](SetNumber set, const FileId& id, bool folder) { made.push_back({set, id, folder}); }));
    for (const Made& m : made) {
      if (m.folder)
        noting.piece().note_folder(m.set, m.id);
      else
        noting.piece().note_file(m.set, m.id);
      HF_TRY(noting.go_on());
    }
  }
  HF_TRY(noting.write());
  return sum;
}

}  // namespace holdfast::mirror
