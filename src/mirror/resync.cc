// SPDX-License-Identifier: Apache-2.0
// The course of a resynchronization: space, acknowledgements, what comes next. What is read and appended is in resync_ship.cc.
#include "mirror/resync.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

constexpr std::chrono::seconds files_stay_open{2};  // while nothing is read

}  // namespace

Resync::Resync(ActiveLog& log, ports::LiveTree& tree, NodeId peer, SetNumber set, std::unique_ptr<ResyncPlan> plan,
               ResyncChunks chunks)
    : log_(log),
      tree_(tree),
      peer_(peer),
      set_(set),
      plan_(std::move(plan)),
      partial_(plan_->is_partial()),
      chunks_(chunks),
      buffer_(std::max(hash_chunk_bytes, data_chunk_bytes)) {
  progress_.partial = partial_;
  ++log_.resyncs();
}

Resync::~Resync() {
  tree_.reads_end(set_);
  --log_.resyncs();
}

void Resync::moved(const FileId& id) {
  if (partial_) return;
  const std::lock_guard lock(mutex_);
  if (moved_once_.insert(id).second) moved_.push_back(id);
}

void Resync::nak(const Nak& nak) {
  const std::lock_guard lock(mutex_);
  naks_.push_back(nak);
  changed_.notify_all();
}

void Resync::acked(const Ack& ack) {
  const std::lock_guard lock(mutex_);
  ack_ = ack;
  ++acks_;
  while (!outstanding_.empty() && outstanding_.front().first <= ack.durable) {
    outstanding_bytes_ -= outstanding_.front().second;
    outstanding_.pop_front();
  }
  // One that is cancelled hears nothing more: the peer may be another process by now, which has applied and has not asked.
  while (!cancelled_ && !unsettled_.empty() && unsettled_.front().first <= ack.applied) unsettled_.pop_front();
  changed_.notify_all();
}

void Resync::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

ResyncProgress Resync::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

std::vector<Resync::Doubt> Resync::unsettled() const {
  const std::lock_guard lock(mutex_);
  std::vector<Doubt> all;
  for (const auto& [sequence, doubt] : unsettled_) all.push_back(doubt);
  for (const Nak& nak : naks_)
    if (!nak.file.is_none() && nak.length == 0)
      all.push_back({nak.file, nak.offset == nak_with_parent ? nak.file : FileId{}});
  return all;
}

// A peer may be away for days: nothing that is deleted meanwhile may keep its space because it was about to be read.
void Resync::wait_until(std::unique_lock<std::mutex>& lock, const std::function<bool()>& condition) {
  if (changed_.wait_for(lock, files_stay_open, condition)) return;
  lock.unlock();
  tree_.reads_end(set_);
  lock.lock();
  changed_.wait(lock, condition);
}

Status Resync::reserve(std::vector<std::size_t> pieces) {
  CHECK(pieces_.empty(), "space of an earlier step is left");
  std::size_t sum = 0;
  for (const std::size_t p : pieces) sum += p;
  const std::size_t window = std::min(resync_window_bytes, log_.ring().size_bytes() / 4);
  std::unique_lock lock(mutex_);
  wait_until(lock, [&] { return cancelled_ || outstanding_bytes_ == 0 || outstanding_bytes_ + sum <= window; });
  while (!cancelled_) {
    lock.unlock();
    if (log_.try_reserve_all(pieces)) {
      pieces_ = std::move(pieces);
      return {};
    }
    // Applications come first: bulk asks again when peers have moved on.
    lock.lock();
    const std::uint64_t seen = acks_;  // heartbeats carry acks too, so this never waits for ever
    wait_until(lock, [&] { return cancelled_ || acks_ != seen; });
  }
  return fail(ErrorCode::unavailable, "the resynchronization was interrupted");
}

void Resync::append(Record& r, std::size_t piece) {
  const auto it = std::find(pieces_.begin(), pieces_.end(), piece);
  CHECK(it != pieces_.end(), "no space was reserved for {}", log::to_string(r.kind));
  pieces_.erase(it);
  r.set = set_;
  r.addressed_to = peer_;
  last_ = log_.append(r, piece);
  const std::lock_guard lock(mutex_);
  outstanding_.emplace_back(last_, r.payload.size() + log::record_overhead_bytes);
  outstanding_bytes_ += r.payload.size() + log::record_overhead_bytes;
  progress_.sent_bytes += r.payload.size() + log::record_overhead_bytes;
  if (partial_ && r.kind == Kind::link) unsettled_.emplace_back(last_, Doubt{r.file, r.parent});
}

void Resync::give_back_rest() {
  for (const std::size_t p : pieces_) log_.give_back(p);
  pieces_.clear();
}

Status Resync::append_mark(Kind kind, std::uint32_t flags) {
  HF_TRY(reserve({0}));
  Record r;
  r.kind = kind;
  r.flags = flags;
  append(r, 0);
  return {};
}

