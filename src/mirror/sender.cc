// SPDX-License-Identifier: Apache-2.0
#include "mirror/sender.h"

#include <algorithm>
#include <array>

#include "base/log.h"
#include "log/record_codec.h"
#include "log/record_fields.h"

namespace holdfast::mirror {
namespace {

// In mode async: each batch costs the passive a sync and both nodes a wake-up, and the recovery point is counted in seconds.
constexpr int async_linger_ms = 20;
constexpr std::size_t max_rounds = 1024;
constexpr std::size_t send_at_once_bytes = 128 * 1024;

}  // namespace

const char* to_string(PeerState state) {
  switch (state) {
    case PeerState::lost:
      return "lost";
    case PeerState::connecting:
      return "connecting";
    case PeerState::resync:
      return "resync";
    case PeerState::streaming:
      return "streaming";
    case PeerState::synchronized:
      return "synchronized";
  }
  return "lost";
}

Sender::Sender(Shared shared, NodeId peer, std::string name)
    : shared_(std::move(shared)),
      peer_(peer),
      name_(std::move(name)),
      map_(shared_.change_map ? shared_.change_map(peer_) : nullptr),
      queue_(shared_.log.ring(), peer_, name_,
             shared_.open_spill ? PeerQueue::OpenStore([this] { return shared_.open_spill(peer_); }) : nullptr,
             map_.get(), shared_.spill_segment_bytes),
      verifier_({shared_.log, shared_.live, shared_.times, shared_.compared ? *shared_.compared : forgetful_,
                 shared_.log.resyncs(), shared_.sets,
                 [this] {
                   const auto queue = status().queue;
                   return queue.ring_bytes + queue.disk_bytes;
                 },
                 shared_.verified},
                peer) {}

Status Sender::open(ports::ByteStream& stream, Epoch epoch) {
  const std::uint64_t epochs = epochs_;
  if (shared_.dial_epoch && shared_.dial_epoch() != epoch)
    return fail(ErrorCode::stale, "peer {}: epoch {} has ended", name_, epoch.value);
  {
    const std::lock_guard lock(mutex_);
    connecting_ = true;
    ending_ = false;
    needs_.resize(resync_ && resync_counts_ ? 1 : 0);
    ++needs_found_;
  }
  update_state();
  Hello hello;
  hello.highest_kind = log::highest_kind;
  hello.cluster_id = shared_.cluster_id;
  hello.node = shared_.self;
  hello.epoch = epoch;
  hello.features = shared_.features;
  HF_TRY(stream.write_all(encode_frame(hello)));
  FrameReader reader(stream);
  HF_ASSIGN(const FrameReader::Frame frame, reader.next());
  if (frame.type == FrameType::refuse) {
    HF_ASSIGN(const Refuse refuse, decode_refuse(frame.payload));
    return fail(ErrorCode::refused, "peer {} refuses the data channel: {}", name_, refuse.reason);
  }
  if (frame.type != FrameType::welcome)
    return fail(ErrorCode::corrupt, "peer {} answers with something that is no welcome", name_);
  HF_ASSIGN(Welcome welcome, decode_welcome(frame.payload));
  if (welcome.node != peer_)
    return fail(ErrorCode::refused, "peer {} says it is node {}, not {}", name_, to_hex(welcome.node), to_hex(peer_));
  if (welcome.version < channel_version_min || welcome.version > channel_version_max)
    return fail(ErrorCode::refused,
                "peer {} speaks version {} of the data channel, this node {} to {}: upgrade one of them", name_,
                welcome.version, channel_version_min, channel_version_max);
  HF_TRY(read_listed(reader, welcome));
  Start start;
  std::optional<Returned> returned;
  {
    const std::lock_guard place(place_mutex_);
    if (epochs_ != epochs) return fail(ErrorCode::stale, "peer {}: an epoch ended while it was dialled", name_);
    HF_ASSIGN(returned, find_place({welcome, stream, epochs}, start));
  }
  // The epoch that was dialled for may be over since, and its successor's records be what was looked at: its peers are to be let in first.
  if (shared_.dial_epoch && shared_.dial_epoch() != epoch)
    return fail(ErrorCode::stale, "peer {}: epoch {} ended while it was dialled", name_, epoch.value);
  HF_TRY(stream.write_all(encode_frame(start)));
  if (returned) say_returned(*returned);
  bool holds_copy = false;
  {
    const std::lock_guard lock(mutex_);
    connecting_ = false;
    connected_ = true;
    ++session_;
    holds_copy = complete_ && counts_from_ == Sequence(0);
    highest_kind_ = welcome.highest_kind;
    resync_work_.notify_all();
  }
  if (holds_copy) shared_.log.acknowledged(peer_, start.base.sequence);
  log_info("peer {}: connected, {} after epoch {} sequence {}", name_,
           start.drained   ? "gets what changed, and continues"
           : start.restart ? "resynchronized"
                           : "continues",
           start.base.epoch.value, start.base.sequence.value);
  update_state();
  return {};
}

Status Sender::send_batch(ports::ByteStream& stream, Bytes& records) {
  HF_ASSIGN(const PeerQueue::Batch batch, queue_.take(max_batch_bytes, records));
  if (batch.count == 0) return {};
  {
    const std::lock_guard lock(mutex_);
    sent_ = batch.last;
    sent_bytes_ += records.size() + frame_head_bytes + batch_head_bytes;
  }
  if (batch.carries_ids) {
    if (Status durable = shared_.ids.make_ids_durable(); !durable) {
      shared_.fault(durable.error());
      return durable;
    }
  }
  const Bytes head = encode_batch_head({batch.count, batch.first, batch.last}, records.size());
  const std::array<ByteView, 2> pieces = {head, records};
  return stream.write_pieces(pieces);
}

Status Sender::serve(ports::ByteStream& stream) {
  const LogRing& ring = shared_.log.ring();
  Bytes records;
  records.reserve(max_batch_bytes + log::max_record_bytes);
  std::uint64_t said = 0;
  for (;;) {
    HF_TRY(say_limits(stream, said));
    // A little patience makes batches; whoever waits for durability says so (hurry).
    const bool hasty = shared_.log.application_waits() || shared_.linger_ms == 0;
    const LogRing::Wake wake = queue_.wait(
        heartbeat_ms, hasty ? shared_.linger_ms : std::max(shared_.linger_ms, async_linger_ms), send_at_once_bytes);
    {
      const std::lock_guard lock(mutex_);
      if (ending_ || !ring.is_open()) return fail(ErrorCode::unavailable, "the session was ended");
    }
    if (wake == LogRing::Wake::nothing) {
      HF_TRY(stream.write_all(encode_frame(Heartbeat{shared_.times.realtime_ns()})));
      continue;
    }
    HF_TRY(send_batch(stream, records));
  }
}

// An older peer takes it for any heartbeat.
Status Sender::say_limits(ports::ByteStream& stream, std::uint64_t& said) {
  if (!shared_.limits || shared_.limits->version() == said) return {};
  said = shared_.limits->version();
  const Heartbeat heartbeat{shared_.times.realtime_ns(), shared_.limits->known()};
  return heartbeat.limits.empty() ? Status{} : stream.write_all(encode_frame(heartbeat));
}

Status Sender::serve_acks(ports::ByteStream& stream) {
  FrameReader reader(stream);
  for (;;) {
    HF_ASSIGN(const FrameReader::Frame frame, reader.next());
    switch (frame.type) {
      case FrameType::ack: {
        HF_ASSIGN(const Ack ack, decode_ack(frame.payload));
        if (shared_.limits) HF_TRY(shared_.limits->told_by(peer_, ack.limits));
        on_ack(ack);
        break;
      }
      case FrameType::nak: {
        HF_ASSIGN(const Nak nak, decode_nak(frame.payload));
        const std::lock_guard lock(mutex_);
        if (resync_ && resync_->set() == nak.set) resync_->nak(nak);
        break;
      }
      case FrameType::differs: {
        HF_ASSIGN(const Differs differs, decode_differs(frame.payload));
        verifier_.differs(differs);
        break;
      }
      case FrameType::heartbeat:
        break;
      case FrameType::refuse: {
        HF_ASSIGN(const Refuse refuse, decode_refuse(frame.payload));
        return fail(ErrorCode::refused, "peer {} ends the data channel: {}", name_, refuse.reason);
      }
      default:
        return fail(ErrorCode::corrupt, "peer {} sends a frame that only an active sends", name_);
    }
  }
}

void Sender::on_ack(const Ack& ack) {
  std::shared_ptr<Resync> resync;
  bool sound = true, counts = false;
  {
    const std::lock_guard lock(mutex_);
    sound = ack.durable <= sent_;
    if (sound) {
      acked_ = std::max(acked_, ack.durable);
      applied_ = std::max(applied_, ack.applied);
    }
    for (; !rounds_.empty() && rounds_.front().first <= acked_; rounds_.pop_front())
      last_round_ns_ = rounds_.front().second;
    counts = complete_ && applied_ >= counts_from_;
    resync = resync_;
  }
  if (!sound) {
    log_warning("peer {}: acknowledges sequence {}, which was not sent: ignored", name_, ack.durable.value);
    return;
  }
  queue_.acked(ack.durable);
  if (counts) {
    partial_ends();
    shared_.log.acknowledged(peer_, ack.durable);
  }
  if (resync) resync->acked(ack);
  update_state();
  verifier_.acked(ack);
  shared_.progress();
}

void Sender::close() {
  {
    const std::lock_guard lock(mutex_);
    connected_ = connecting_ = false;
  }
  queue_.pause();
  update_state();
}

void Sender::end_session() {
  const std::lock_guard lock(mutex_);
  ending_ = true;
  queue_.kick();
}

void Sender::stop() {
  std::shared_ptr<Resync> resync;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = ending_ = true;
    resync = resync_;
    resync_work_.notify_all();
    queue_.kick();
  }
  if (resync) resync->cancel();
  verifier_.stop();
}

