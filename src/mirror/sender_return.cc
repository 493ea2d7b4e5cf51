// SPDX-License-Identifier: Apache-2.0
// What a sender does for a peer that led an epoch and ended it uncleanly (hot_return.h).
#include "base/log.h"
#include "mirror/sender.h"

namespace holdfast::mirror {
// Behind the welcome.
Status Sender::read_listed(FrameReader& reader, Welcome& welcome) {
  while (welcome.entries.size() < welcome.listed) {
    HF_ASSIGN(const FrameReader::Frame frame, reader.next());
    const std::size_t before = welcome.entries.size();
    if (frame.type == FrameType::changed) HF_TRY(decode_changed(frame.payload, welcome.entries));
    if (welcome.entries.size() == before || welcome.entries.size() > welcome.listed)
      return fail(ErrorCode::corrupt, "peer {} does not list what it said it would", name_);
  }
  return {};
}

// What may differ, into the map: durably, before the peer is told to begin anew, for from then on it does not know any more that it was active.
// It may be silent meanwhile, but not for long: it hears of us between the pieces. Not noted: why. An error: the connection broke or the epoch is
// over, and nothing was found out.
Result<tl::expected<Reconciled, std::string>> Sender::note_for(const Visit& visit,
                                                               const std::vector<ports::ChangeEntry>& entries) {
  std::optional<Error> broken;
  std::int64_t heard_ns = shared_.times.steady_ns();
  const auto between = [&]() -> Status {
    Status goes_on = epochs_ == visit.epochs ? Status{} : fail(ErrorCode::stale, "peer {}: the epoch has ended", name_);
    const std::int64_t now = shared_.times.steady_ns();
    if (goes_on && now - heard_ns >= heartbeat_ms * std::int64_t{1'000'000}) {
      heard_ns = now;
      goes_on = visit.stream.write_all(encode_frame(Heartbeat{shared_.times.realtime_ns()}));
    }
    if (!goes_on) broken = goes_on.error();
    return goes_on;
  };
  auto noted = note_left(*map_, entries, shared_.ids_of_block, between);
  if (broken) return tl::unexpected(std::move(*broken));
  if (!noted) return tl::expected<Reconciled, std::string>(tl::unexpect, noted.error().to_string());
  return tl::expected<Reconciled, std::string>(std::move(*noted));
}

// False: everything is compared, and why.
Result<bool> Sender::find_by_list(const Visit& visit, Start& start, Returned& returned) {
  const Welcome& welcome = visit.welcome;
  const std::optional<LedFrom> here = shared_.led_from ? shared_.led_from() : std::nullopt;
  returned.why_whole = map_ ? why_whole(welcome, shared_.features, here) : "what changes can't be noted on this node";
  if (!returned.why_whole.empty()) return false;
  const auto base = find_base(welcome, queue_.resume(here->base), here->base);
  if (!base) {
    returned.why_whole = "what changed since this node's epoch began is not in its queue any more";
    return false;
  }
  // Before anything is noted: should the connection break in that, the next session finds where its log is to begin anew (find_base), and notes it
  // once more. Until the peer is told to start it says the same.
  begin_partial(welcome, *base, &here->sets, true);
  HF_ASSIGN(auto noted, note_for(visit, welcome.entries));
  if (!noted) {
    returned.why_whole = "it can't be noted: " + noted.error();
    return false;
  }
  returned.reconciled = std::move(*noted);
  start = {true, *base, true};
  return true;
}

// False: everything is compared. This node led before, too, and ended uncleanly; of a peer that stands in the log of that epoch only what was noted then can differ.
Result<bool> Sender::note_own_left(const Visit& visit, const std::shared_ptr<const HotLeft>& left) {
  if (!left) return true;
  if ((visit.welcome.features & shared_.features & feature_hot_return) == 0) return false;
  HF_ASSIGN(const auto noted, note_for(visit, left->entries));
  if (!noted) {
    log_warning("peer {}: what this node changed before its last epoch ended can't be noted: {}", name_, noted.error());
    return false;
  }
  log_info("peer {}: of what this node changed before its last epoch ended, {} files and {} folders are reconciled",
           name_, noted->files, noted->folders);
  const std::lock_guard lock(mutex_);
  if (left_ == left) left_.reset();
  return true;
}

void Sender::say_returned(const Returned& returned) {
  log_info("peer {}", to_string(returned));
  if (shared_.returned) shared_.returned(returned);
}

}  // namespace holdfast::mirror
