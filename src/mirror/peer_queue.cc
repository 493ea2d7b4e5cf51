// SPDX-License-Identifier: Apache-2.0
#include "mirror/peer_queue.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "log/record_codec.h"

namespace holdfast::mirror {
namespace {

constexpr std::size_t spool_bytes = std::size_t{1} << 20;

void run(LogRing::Retries retries) {
  for (auto& r : retries) r();
}

}  // namespace

const char* to_string(PeerQueue::Mode mode) {
  switch (mode) {
    case PeerQueue::Mode::lost:
      return "lost";
    case PeerQueue::Mode::ring:
      return "ring";
    case PeerQueue::Mode::disk:
      return "disk";
    case PeerQueue::Mode::map:
      return "map";
  }
  return "lost";
}

PeerQueue::PeerQueue(LogRing& ring, NodeId peer, std::string name, OpenStore open_store, ChangeSink* sink,
                     std::uint64_t segment_bytes)
    : ring_(ring),
      peer_(peer),
      name_(std::move(name)),
      open_store_(std::move(open_store)),
      sink_(sink),
      segment_bytes_(segment_bytes) {}

PeerQueue::~PeerQueue() {
  end();
  remove_given_up();
}

void PeerQueue::begin(Position base, std::optional<Position> noted_since) {
  auto cursor = ring_.attach(base);
  CHECK(cursor, "the queue of peer {} begins where the ring does not: {}", name_, cursor.error().message);
  LogRing::Retries retries;
  {
    const std::lock_guard lock(mutex_);
    retries = start_at(std::move(*cursor), base);
    began_ = base;
    noted_since_ = noted_since;
    if (noted_since) mode_ = Mode::map;
    sink_keeps_ = store_failed_ = false;
    fold_taken_until_ = Sequence(0);
  }
  run(std::move(retries));
}

void PeerQueue::end() {
  LogRing::Retries retries;
  {
    const std::lock_guard lock(mutex_);
    retries = lose({});
    sink_keeps_ = false;
  }
  run(std::move(retries));
}

LogRing::Retries PeerQueue::start_at(std::shared_ptr<LogRing::Cursor> cursor, Position position) {
  LogRing::Retries retries;
  if (cursor_ && cursor_ != cursor) retries = ring_.detach(cursor_);
  cursor_ = std::move(cursor);
  ++generation_;
  mode_ = Mode::ring;
  given_up_.clear();
  released_ = position;
  next_ = position.sequence.next();
  sent_.clear();
  empty_spill();
  return retries;
}

LogRing::Retries PeerQueue::lose(std::string why) {
  LogRing::Retries retries;
  if (cursor_) retries = ring_.detach(cursor_);
  cursor_ = nullptr;
  ++generation_;
  mode_ = Mode::lost;
  noted_since_.reset();  // from here on nothing is noted
  given_up_ = std::move(why);
  sent_.clear();
  empty_spill();
  return retries;
}

// The spill is too much, or can't be. What was in it is in the map, if there is one.
LogRing::Retries PeerQueue::give_up(const Error& error) {
  std::string why = error.to_string();
  log_warning("peer {}: too far behind for its queue ({}): {}", name_, why,
              sink_ ? "only what changed is noted from now on" : "it will be resynchronized");
  if (!sink_) return lose(std::move(why));
  mode_ = Mode::map;
  given_up_ = std::move(why);
  if (!noted_since_) noted_since_ = released_;
  empty_spill();
  ring_.kick(*cursor_);  // its session ends
  return {};
}

// Expired by the ring, which has had to wait for us too long.
void PeerQueue::note_detached() {
  if (!cursor_ || cursor_->attached()) return;
  log_warning("peer {}: it lost its place in the log, and will be resynchronized", name_);
  (void)lose(
      "what it has not received could not be put aside fast enough");  // nobody waits for a cursor that is gone already
}

void PeerQueue::empty_spill() {
  if (spill_) spill_->clear();
}

// The peer has, or will be sent from the ring, all that was folded.
void PeerQueue::nothing_is_owed() {
  if (!noted_since_) return;
  noted_since_.reset();
  if (sink_ && !sink_keeps_) sink_->forget();
}

void PeerQueue::fold(ByteView records, Position before) {
  if (!sink_) return;
  if (!noted_since_) noted_since_ = before;
  sink_->fold(records);
}

// --- session

// Where a peer that returns goes on:
//   on disk                                        -> there
//   in the ring, also in what is kept below release -> there; then nothing that was spilled or noted is owed
//   noted                                          -> the map
PeerQueue::Source PeerQueue::resume(Position position) {
  LogRing::Retries retries;
  Source source = Source::queue;
  {
    const std::lock_guard lock(mutex_);
    note_detached();
    connected_ = true;
    if (resume_on_disk(position)) return Source::queue;
    std::shared_ptr<LogRing::Cursor> cursor;
    if (cursor_) {
      if (auto freed = ring_.rewind(*cursor_, position); freed) {
        retries = std::move(*freed);
        cursor = cursor_;
      }
    } else if (auto attached = ring_.attach(position); attached) {
      cursor = std::move(*attached);
    }
    if (cursor) {
      (void)start_at(std::move(cursor), position);  // the same one, or there was none: nobody gets space by it
      nothing_is_owed();
    } else {
      source = in_map(position) ? Source::map : Source::stale;
    }
  }
  run(std::move(retries));
  return source;
}

bool PeerQueue::resume_on_disk(Position position) {
  if (!cursor_ || !spill_ || spill_->empty()) return false;
  if (position == spill_->back().last) return false;  // the ring goes on there
  if (position != spill_->front().before) {
    const log::SpillQueue::Batch* batch = spill_->find(position.sequence);
    // In the middle of a batch of two epochs nobody knows whose the sequence is.
    if (!batch || batch->last.epoch != position.epoch ||
        (batch->first.epoch != position.epoch && batch->last.sequence != position.sequence))
      return false;
  }
  spill_->trim(position.sequence);
  ++generation_;
  next_ = position.sequence.next();
  sent_.clear();
  ring_.rewind_to_release(*cursor_);
  return true;
}

bool PeerQueue::in_map(Position position) const {
  if (mode_ != Mode::map || !noted_since_) return false;
  if (position == *noted_since_) return true;
  // In the present epoch; or in the one before, when what was noted in that counts too (begin()): by now there may be folded records of this one.
  const auto reaches = [&](Position end) { return position.epoch == end.epoch && position <= end; };
  return noted_since_->sequence < position.sequence && (reaches(released_) || reaches(began_));
}

Position PeerQueue::restart() {
  LogRing::Retries retries;
  Position end;
  {
    const std::lock_guard lock(mutex_);
    connected_ = true;
    auto cursor = ring_.attach_end(end);
    retries = start_at(std::move(cursor), end);
    fold_taken_until_ = Sequence(0);
    noted_since_.reset();
    sink_keeps_ = false;
    if (sink_) sink_->forget();
  }
  run(std::move(retries));
  return end;
}

std::optional<PeerQueue::Covered> PeerQueue::covered() const {
  const std::lock_guard lock(mutex_);
  if (mode_ != Mode::map || !noted_since_) return {};
  return Covered{*noted_since_, released_};
}

Result<Position> PeerQueue::resume_from_map() {
  const std::lock_guard lock(mutex_);
  note_detached();
  if (mode_ != Mode::map || !cursor_) return fail(ErrorCode::stale, "peer {}: nothing is noted for it", name_);
  connected_ = true;
  sink_keeps_ = true;
  noted_since_.reset();
  ring_.rewind_to_release(*cursor_);
  const Position from = released_;
  (void)start_at(cursor_, from);  // the same cursor: nobody gets space by it
  return from;
}

void PeerQueue::fold_taken_until(Sequence sequence) {
  const std::lock_guard lock(mutex_);
  fold_taken_until_ = sequence;
}

void PeerQueue::keep_noted() {
  const std::lock_guard lock(mutex_);
  sink_keeps_ = true;
}

void PeerQueue::settled() {
  const std::lock_guard lock(mutex_);
  sink_keeps_ = false;
  if (sink_ && !noted_since_) sink_->forget();  // else when that has been received too
}

void PeerQueue::pause() {
  const std::lock_guard lock(mutex_);
  connected_ = disk_said_ = false;
}

Result<PeerQueue::Batch> PeerQueue::take(std::size_t max_bytes, Bytes& out) {
  out.clear();
  std::unique_lock lock(mutex_);
  note_detached();
  if (!cursor_ || is_given_up()) return fail(ErrorCode::stale, "peer {}: its queue was given up", name_);
  Batch batch;
  if (on_disk(next_)) {
    HF_ASSIGN(batch, take_from_disk(lock, out));
  } else {
    const LogRing::Batch taken = ring_.take(*cursor_, max_bytes, peer_, out);
    batch = {taken.count, taken.first.sequence, taken.last.sequence, taken.carries_ids};
    if (batch.count != 0) sent_.push_back({taken.last, taken.end});
  }
  if (batch.count == 0) return batch;
  CHECK(batch.first == next_, "peer {}: sequence {} was taken for {}", name_, batch.first.value, next_.value);
  if (next_ <= fold_taken_until_ && sink_) sink_->fold(out);
  next_ = batch.last.next();
  return batch;
}

// A disk may hang: the mutex, which the spooler needs, is not held over the read.
Result<PeerQueue::Batch> PeerQueue::take_from_disk(std::unique_lock<std::mutex>& lock, Bytes& out) {
  const log::SpillQueue::Batch* found = spill_->find(next_);
  CHECK(found, "peer {}: the spill does not hold sequence {}", name_, next_.value);
  const log::SpillQueue::Batch on_disk = *found;
  const std::uint64_t generation = generation_;
  lock.unlock();
  auto records = log::SpillQueue::read(on_disk);
  lock.lock();
  if (generation != generation_) return fail(ErrorCode::stale, "peer {}: its queue began anew", name_);
  if (!records) {
    LogRing::Retries retries;
    if (mode_ == Mode::disk) retries = give_up(records.error());
    lock.unlock();
    run(std::move(retries));
    lock.lock();
    return fail(ErrorCode::stale, "peer {}: its queue can't be read: {}", name_, records.error().to_string());
  }
  Batch batch;
  std::size_t skip = 0;
  for (ByteView rest = *records; !rest.empty();) {
    const log::RecordHead head = log::head_of(rest.data());
    rest = rest.subspan(head.length);
    if (head.sequence < next_) {
      skip += head.length;
      continue;
    }
    if (batch.count++ == 0) batch.first = head.sequence;
    batch.last = head.sequence;
    batch.carries_ids = batch.carries_ids || log::makes_ids(head.kind);
  }
  if (skip != 0) records->erase(records->begin(), records->begin() + static_cast<std::ptrdiff_t>(skip));
  out = std::move(*records);
  return batch;
}

LogRing::Wake PeerQueue::wait(int wait_ms, int linger_ms, std::size_t enough_bytes) {
  std::shared_ptr<LogRing::Cursor> cursor;
  {
    const std::lock_guard lock(mutex_);
    if (!cursor_ || is_given_up() || on_disk(next_)) return LogRing::Wake::data;  // take() says what it is
    cursor = cursor_;
  }
  return ring_.wait(*cursor, wait_ms, linger_ms, enough_bytes);
}

void PeerQueue::kick() {
  std::shared_ptr<LogRing::Cursor> cursor;
  {
    const std::lock_guard lock(mutex_);
    cursor = cursor_;
  }
  if (cursor) ring_.kick(*cursor);
}

void PeerQueue::acked(Sequence sequence) {
  LogRing::Retries retries;
  {
    const std::lock_guard lock(mutex_);
    if (!cursor_) return;
    std::optional<Sent> upto;
    for (; !sent_.empty() && sent_.front().last.sequence <= sequence; sent_.pop_front()) upto = sent_.front();
    if (spill_) spill_->trim(sequence);
    const bool nothing_spilled = !spill_ || spill_->empty();
    if (mode_ == Mode::disk && nothing_spilled) {
      mode_ = Mode::ring;
      nothing_is_owed();
    }
    if (upto && upto->last.sequence > released_.sequence) {
      CHECK(nothing_spilled, "peer {}: sequence {} is released before what is on disk", name_,
            upto->last.sequence.value);
      if (mode_ == Mode::map) {  // it had been sent more than was noted
        mode_ = Mode::ring;
        nothing_is_owed();
      }
      retries = ring_.release(*cursor_, upto->end);
      released_ = upto->last;
    }
  }
  run(std::move(retries));
}

// --- spooler

// Begins when a quarter of the ring is this peer's (LogRing::wait_pressure calls at a half), and goes on until an eighth is: so a peer that is a
// little slow costs no writes, and one that lags costs few.
PeerQueue::Todo PeerQueue::todo() const {
  if (!cursor_) return Todo::nothing;
  const std::uint64_t share = ring_.backlog(*cursor_), size = ring_.size_bytes();
  if (mode_ == Mode::map) return share > size / 8 ? Todo::fold : Todo::nothing;
  if (limit_bytes_ != 0 && open_store_ && !store_failed_)
    return share > (mode_ == Mode::disk ? size / 8 : size / 4) ? Todo::spill : Todo::nothing;
  return !connected_ && share > size / 4 && ring_.is_starving() ? Todo::give_up : Todo::nothing;
}

bool PeerQueue::spool() {
  remove_given_up();
  LogRing::Retries retries;
  LogRing::Batch batch;
  Position before;
  std::uint64_t generation = 0;
  buffer_.clear();
  if (!open_spill()) return false;
  {
    std::unique_lock lock(mutex_);
    note_detached();
    const Todo what = todo();
    if (what == Todo::nothing) return false;
    if (what == Todo::give_up) {
      retries = give_up({store_failed_ ? ErrorCode::io : ErrorCode::refused,
                         store_failed_ ? "its folder can't be made" : "send_queue_mib is 0, and the ring is full",
                         {},
                         0});
      lock.unlock();
      run(std::move(retries));
      return true;
    }
    batch = ring_.peek(*cursor_, spool_bytes, peer_, buffer_);
    if (batch.count == 0) return false;  // not published yet
    before = released_;
    generation = generation_;
    if (what == Todo::fold) {
      fold(buffer_, before);
      retries = ring_.release(*cursor_, batch.end);
      released_ = batch.last;
      lock.unlock();
      run(std::move(retries));
      return true;
    }
  }
  return spill_next(batch, before, generation);
}

// Whatever came between is looked at again: acknowledgements, a new place, an end.
bool PeerQueue::spill_next(const LogRing::Batch& batch, Position before, std::uint64_t generation) {
  log::SpillQueue::Batch spilled;
  spilled.before = before;
  spilled.first = batch.first;
  spilled.last = batch.last;
  spilled.count = batch.count;
  auto written = spill_->write(std::move(spilled), buffer_, limit_bytes_);
  LogRing::Retries retries;
  {
    const std::lock_guard lock(mutex_);
    note_detached();
    if (generation != generation_ || !cursor_ || mode_ == Mode::map) return true;
    if (!written) {
      retries = give_up(written.error());
    } else if (released_.sequence < batch.last.sequence) {
      if (!std::exchange(disk_said_, true))
        log_info("peer {}: what it has not received yet is put aside on disk", name_);
      mode_ = Mode::disk;
      const bool overtaken = next_ <= batch.last.sequence;
      fold(buffer_, before);
      spill_->add(std::move(*written));
      retries = ring_.release(*cursor_, batch.end);
      released_ = batch.last;
      if (overtaken) ring_.kick(*cursor_);
    }
  }
  run(std::move(retries));
  return true;
}

// False: there is nothing to write to, and no need either.
bool PeerQueue::open_spill() {
  {
    const std::lock_guard lock(mutex_);
    if (spill_ || store_failed_ || !open_store_ || todo() != Todo::spill) return true;
  }
  auto store = open_store_();
  const std::lock_guard lock(mutex_);
  if (!store) {
    log_error("peer {}: nothing can be put aside for it: {}", name_, store.error().to_string());
    store_failed_ = true;
    return true;
  }
  spill_ = std::make_unique<log::SpillQueue>(std::move(*store), segment_bytes_);
  return true;
}

void PeerQueue::remove_given_up() {
  std::vector<std::uint64_t> segments;
  {
    const std::lock_guard lock(mutex_);
    if (!spill_) return;
    segments = spill_->take_given_up();
  }
  const holdfast::Status removed = spill_->remove(segments);
  if (!removed && !std::exchange(remove_failed_, true)) log_warning("peer {}: {}", name_, removed.error().to_string());
  if (removed && !segments.empty()) remove_failed_ = false;
}

bool PeerQueue::is_busy() const {
  const std::lock_guard lock(mutex_);
  return mode_ == Mode::disk || mode_ == Mode::map || (spill_ && spill_->segments() != 0) || todo() != Todo::nothing;
}

PeerQueue::Status PeerQueue::status() const {
  const std::lock_guard lock(mutex_);
  Status s;
  s.mode = mode_;
  s.ring_bytes = cursor_ ? ring_.backlog(*cursor_) : 0;
  s.disk_bytes = spill_ ? spill_->bytes() : 0;
  s.disk_segments = spill_ ? spill_->segments() : 0;
  s.given_up = given_up_;
  return s;
}

}  // namespace holdfast::mirror