void Sender::set_added(SetNumber set) {
  {
    const std::lock_guard lock(mutex_);
    if (!connected_ && !connecting_ && !resync_) return;  // the next session sees it
    if (partial_) partial_->sets.erase(set);
    needs_.push_back({set, false});
    complete_ = false;
    resync_work_.notify_all();
  }
  update_state();  // before the caller goes on: nobody is told "synchronized" of a peer that lacks the set (I4)
}

void Sender::hurry(Sequence to) {
  {
    const std::lock_guard lock(mutex_);
    if (sent_ >= to) return;
  }
  queue_.kick();
}

void Sender::moved(SetNumber set, const FileId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (resync_ && resync_->set() == set) resync_->moved(id);
  }
  verifier_.moved(set, id);
}

void Sender::pushed(Sequence mark, std::int64_t began_ns) {
  const std::lock_guard lock(mutex_);
  rounds_used_ = true;
  rounds_.emplace_back(mark, began_ns);
  if (rounds_.size() > max_rounds)
    rounds_.pop_front();  // a peer that is gone: the age of its last round goes on growing
}

void Sender::begin_queue(Position base) {
  std::optional<Position> noted_since;
  {
    const std::lock_guard lock(mutex_);
    if (left_ && map_) noted_since = left_->covered;
  }
  queue_.begin(base, noted_since);
}

