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

// What it lists is noted, durably, before it is told to begin anew: from then on it does not know any more that it was active. It may be silent
// meanwhile, but not for long: `stream` hears of us between the pieces.
bool Sender::find_by_list(const Welcome& welcome, ports::ByteStream& stream, Start& start, Returned& returned) {
  const std::optional<LedFrom> here = shared_.led_from ? shared_.led_from() : std::nullopt;
  returned.why_whole = map_ ? why_whole(welcome, shared_.features, here) : "what changes can't be noted on this node";
  if (!returned.why_whole.empty()) return false;
  ChangeSet listed;
  for (const auto& e : welcome.entries) {
    if (const Status sound = listed.add(e.key, e.value); !sound) {
      returned.why_whole = sound.error().message;
      return false;
    }
  }
  const auto base = find_base(welcome, queue_.resume(here->base), here->base);
  if (!base) {
    returned.why_whole = "what changed since this node's epoch began is not in its queue any more";
    return false;
  }
  auto noted = note_left(*map_, std::move(listed), shared_.ids_of_block,
                         [&] { return stream.write_all(encode_frame(Heartbeat{shared_.times.realtime_ns()})); });
  if (!noted) {
    returned.why_whole = "it can't be noted: " + noted.error().message;
    return false;
  }
  returned.reconciled = std::move(*noted);
  begin_partial(welcome, *base, &here->sets);
  start = {true, *base, true};
  return true;
}

// False: everything is compared. This node led before, too, and ended uncleanly; of a peer that stands in the log of that epoch only what was noted then can differ.
bool Sender::note_own_left(const Welcome& welcome, ports::ByteStream& stream) {
  std::shared_ptr<const HotLeft> left;
  {
    const std::lock_guard lock(mutex_);
    left = left_;
  }
  if (!left) return true;
  if ((welcome.features & shared_.features & feature_hot_return) == 0) return false;
  const auto noted = note_left(*map_, left->changes, shared_.ids_of_block,
                               [&] { return stream.write_all(encode_frame(Heartbeat{shared_.times.realtime_ns()})); });
  if (!noted) {
    log_warning("peer {}: what this node changed before its last epoch ended can't be noted: {}", name_,
                noted.error().to_string());
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
