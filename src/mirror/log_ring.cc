// SPDX-License-Identifier: Apache-2.0
#include "mirror/log_ring.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::size_t copy_under_lock_bytes = 16 * 1024;
constexpr std::int64_t stamp_every_ns = 5'000'000;
constexpr std::size_t max_stamps = 8192;
constexpr std::int64_t busy_for_ns = 100'000'000;

std::uint32_t length_at(const std::uint8_t* p) {
  std::uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

}  // namespace

LogRing::LogRing(std::size_t bytes, ports::Times& times)
    : size_(std::max(bytes, least_ring_bytes) / 4096 * 4096), times_(times), memory_(new std::uint8_t[size_]) {}

void LogRing::open(Epoch epoch, Position base) {
  const std::lock_guard lock(mutex_);
  CHECK(!open_ && in_flight_.empty(), "an epoch is opened while another is open");
  CHECK(epoch > last_position_.epoch || last_position_.epoch == Epoch(0), "epoch {} after {}", epoch.value,
        last_position_.epoch.value);
  if (last_position_ != base) {
    for (auto& cursor : cursors_) cursor->attached_ = false;
    cursors_.clear();
    tail_ = head_ = published_ = 0;
    base_ = last_position_ = base;
    stamps_.clear();
  }
  epoch_ = epoch;
  last_ = base.sequence.value;
  open_ = true;
}

class LogRing::Wakeups {
 public:
  ~Wakeups() {
    for (unsigned i = 0; i < count_; ++i) cursors_[i]->wake_.notify_all();
  }
  void add(const std::shared_ptr<Cursor>& cursor) {
    if (count_ < cursors_.size())
      cursors_[count_++] = cursor;
    else
      cursor->wake_.notify_all();
  }

 private:
  std::array<std::shared_ptr<Cursor>, 4> cursors_;
  unsigned count_ = 0;
};

void LogRing::close() {
  std::vector<std::function<void()>> waiters;
  Wakeups wakeups;
  {
    const std::lock_guard lock(mutex_);
    open_ = false;
    waiters = take_waiters();
    wake_readers(true, wakeups);
  }
  for (auto& w : waiters) w();
}

bool LogRing::is_open() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

std::uint64_t LogRing::least_release() const {
  std::uint64_t least = head_;
  for (const auto& c : cursors_) least = std::min(least, c->release_);
  return least;
}

// One record's length is kept back: the pad at the ring's end takes at most that.
bool LogRing::fits(std::size_t bytes) const {
  return (head_ - least_release()) + reserved_ + bytes + log::max_record_bytes <= size_;
}

bool LogRing::try_reserve_all(std::span<const std::size_t> pieces) {
  std::size_t need = 0;
  for (const std::size_t bytes : pieces) need += bytes + log::record_overhead_bytes;
  const std::lock_guard lock(mutex_);
  if (!open_) {  // appends go nowhere: never let a straggler wait
    reserved_ += need;
    return true;
  }
  const bool fit = fits(need);
  if (!fit) {
    if (starved_bytes_ == 0) starving_since_ns_ = times_.steady_ns();
    starved_bytes_ = need;
  }
  if (!fit || head_ - least_release() > size_ / 2) note_pressure();
  if (!fit) return false;
  reserved_ += need;
  return true;
}

void LogRing::give_back(std::size_t bytes) {
  std::vector<std::function<void()>> waiters;
  {
    const std::lock_guard lock(mutex_);
    reserved_ -= bytes + log::record_overhead_bytes;
    waiters = take_waiters();
  }
  for (auto& w : waiters) w();
}

// A cursor has moved, or is gone.
LogRing::Retries LogRing::room_made() {
  starved_bytes_ = 0;
  return take_waiters();
}

void LogRing::when_space(std::function<void()> retry) {
  const std::lock_guard lock(mutex_);
  space_waiters_.push_back(std::move(retry));
}

void LogRing::note_pressure() {
  pressed_ = true;
  if (std::exchange(pressure_awaited_, false)) pressure_.notify_all();
}

void LogRing::wait_pressure(int wait_ms) {
  std::unique_lock lock(mutex_);
  pressure_awaited_ = true;
  pressure_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] { return pressed_; });
  pressed_ = pressure_awaited_ = false;
}

void LogRing::end_wait() {
  const std::lock_guard lock(mutex_);
  note_pressure();
}

bool LogRing::is_starving() const {
  const std::lock_guard lock(mutex_);
  return starved_bytes_ != 0 && !fits(starved_bytes_);
}

LogRing::Retries LogRing::take_waiters() { return std::exchange(space_waiters_, {}); }