// A session that finds its place in what was before ends soon (note_for), and leaves nothing behind in this one.
void Sender::epoch_began(std::shared_ptr<const HotLeft> left) {
  ++epochs_;
  const std::lock_guard place(place_mutex_);
  verifier_.unbar();
  if (map_) map_->forget();
  const std::lock_guard lock(mutex_);
  rounds_.clear();
  rounds_used_ = false;
  last_round_ns_ = shared_.times.steady_ns();
  resync_barred_ = false;
  complete_ = false;
  needs_.clear();
  ++needs_found_;
  partial_.reset();
  left_ = std::move(left);
  shipped_.clear();
  life_ = 0;
  sent_ = acked_ = applied_ = Sequence(0);
}

bool Sender::holds(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  return complete_ && acked_ >= sequence && applied_ >= sequence;
}

bool Sender::covers(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  return complete_ && applied_ >= counts_from_ && acked_ >= sequence;
}

bool Sender::is_away() const {
  const std::lock_guard lock(mutex_);
  return !connected_ && !connecting_;
}

void Sender::update_state() {
  PeerState now = PeerState::lost;
  bool whole = false, news = false;
  std::uint64_t session = 0;
  std::uint8_t highest_kind = 0;
  {
    const std::lock_guard lock(mutex_);
    if (connecting_)
      now = PeerState::connecting;
    else if (!connected_)
      now = PeerState::lost;
    else if (!complete_)
      now = PeerState::resync;
    else
      now = acked_ >= caught_up_at_ && applied_ >= caught_up_at_ ? PeerState::synchronized : PeerState::streaming;
    whole = connected_ && complete_ && applied_ >= counts_from_;
    session = session_;
    highest_kind = highest_kind_;
    news = now != reported_;
    reported_ = now;
  }
  verifier_.peer_is(whole, session, highest_kind);
  if (news) shared_.state_changed(peer_, now);
}

std::int64_t Sender::recovery_point() const {
  if (!complete_) return -1;
  const LogRing& ring = shared_.log.ring();
  const Sequence last = ring.last_sequence();
  const std::int64_t now = shared_.times.steady_ns();
  const std::int64_t logged = acked_ >= last ? 0 : std::max<std::int64_t>(0, now - ring.appended_at(acked_.next()));
  // Under write-back the kernel may hold writes that are not in the log yet: those are older than the last round that pushed them here (R10).
  const bool dirty = rounds_used_ && shared_.may_hold_dirty && shared_.may_hold_dirty();
  return dirty ? std::max(logged, now - last_round_ns_) : logged;
}

PeerStatus Sender::status() const {
  const std::lock_guard lock(mutex_);
  PeerStatus s;
  s.node = peer_;
  s.name = name_;
  s.state = reported_;
  s.complete = complete_;
  s.sent = sent_;
  s.acked = acked_;
  s.applied = applied_;
  s.recovery_point_ns = recovery_point();
  s.queue = queue_.status();
  const LogRing& ring = shared_.log.ring();
  if (s.queue.mode != PeerQueue::Mode::lost && acked_ < ring.last_sequence())
    s.oldest_ns = std::max<std::int64_t>(0, shared_.times.steady_ns() - ring.appended_at(acked_.next()));
  s.resync = resync_ ? resync_->progress() : last_resync_;
  s.sent_bytes = sent_bytes_;
  if (map_) s.changed_objects = map_->about();
  s.resyncs = resyncs_;
  return s;
}

}  // namespace holdfast::mirror
