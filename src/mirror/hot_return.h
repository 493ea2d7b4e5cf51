// SPDX-License-Identifier: Apache-2.0
// What an active whose epoch ended uncleanly knows of the difference between its trees and what everybody else holds (R5), and when that is enough.
//
//   its tree = the log of the epoch that it led, at any moment from `covered` on, but for what is listed
// Listed is everything it changed after that (hot_set.h); what it changed before is on its disk (synced before notes are dropped). So:
//   it returns to a successor whose tree is that log at `covered` or later, exactly: only what is listed, and what the successor changed since its
//   own epoch began, can differ (sender_return.cc);
//   it leads again: of a peer that stands in that log at `covered` or later only that, and what changed since, can differ (NodeLog::open_epoch).
// Whenever one of the premises is in doubt, all is compared.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mirror/change_map.h"
#include "mirror/channel.h"
#include "mirror/hot_format.h"

namespace holdfast::mirror {

// Of a node that leads: its trees were exactly the log as of `base`, of all these sets, when its epoch began.
struct LedFrom {
  Position base;
  std::set<SetNumber> sets;
};

// Of a node whose last epoch ended uncleanly.
struct HotLeft {
  Epoch led;
  Position covered;
  std::vector<ports::ChangeEntry> entries;  // as ChangeSet::encode(); blocks of ids among them
};

ChangeSet changes_of(const std::vector<HotNote>& notes);

// Every object whose id is from the block and that is known here. May read the disk.
using IdsOfBlock =
    std::function<Status(const IdBlock&, const std::function<void(SetNumber, const FileId&, bool folder)>&)>;

// Empty: what the peer lists is enough, as far as can be told before the queue is asked. Else why its whole trees are compared.
std::string why_whole(const Welcome& peer, std::uint32_t features, const std::optional<LedFrom>& here);

struct Reconciled {
  std::uint64_t files = 0, folders = 0;
  std::set<SetNumber> whole;  // noted as a whole: compared in full
};
// Adds it all to the map, durably; an object of a block counts as what it is here. In pieces, `between` which it may be ended with an error. What
// is no such list (it may be a peer's): ErrorCode::corrupt.
Result<Reconciled> note_left(ChangeMap& map, const std::vector<ports::ChangeEntry>& left, const IdsOfBlock& ids,
                             const std::function<Status()>& between);

// How a peer that led and did not hand over came back.
struct Returned {
  NodeId peer;
  std::string name;
  Epoch led;  // 0: it does not say
  Reconciled reconciled;
  std::string why_whole;  // not empty: everything is compared, because
};
std::string to_string(const Returned& returned);  // for people

}  // namespace holdfast::mirror
