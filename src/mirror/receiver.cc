// SPDX-License-Identifier: Apache-2.0
#include "mirror/receiver.h"

#include <chrono>

#include "base/log.h"
#include "log/record_codec.h"
#include "log/record_fields.h"

namespace holdfast::mirror {

Status Receiver::refuse(ports::ByteStream& stream, const Error& why) {
  (void)stream.write_all(encode_frame(Refuse{why.to_string()}));
  return tl::unexpected(why);
}

Status Receiver::serve(std::shared_ptr<ports::ByteStream> stream, const std::string& identity) {
  std::shared_ptr<ports::ByteStream> older;
  {
    const std::lock_guard lock(mutex_);
    older = current_;
    if (older) welcomed_ = false;  // it may be waiting for space
    space_.notify_all();
  }
  if (older) older->shutdown();
  const std::lock_guard one(serve_mutex_);
  {
    const std::lock_guard lock(mutex_);
    current_ = stream;
    welcomed_ = false;
  }
  Status status = session(*stream, identity);
  {
    const std::lock_guard lock(append_mutex_);
    // What was appended and not synced becomes durable now, so that the position told to anybody is what a crash leaves.
    if (Status synced = log_.sync(); !synced) hooks_.fault(synced.error());
    unsynced_bytes_ = 0;
  }
  hooks_.logged();
  const std::lock_guard lock(mutex_);
  if (current_ == stream) current_ = nullptr;
  welcomed_ = false;
  from_ = NodeId(0);
  return status;
}

Status Receiver::session(ports::ByteStream& stream, const std::string& identity) {
  FrameReader reader(stream);
  HF_ASSIGN(FrameReader::Frame frame, reader.next());
  if (frame.type != FrameType::hello) return fail(ErrorCode::corrupt, "data channel: the first frame is no hello");
  HF_ASSIGN(const Hello hello, decode_hello(frame.payload));
  if (hello.version_min > channel_version_max || hello.version_max < channel_version_min)
    return refuse(stream,
                  Error{ErrorCode::refused,
                        fmt::format("you speak versions {} to {} of the data channel, this node {} to {}",
                                    hello.version_min, hello.version_max, channel_version_min, channel_version_max),
                        "upgrade the older node", 0});
  if (identity != to_hex(hello.node))
    return refuse(stream, Error{ErrorCode::denied, "you claim another node id than your certificate", {}, 0});
  auto welcome = hooks_.admit(hello);
  if (!welcome) return refuse(stream, welcome.error());
  welcome->version = std::min(hello.version_max, channel_version_max);
  welcome->listed = static_cast<std::uint32_t>(welcome->entries.size());
  HF_TRY(stream.write_all(encode_frame(*welcome)));
  for (std::size_t said = 0; said < welcome->entries.size();)
    HF_TRY(stream.write_all(encode_changed(welcome->entries, said)));
  do {
    HF_ASSIGN(frame, reader.next());
  } while (frame.type == FrameType::heartbeat);  // it has much to look at first
  if (frame.type == FrameType::refuse) {
    HF_ASSIGN(const Refuse refused, decode_refuse(frame.payload));
    return fail(ErrorCode::refused, "the active refuses: {}", refused.reason);
  }
  if (frame.type != FrameType::start) return fail(ErrorCode::corrupt, "data channel: a start was expected");
  HF_ASSIGN(const Start start, decode_start(frame.payload));
  if (sealed() > hello.epoch)
    return refuse(stream, Error{ErrorCode::stale, fmt::format("epoch {} is over", hello.epoch.value), {}, 0});
  if (start.restart) {
    if (Status begun = hooks_.restart(start, hello.epoch, *welcome); !begun) return refuse(stream, begun.error());
  } else {
    const auto held = hold();
    if (start.base != log_.end())
      return refuse(stream, Error{ErrorCode::invalid, "you continue another log than mine", {}, 0});
  }
  {
    const std::lock_guard order(ack_mutex_);
    said_limits_ = 0;
  }
  {
    const std::lock_guard lock(mutex_);
    welcomed_ = true;
    from_ = hello.node;
    if (start.restart) questions_.clear();
    answers_.clear();
    for (const Nak& n : questions_.all()) answers_.push_back(encode_frame(n));
  }
  send_ack();
  for (;;) {
    HF_ASSIGN(frame, reader.next());
    switch (frame.type) {
      case FrameType::batch:
        if (Status taken = take_batch(frame.payload, hello.epoch); !taken) return refuse(stream, taken.error());
        if (!stream.readable_now() || unsynced_bytes_ >= unsynced_limit_bytes) HF_TRY(sync_and_ack());
        break;
      case FrameType::heartbeat: {
        HF_ASSIGN(const Heartbeat heartbeat, decode_heartbeat(frame.payload));
        if (hooks_.limits) HF_TRY(hooks_.limits->told(heartbeat.limits));
        HF_TRY(sync_and_ack());
        break;
      }
      case FrameType::refuse: {
        HF_ASSIGN(const Refuse refused, decode_refuse(frame.payload));
        return fail(ErrorCode::refused, "the active ends the data channel: {}", refused.reason);
      }
      default:
        return fail(ErrorCode::corrupt, "data channel: an active sends no such frame");
    }
  }
}

Status Receiver::take_batch(ByteView payload, Epoch epoch) {
  HF_ASSIGN(const BatchHead batch, decode_batch_head(payload));
  const ByteView records = payload.subspan(batch_head_bytes);
  Position last{Epoch(0), Sequence(batch.first.value - 1)};
  std::uint32_t count = 0;
  for (ByteView rest = records; !rest.empty(); ++count) {
    log::RecordHead head;
    if (log::inspect(rest, head) != log::Found::record)
      return fail(ErrorCode::corrupt, "data channel: a damaged record after sequence {}", last.sequence.value);
    if (head.sequence != last.sequence.next() || head.epoch < last.epoch || head.epoch > epoch)
      return fail(ErrorCode::corrupt, "data channel: sequence {} of epoch {} after sequence {}", head.sequence.value,
                  head.epoch.value, last.sequence.value);
    if (static_cast<std::uint8_t>(head.kind) > log::highest_kind)
      return fail(ErrorCode::corrupt, "data channel: a record of kind {}, which does not travel",
                  static_cast<int>(head.kind));
    last = {head.epoch, head.sequence};
    rest = rest.subspan(head.length);
  }
  if (count != batch.count || last.sequence != batch.last)
    return fail(ErrorCode::corrupt, "data channel: a batch holds other records than it says");
  {  // Back-pressure: the active puts aside what comes meanwhile; its applications notice nothing.
    std::unique_lock lock(mutex_);
    while (hooks_.backlog_bytes() > limit_bytes_ && welcomed_) space_.wait_for(lock, std::chrono::milliseconds(200));
  }
  Status done = append(records, batch, last, epoch);
  for (bool full = false; !done && done.error().code == ErrorCode::no_space;) {
    if (!std::exchange(full, true)) {
      hooks_.full(done.error().to_string());
      HF_TRY(sync_and_ack());  // what came before needs no room
    }
    if (Status waited = wait_for_room(); !waited) {
      hooks_.full({});
      return waited;
    }
    done = append(records, batch, last, epoch);
    if (done || done.error().code != ErrorCode::no_space) hooks_.full({});
  }
  if (!done) return done;
  const std::lock_guard lock(mutex_);
  questions_.answered_by(records);
  return {};
}

// Without the append lock: who seals, or asks how things are, is not held up by a full disk. Acknowledgements go on (NodeLog::tick), so that the
// active keeps the connection.
Status Receiver::wait_for_room() {
  std::unique_lock lock(mutex_);
  space_.wait_for(lock, std::chrono::milliseconds(200), [&] { return !welcomed_; });
  return welcomed_ ? Status{} : fail(ErrorCode::unavailable, "the session ended while the disk was full");
}

Status Receiver::append(ByteView records, const BatchHead& batch, Position last, Epoch epoch) {
  const std::lock_guard lock(append_mutex_);
  if (sealed() > epoch) return fail(ErrorCode::stale, "epoch {} is over", epoch.value);
  if (log_.end().sequence.next() != batch.first)
    return fail(ErrorCode::invalid, "sequence {} was sent, {} is next", batch.first.value,
                log_.end().sequence.value + 1);
  if (Status done = log_.append(records, batch.count, last); !done) {
    if (done.error().code != ErrorCode::no_space) hooks_.fault(done.error());
    return done;
  }
  unsynced_bytes_ += records.size();
  appended_bytes_ += records.size();
  return {};
}

Status Receiver::sync_and_ack() {
  {
    const std::lock_guard lock(append_mutex_);
    if (Status done = log_.sync(); !done) {
      hooks_.fault(done.error());
      return done;
    }
    unsynced_bytes_ = 0;
  }
  send_ack();
  hooks_.logged();
  return {};
}

Result<Position> Receiver::seal(Epoch epoch, const std::function<Status()>& record) {
  const std::lock_guard lock(append_mutex_);
  if (epoch < sealed()) return fail(ErrorCode::stale, "epoch {} was promised already", sealed().value);
  sealed_ = epoch.value;
  if (Status synced = log_.sync(); !synced) {  // a second try would say yes without the bytes being there
    hooks_.fault(synced.error());
    return tl::unexpected(std::move(synced).error());
  }
  HF_TRY(record());
  return log_.end();
}

void Receiver::disconnect() {
  std::shared_ptr<ports::ByteStream> stream;
  {
    const std::lock_guard lock(mutex_);
    stream = current_;
    welcomed_ = false;
    space_.notify_all();
  }
  if (stream) stream->shutdown();
}

void Receiver::nak(const Nak& nak) {
  const std::lock_guard lock(mutex_);
  questions_.ask(nak);
  if (welcomed_) answers_.push_back(encode_frame(nak));
}

void Receiver::settled(SetNumber set) {
  const std::lock_guard lock(mutex_);
  questions_.settled(set);
}

void Receiver::differs(const Differs& differs) {
  const std::lock_guard lock(mutex_);
  if (welcomed_) answers_.push_back(encode_frame(differs));
}

// `applied` is read before the answers: those of records it covers are queued by then, and leave first.
void Receiver::send_ack() {
  const std::lock_guard order(ack_mutex_);
  Ack ack{log_.durable(), hooks_.applied()};
  const std::uint64_t limits = hooks_.limits ? hooks_.limits->version() : 0;
  if (limits != said_limits_) ack.limits = hooks_.limits->own();
  std::shared_ptr<ports::ByteStream> stream;
  std::deque<Bytes> answers;
  {
    const std::lock_guard lock(mutex_);
    if (!welcomed_) return;
    stream = current_;
    answers.swap(answers_);
  }
  Bytes out;
  for (const Bytes& frame : answers) out.insert(out.end(), frame.begin(), frame.end());
  const Bytes frame = encode_frame(ack);
  out.insert(out.end(), frame.begin(), frame.end());
  if (stream->write_all(out)) {
    said_limits_ = limits;
    return;
  }
  stream->shutdown();  // a lost NAK would hang a resync: better a new session
  const std::lock_guard lock(mutex_);
  if (current_ != stream) return;
  welcomed_ = false;  // it may be waiting for space, and not read
  space_.notify_all();
}

void Receiver::space_freed() { space_.notify_all(); }

NodeId Receiver::connected_to() const {
  const std::lock_guard lock(mutex_);
  return welcomed_ ? from_ : NodeId(0);
}

}  // namespace holdfast::mirror