// History gives way to new records; reservations see to it that a cursor's records never have to.
void LogRing::make_room(std::uint64_t new_head) {
  while (new_head - tail_ > size_) {
    const std::uint64_t at = skip_pad(tail_);
    if (at >= published_) {
      tail_ = at;
      break;
    }
    const log::RecordHead old = log::head_of(memory_.get() + at % size_);
    base_ = {old.epoch, old.sequence};
    tail_ = at + old.length;
  }
}

std::uint64_t LogRing::skip_pad(std::uint64_t offset) const {
  if (offset >= published_) return offset;  // still being copied, outside of the lock: not ours to read
  return length_at(memory_.get() + offset % size_) == 0 ? offset + (size_ - offset % size_) : offset;
}

std::uint64_t LogRing::place(std::size_t bytes) {
  std::uint64_t at = head_;
  const std::size_t room = size_ - at % size_;
  if (room < bytes) {
    make_room(at + room);
    std::memset(memory_.get() + at % size_, 0, 4);
    at += room;
  }
  make_room(at + bytes);
  head_ = at + bytes;
  return at;
}

void LogRing::note_time(Sequence sequence) {
  const std::int64_t now = times_.steady_ns();
  if (!stamps_.empty() && now - stamps_.back().at_ns < stamp_every_ns) return;
  if (stamps_.size() >= max_stamps) {  // thin out the older half: an earlier time stays an upper bound of the age
    std::deque<Stamp> kept;
    for (std::size_t i = 0; i < stamps_.size(); ++i)
      if (i % 2 == 0 || i > stamps_.size() / 2) kept.push_back(stamps_[i]);
    stamps_.swap(kept);
  }
  stamps_.push_back({sequence.value, now, head_});
}

std::int64_t LogRing::appended_at(Sequence sequence) const {
  const std::lock_guard lock(mutex_);
  auto after = std::upper_bound(stamps_.begin(), stamps_.end(), sequence.value,
                                [](std::uint64_t s, const Stamp& stamp) { return s < stamp.sequence; });
  if (after == stamps_.begin()) return stamps_.empty() ? times_.steady_ns() : stamps_.front().at_ns;
  return std::prev(after)->at_ns;
}

Sequence LogRing::append(const log::Record& record, std::size_t reserved_bytes) {
  log::EncodedRecord encoded(record);
  const std::size_t bytes = encoded.total_bytes();
  CHECK(bytes <= reserved_bytes + log::record_overhead_bytes, "{} of {} bytes with {} reserved",
        log::to_string(record.kind), bytes, reserved_bytes);
  Wakeups wakeups;
  std::unique_lock lock(mutex_);
  reserved_ -= reserved_bytes + log::record_overhead_bytes;
  const Sequence sequence(last_.load(std::memory_order_relaxed) + 1);
  last_.store(sequence.value, std::memory_order_release);
  if (!open_) return sequence;
  last_position_ = {epoch_, sequence};
  note_time(sequence);
  const std::uint64_t at = place(bytes);
  const std::uint64_t end = head_;
  const bool big = bytes > copy_under_lock_bytes;
  if (!big && in_flight_.empty()) {
    encoded.finish(epoch_, sequence, times_.realtime_ns());
    encoded.copy_to(memory_.get() + at % size_);
    published_ = end;
    wake_readers(false, wakeups);
    return sequence;
  }
  InFlight& entry = in_flight_.emplace_back(InFlight{end, false});
  const Epoch epoch = epoch_;
  const std::int64_t time_ns = times_.realtime_ns();
  lock.unlock();
  encoded.finish(epoch, sequence, time_ns);
  encoded.copy_to(memory_.get() + at % size_);
  lock.lock();
  publish(entry, wakeups);
  return sequence;
}

void LogRing::publish(InFlight& entry, Wakeups& wakeups) {
  entry.done = true;
  while (!in_flight_.empty() && in_flight_.front().done) {
    published_ = in_flight_.front().end;
    in_flight_.pop_front();
  }
  wake_readers(false, wakeups);
}

Position LogRing::last_position() const {
  const std::lock_guard lock(mutex_);
  return last_position_;
}

// What was reserved before was promised to have the room of history: that must not become somebody's.
Result<std::uint64_t> LogRing::pinnable(std::uint64_t at, Position position) const {
  if (reserved_ == 0 || (head_ - at) + reserved_ + log::max_record_bytes <= size_) return at;
  return fail(ErrorCode::stale, "what follows epoch {} sequence {} is about to leave the ring", position.epoch.value,
              position.sequence.value);
}

std::optional<Position> LogRing::end_in(Epoch epoch) const {
  const std::lock_guard lock(mutex_);
  return open_ && epoch_ == epoch ? std::optional(last_position_) : std::nullopt;
}