Status Resync::run() {
  for (;;) {
    HF_ASSIGN(const Turn turn, step());
    if (turn == Turn::ended) return {};
    if (turn == Turn::more) continue;
    std::unique_lock lock(mutex_);
    wait_until(lock, [&] { return cancelled_ || has_news(); });
  }
}

// Under mutex_. Partial: all before it was taken from the queue, and noted. Else: whether the peer holds nothing of the set is known at the latest
// when it has begun: it says so (channel.h, Nak) before it acknowledges that.
bool Resync::may_begin() const { return (partial_ ? ack_.durable : ack_.applied) >= begin_; }

// Under mutex_: there is something to do, or to end.
bool Resync::has_news() const {
  if (!begun_) return may_begin();
  return !naks_.empty() || ack_.applied >= last_;
}

Result<Resync::Turn> Resync::step() {
  if (ended_) return Turn::ended;
  if (begin_ == Sequence(0)) {
    HF_TRY(append_mark(Kind::resync_begin, partial_ ? log::flag_partial_resync : 0));
    begin_ = last_;
    return Turn::more;
  }
  HF_ASSIGN(const bool found, find_work());
  if (found) {
    Status done = advance();
    give_back_rest();
    if (!done && done.error().code != ErrorCode::not_found) return tl::unexpected(std::move(done).error());
    if (!done && work_.back().job.id == FileId::root(set_))  // else the peer would be told that nothing is in it
      return fail(ErrorCode::corrupt, "set {}: its root is not found by its id", set_);
    if (!done) {
      if (work_.back().job.what == ShipJob::What::object) plan_->gone(work_.back().job.id);
      finished();
    }
    return Turn::more;
  }
  {
    const std::lock_guard lock(mutex_);
    if (!begun_ || !naks_.empty() || ack_.applied < last_) return Turn::waits;
  }
  HF_TRY(append_mark(Kind::resync_end));
  ended_ = true;
  return Turn::ended;
}

// The job under way first, then answers, then what the plan says.
Result<bool> Resync::find_work() {
  for (;;) {
    std::optional<Nak> nak;
    std::deque<FileId> moved;
    {
      const std::lock_guard lock(mutex_);
      if (cancelled_) return fail(ErrorCode::unavailable, "the resynchronization was interrupted");
      if (!begun_ && !may_begin()) return false;
      if (!work_.empty()) return true;
      if (begun_ && !naks_.empty()) {
        nak = naks_.front();
        naks_.pop_front();
      }
      if (begun_) {
        moved.swap(moved_);
        moved_once_.clear();
      }
    }
    if (!begun_) {
      HF_TRY(begin_plan());
      continue;
    }
    for (const FileId& id : moved) plan_->moved(id);
    if (!nak) break;
    HF_TRY(take_asked(*nak));
    if (!work_.empty()) return true;
  }
  return start_next();
}

Status Resync::begin_plan() {
  {
    const std::lock_guard lock(mutex_);
    const auto is_for_all = [](const Nak& nak) { return nak.file.is_none(); };
    if (std::any_of(naks_.begin(), naks_.end(), is_for_all)) plan_->peer_is_empty();
    std::erase_if(naks_, is_for_all);
  }
  HF_ASSIGN(const std::uint64_t total, plan_->begin());
  begun_ = true;
  const std::lock_guard lock(mutex_);
  progress_.total = total;
  return {};
}

Status Resync::take_asked(const Nak& nak) {
  if (nak.file.is_none()) return {};  // too late to make use of
  if (nak.length == 0) return plan_->again(nak);
  if (nak.length > data_chunk_bytes) return fail(ErrorCode::corrupt, "a peer asks for {} bytes at once", nak.length);
  if (nak.offset > end_of_file - nak.length) return fail(ErrorCode::corrupt, "a peer asks for bytes beyond any file");
  Work work;
  work.job.what = ShipJob::What::bytes;
  work.job.id = nak.file;
  work.job.content = ShipJob::Content::bytes;
  work.job.extents = {{nak.offset, nak.offset + nak.length}};
  work.at = Work::At::content;
  work_.push_back(std::move(work));
  return {};
}

Result<bool> Resync::start_next() {
  HF_ASSIGN(auto job, plan_->next());
  if (!job) return false;
  ask_ahead();
  const std::lock_guard lock(mutex_);
  progress_.total = std::max(progress_.total, progress_.done + 1);
  work_.push_back({});
  work_.back().job = std::move(*job);
  return true;
}

void Resync::ask_ahead() {
  for (const FileId& id : plan_->take_soon()) tree_.will_read(set_, id);
}

void Resync::count_opened(std::uint64_t objects) {
  const std::lock_guard lock(mutex_);
  progress_.opened += objects;
}

void Resync::finished() {
  const ShipJob::What what = work_.back().job.what;
  const bool counts = what != ShipJob::What::bytes && what != ShipJob::What::name_gone;
  work_.pop_back();
  const std::lock_guard lock(mutex_);
  if (counts) ++progress_.done;
}

}  // namespace holdfast::mirror