// The offset after the record at `position`; `from` is the tail, which continues `base`.
Result<std::uint64_t> LogRing::find(std::uint64_t from, Position base, Position position) const {
  if (position == base) return pinnable(from, position);
  if (position.sequence > base.sequence) {
    const auto after = std::upper_bound(stamps_.begin(), stamps_.end(), position.sequence.value,
                                        [](std::uint64_t s, const Stamp& stamp) { return s < stamp.sequence; });
    if (after != stamps_.begin()) from = std::max(from, std::prev(after)->offset);  // nobody appends while this looks
    for (std::uint64_t at = skip_pad(from); at < published_; at = skip_pad(at)) {
      const log::RecordHead record = log::head_of(memory_.get() + at % size_);
      at += record.length;
      if (record.sequence == position.sequence && record.epoch == position.epoch) return pinnable(at, position);
      if (record.sequence >= position.sequence) break;
    }
  }
  return fail(ErrorCode::stale, "epoch {} sequence {} is not in the ring, which begins after epoch {} sequence {}",
              position.epoch.value, position.sequence.value, base.epoch.value, base.sequence.value);
}

Result<std::shared_ptr<LogRing::Cursor>> LogRing::attach(Position position) {
  const std::lock_guard lock(mutex_);
  HF_ASSIGN(const std::uint64_t at, find(tail_, base_, position));
  auto cursor = std::make_shared<Cursor>();
  cursor->release_ = cursor->read_ = at;
  cursor->moved_at_ns_ = times_.steady_ns();
  cursors_.push_back(cursor);
  return cursor;
}

// What is still being copied outside of the lock comes after `end` all the same: published_ goes over it in order.
std::shared_ptr<LogRing::Cursor> LogRing::attach_end(Position& end) {
  const std::lock_guard lock(mutex_);
  end = last_position_;
  auto cursor = std::make_shared<Cursor>();
  cursor->release_ = cursor->read_ = head_;
  cursor->moved_at_ns_ = times_.steady_ns();
  cursors_.push_back(cursor);
  return cursor;
}

LogRing::Retries LogRing::detach(const std::shared_ptr<Cursor>& cursor) {
  const std::lock_guard lock(mutex_);
  cursor->attached_ = false;
  cursor->wake_.notify_all();
  std::erase(cursors_, cursor);
  return room_made();
}

Result<LogRing::Retries> LogRing::rewind(Cursor& cursor, Position position) {
  const std::lock_guard lock(mutex_);
  if (!cursor.attached_) return fail(ErrorCode::stale, "the peer's place in the ring was given up");
  HF_ASSIGN(const std::uint64_t at, find(tail_, base_, position));
  cursor.release_ = cursor.read_ = at;  // going back below the old release is fine: find() looked in what is still here
  return room_made();
}

void LogRing::rewind_to_release(Cursor& cursor) {
  const std::lock_guard lock(mutex_);
  cursor.read_ = cursor.release_;
}

// `all`: because the cursor itself changed.
void LogRing::wake_readers(bool all, Wakeups& wakeups) {
  for (const auto& c : cursors_) {
    const bool much =
        c->sleep_ == Cursor::Sleep::till_much && published_ - std::min(c->read_, published_) >= c->enough_;
    if (!all && !much && c->sleep_ != Cursor::Sleep::till_anything) continue;
    c->sleep_ = Cursor::Sleep::no;
    wakeups.add(c);
  }
}

LogRing::Wake LogRing::wait(Cursor& cursor, int wait_ms, int linger_ms, std::size_t enough_bytes) {
  const std::int64_t begin = times_.steady_ns(), linger_ns = std::int64_t{linger_ms} * 1'000'000;
  const std::int64_t until = begin + std::int64_t{wait_ms} * 1'000'000;
  const auto kicked = [&] { return cursor.kicks_ != cursor.seen_kicks_ || !cursor.attached_ || !open_; };
  std::unique_lock lock(mutex_);
  cursor.enough_ = enough_bytes;
  bool lingered = linger_ms == 0;
  for (std::int64_t now = begin; !kicked() && now < until; now = times_.steady_ns()) {
    const std::uint64_t unread = published_ - std::min(cursor.read_, published_);
    if (unread >= enough_bytes || (unread > 0 && lingered)) break;
    const bool lingers = unread > 0 || (linger_ms > 0 && now - cursor.busy_at_ns_ < busy_for_ns);
    cursor.sleep_ = lingers ? Cursor::Sleep::till_much : Cursor::Sleep::till_anything;
    cursor.wake_.wait_for(lock, std::chrono::nanoseconds(lingers ? std::min(linger_ns, until - now) : until - now));
    lingered = lingered || lingers;
  }
  cursor.sleep_ = Cursor::Sleep::no;
  if (cursor.attached_ && cursor.read_ < published_) cursor.busy_at_ns_ = times_.steady_ns();
  if (std::exchange(cursor.seen_kicks_, cursor.kicks_) != cursor.kicks_) return Wake::hurry;
  return cursor.attached_ && cursor.read_ < published_ ? Wake::data : Wake::nothing;
}

void LogRing::kick(Cursor& cursor) {
  {
    const std::lock_guard lock(mutex_);
    ++cursor.kicks_;
  }
  cursor.wake_.notify_all();
}

std::uint64_t LogRing::backlog(const Cursor& cursor) const {
  const std::lock_guard lock(mutex_);
  return cursor.attached_ ? head_ - std::min(cursor.release_, head_) : 0;
}

LogRing::Batch LogRing::take(Cursor& cursor, std::size_t max_bytes, NodeId reader, Bytes& out) {
  std::uint64_t until = 0, at = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!cursor.attached_) return {};
    until = published_;
    at = cursor.read_;
  }
  const Batch batch = copy(at, until, max_bytes, reader, out);
  const std::lock_guard lock(mutex_);
  if (!cursor.attached_) return {};
  cursor.read_ = batch.end;
  return batch;
}

LogRing::Batch LogRing::peek(const Cursor& cursor, std::size_t max_bytes, NodeId reader, Bytes& out) const {
  std::uint64_t until = 0, at = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!cursor.attached_) return {};
    until = published_;
    at = cursor.release_;
  }
  const Batch batch = copy(at, until, max_bytes, reader, out);
  const std::lock_guard lock(mutex_);
  return cursor.attached_ ? batch : Batch{};  // else what was copied may have been overwritten meanwhile
}

// Without the lock: what an attached cursor has not released stays where it is.
LogRing::Batch LogRing::copy(std::uint64_t at, std::uint64_t until, std::size_t max_bytes, NodeId reader,
                             Bytes& out) const {
  Batch batch;
  const std::size_t begin = out.size();
  std::uint64_t run = at;  // [run, at) is to be copied
  const auto flush = [&] {
    const std::uint8_t* from = memory_.get() + run % size_;
    out.insert(out.end(), from, from + (at - run));
  };
  while (at < until) {
    const std::uint8_t* p = memory_.get() + at % size_;
    if (p == memory_.get()) {
      flush();
      run = at;
    }
    if (length_at(p) == 0) {
      flush();
      run = at += size_ - at % size_;
      continue;
    }
    const log::RecordHead record = log::head_of(p);
    if (batch.count > 0 && out.size() - begin + (at - run) + record.length > max_bytes) break;
    if (record.addressed_to.value != 0 && record.addressed_to != reader) {
      flush();
      log::Record nothing;
      nothing.kind = log::Kind::noop;
      nothing.epoch = record.epoch;
      nothing.sequence = record.sequence;
      nothing.time_ns = record.time_ns;
      const Bytes noop = log::encode(nothing);
      out.insert(out.end(), noop.begin(), noop.end());
      run = at + record.length;
    }
    if (batch.count++ == 0) batch.first = {record.epoch, record.sequence};
    batch.last = {record.epoch, record.sequence};
    batch.carries_ids = batch.carries_ids || log::makes_ids(record.kind);
    at += record.length;
  }
  flush();
  batch.end = at;
  return batch;
}

LogRing::Retries LogRing::release(Cursor& cursor, std::uint64_t end) {
  const std::lock_guard lock(mutex_);
  if (!cursor.attached_ || end <= cursor.release_) return {};
  cursor.release_ = end;
  cursor.read_ = std::max(cursor.read_, end);
  cursor.moved_at_ns_ = times_.steady_ns();
  return room_made();
}

void LogRing::expire(std::int64_t patience_ns) {
  Retries waiters;
  {
    const std::lock_guard lock(mutex_);
    if (starved_bytes_ == 0 || fits(starved_bytes_)) return;
    const std::int64_t now = times_.steady_ns();
    const std::uint64_t least = least_release();
    const auto stuck = std::find_if(cursors_.begin(), cursors_.end(), [&](const auto& c) {
      return c->release_ == least && c->release_ != head_ &&
             now - std::max(c->moved_at_ns_, starving_since_ns_) > patience_ns;
    });
    if (stuck == cursors_.end()) return;
    log_warning(
        "a peer kept the log ring full for {} ms without taking anything: it loses its place and will be "
        "resynchronized",
        patience_ns / 1'000'000);
    (*stuck)->attached_ = false;
    (*stuck)->wake_.notify_all();
    cursors_.erase(stuck);
    waiters = room_made();
  }
  for (auto& w : waiters) w();
}

std::size_t LogRing::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return head_ - least_release();
}

}  // namespace holdfast::mirror
