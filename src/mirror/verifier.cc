// SPDX-License-Identifier: Apache-2.0
#include "mirror/verifier.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "log/record.h"

namespace holdfast::mirror {
namespace {

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::int64_t week_ns = 7 * 24 * 3600 * second_ns, day_ns = week_ns / 7;
constexpr std::int64_t first_scrub_after_ns = 600 * second_ns;  // a copy that has just been made was compared by that
constexpr std::int64_t between_passes_ns = 5 * second_ns;       // of a scrub whose rate was chosen
constexpr std::int64_t save_every_ns = 10 * second_ns, note_every_ns = second_ns / 5;
constexpr std::int64_t most_wait_ns = 60 * second_ns, poll_ns = second_ns / 10;
// In bursts: each wakes disks, and makes the peer sync its log.
constexpr std::int64_t least_burst_bytes = std::int64_t{4} << 20;
constexpr std::uint64_t queue_limit_bytes = std::uint64_t{1} << 20;

}  // namespace

const char* to_string(VerifyState state) {
  static constexpr const char* names[] = {"idle", "running", "waiting", "unsupported"};
  return names[static_cast<std::size_t>(state)];
}

Status Verifier::begin(const VerifyRequest& request) {
  const std::lock_guard lock(mutex_);
  if (too_old_) return fail(ErrorCode::refused, "the peer runs an older program, which can't be compared with");
  if (!requests_.empty() || (busy_ && status_.kind != VerifyKind::scrub))
    return fail(ErrorCode::busy,
                "a verification is under way: wait for its end, or stop it with holdfast verify --stop");
  for (const SetNumber set : shared_.sets()) {
    if (request.set != 0 && request.set != set) continue;
    Job job;
    job.plan = {peer_,
                set,
                request.kind,
                request.repair,
                request.trust_active,
                static_cast<std::uint64_t>(shared_.times.realtime_ns())};
    job.rate = request.rate != 0 ? request.rate : default_verify_rate;
    requests_.push_back(job);
  }
  if (requests_.empty()) return fail(ErrorCode::not_found, "set {} is not protected here", request.set);
  cancelled_ = false;
  wake_.notify_all();
  return {};
}

void Verifier::cancel() {
  const std::lock_guard lock(mutex_);
  requests_.clear();
  cancelled_ = true;
  wake_.notify_all();
}

void Verifier::set_scrub(ScrubSettings settings) {
  const std::lock_guard lock(mutex_);
  if (scrub_ == settings) return;
  scrub_ = settings;
  wake_.notify_all();
}

void Verifier::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  wake_.notify_all();
}

void Verifier::bar() {
  std::unique_lock lock(mutex_);
  barred_ = true;
  wake_.notify_all();
  wake_.wait(lock, [&] { return !at_work_; });
}

void Verifier::unbar() {
  const std::lock_guard lock(mutex_);
  barred_ = false;
  wake_.notify_all();
}

void Verifier::peer_is(bool whole, std::uint64_t session, std::uint8_t highest_kind) {
  const std::lock_guard lock(mutex_);
  const bool old = highest_kind != 0 && highest_kind < static_cast<std::uint8_t>(log::Kind::repair_data);
  if (whole == whole_ && session == session_ && old == too_old_) return;
  if (whole && !whole_) whole_since_ns_ = shared_.times.steady_ns();
  whole_ = whole;
  session_ = session;
  too_old_ = old;
  wake_.notify_all();
}

void Verifier::acked(const Ack& ack) {
  const std::lock_guard lock(mutex_);
  if (!busy_) return;
  ack_ = ack;
  wake_.notify_all();
}

void Verifier::differs(const Differs& differs) {
  const std::lock_guard lock(mutex_);
  if (!busy_ || differs.set != walking_set_) return;
  differs_.push_back(differs);
}

void Verifier::moved(SetNumber set, const FileId& id) {
  const std::lock_guard lock(mutex_);
  if (busy_ && set == walking_set_) moved_.push_back(id);
}

void Verifier::copied(SetNumber set) {
  VerifyMemo memo = shared_.store.get(peer_, set);
  if (memo.open == 0) return;
  memo.open = 0;
  memo.examples.clear();
  if (Status stored = shared_.store.put(peer_, set, std::move(memo)); !stored)
    log_warning("verify: {}", stored.error().to_string());
}

void Verifier::look_again(SetNumber set) {
  VerifyMemo memo = shared_.store.get(peer_, set);
  memo.place = {};
  memo.pass_began_ns = memo.last_scrub_ns = 0;
  memo.pass_bytes = 0;
  if (Status stored = shared_.store.put(peer_, set, std::move(memo)); !stored)
    log_warning("verify: {}", stored.error().to_string());
}

VerifyStatus Verifier::status() const {
  VerifyStatus s;
  {
    const std::lock_guard lock(mutex_);
    s = status_;
    // What was asked for is under way from that moment on: whoever asked must not be shown the end of something else.
    if (!requests_.empty() && (!busy_ || status_.kind == VerifyKind::scrub)) {
      s.state = VerifyState::waiting;
      s.kind = requests_.front().plan.kind;
    }
    if (too_old_) s.state = VerifyState::unsupported;
  }
  s.peer = peer_;
  std::uint64_t known = 0;
  bool first = true;
  std::vector<VerifyExample> examples;
  for (const SetNumber set : shared_.sets()) {
    const VerifyMemo memo = shared_.store.get(peer_, set);
    // Of the set that is being walked, what is known now counts if it is more.
    known += s.state == VerifyState::running && set == s.set ? std::max(memo.open, s.counts.open) : memo.open;
    s.last_full_ns = first ? memo.last_full_ns : std::min(s.last_full_ns, memo.last_full_ns);
    s.last_scrub_ns = first ? memo.last_scrub_ns : std::min(s.last_scrub_ns, memo.last_scrub_ns);
    first = false;
    if (set != s.set) examples.insert(examples.end(), memo.examples.begin(), memo.examples.end());
  }
  s.open = known;
  s.examples.insert(s.examples.end(), examples.begin(), examples.end());
  return s;
}

std::optional<Verifier::Job> Verifier::next_job(std::int64_t& wait_ns) {
  if (barred_ || !whole_ || too_old_) return std::nullopt;
  if (!requests_.empty()) {
    const Job job = requests_.front();
    requests_.pop_front();
    return job;
  }
  return scrub_.on ? next_scrub(wait_ns) : std::nullopt;
}

// A pass that was begun goes on; else the set that waits longest, when its time has come.
std::optional<Verifier::Job> Verifier::next_scrub(std::int64_t& wait_ns) {
  const std::int64_t now = shared_.times.realtime_ns();
  std::optional<Job> best;
  std::int64_t best_due = 0;
  for (const SetNumber set : shared_.sets()) {
    const VerifyMemo memo = shared_.store.get(peer_, set);
    std::int64_t due = now;
    if (memo.pass_began_ns != 0)
      due = 0;
    else if (scrub_.rate != 0)
      due = memo.last_scrub_ns + between_passes_ns;
    else if (memo.last_scrub_ns == 0)
      due = now + first_scrub_after_ns - (shared_.times.steady_ns() - whole_since_ns_);
    else
      due = memo.last_scrub_ns + day_ns;
    if (best && due >= best_due) continue;
    const auto for_a_week =
        static_cast<std::uint64_t>(std::max(memo.last_bytes, memo.pass_bytes) / (week_ns / second_ns));
    best.emplace();
    best->plan = {peer_, set, VerifyKind::scrub, true, false, 0};
    best->rate = scrub_.rate != 0 ? scrub_.rate : std::max(least_scrub_rate, for_a_week);
    best->scrub = true;
    best_due = due;
  }
  if (!best || best_due <= now) return best;
  wait_ns = std::min(wait_ns, best_due - now);
  return std::nullopt;
}

void Verifier::loop() {
  Lock lock(mutex_);
  while (!stopped_) {
    std::int64_t wait_ns = most_wait_ns;
    if (const auto job = next_job(wait_ns)) {
      run(lock, *job);
      continue;
    }
    status_.state = requests_.empty() ? VerifyState::idle : VerifyState::waiting;
    wake_.wait_for(lock, std::chrono::nanoseconds(wait_ns));
  }
}

void Verifier::feed(VerifyWalk& walk) {
  if (session_ != walked_session_) {
    walked_session_ = session_;
    ack_.reset();
    differs_.clear();
    walk.session_began();
  }
  // What differs leaves the peer before the acknowledgement that covers it, and comes in that order.
  for (; !differs_.empty(); differs_.pop_front()) walk.differs(differs_.front());
  if (ack_) walk.acked(*ack_);
  ack_.reset();
  for (; !moved_.empty(); moved_.pop_front()) walk.moved(moved_.front());
}

// False: not now; it has waited a while, or until something changed.
bool Verifier::pace(Lock& lock, const Job& job) {
  const std::int64_t now = shared_.times.steady_ns();
  const auto rate = static_cast<std::int64_t>(job.rate);
  const std::int64_t burst = std::max(least_burst_bytes, rate / 5);
  if (const std::int64_t passed = now - tokens_at_ns_; passed > 0) {
    tokens_ = std::min(
        burst, tokens_ + static_cast<std::int64_t>(static_cast<double>(rate) * static_cast<double>(passed) / 1e9));
    tokens_at_ns_ = now;
  }
  const std::int64_t half = burst / 2;
  std::int64_t wait_ns = 0;
  if (!whole_)
    wait_ns = most_wait_ns;
  else if (tokens_ <= 0)
    wait_ns = static_cast<std::int64_t>(static_cast<double>(half - tokens_) / static_cast<double>(rate) * 1e9);
  if (wait_ns == 0) {
    lock.unlock();  // it asks the log
    const bool busy = shared_.queue_bytes() > queue_limit_bytes;
    lock.lock();
    if (busy) wait_ns = poll_ns;
  }
  if (wait_ns == 0) return true;
  status_.state = whole_ && tokens_ <= 0 ? VerifyState::running : VerifyState::waiting;
  const bool whole = whole_;
  wake_.wait_for(lock, std::chrono::nanoseconds(wait_ns), [&] { return give_way(job) || whole_ != whole; });
  status_.state = VerifyState::running;
  return false;
}

void Verifier::run(Lock& lock, const Job& job) {
  const SetNumber set = job.plan.set;
  VerifyMemo memo = shared_.store.get(peer_, set);
  VerifyWalk walk(shared_.log, shared_.live, shared_.times, job.plan, job.scrub ? memo.place : VerifyPlace{});
  resumed_bytes_ = job.scrub ? memo.pass_bytes : 0;
  if (job.scrub && memo.pass_began_ns == 0) {
    memo.pass_began_ns = shared_.times.realtime_ns();
    memo.pass_bytes = 0;
    remember(lock, set, memo);
  }
  walking_set_ = set;
  walked_session_ = session_;
  ack_.reset();
  differs_.clear();
  moved_.clear();
  busy_ = true;
  tokens_ = least_burst_bytes;
  tokens_at_ns_ = saved_at_ns_ = shared_.times.steady_ns();
  status_.state = VerifyState::running;
  status_.kind = job.plan.kind;
  status_.set = set;
  status_.counts = {};
  status_.examples.clear();
  if (!job.scrub) ++shared_.walkers;
  bool whole = false;
  while (!give_way(job)) {
    if (!pace(lock, job)) continue;
    feed(walk);
    if (give_way(job)) break;
    at_work_ = true;
    lock.unlock();
    auto step = walk.step();
    lock.lock();
    at_work_ = false;
    if (barred_) wake_.notify_all();
    tokens_ -= static_cast<std::int64_t>(walk.take_cost());
    note_progress(walk, job);
    if (!step) {
      log_error("verify: set {} with peer {}: {}", set, to_hex(peer_), step.error().to_string());
      break;
    }
    if (*step == VerifyWalk::Step::done) {
      whole = !walk.too_many();
      break;
    }
    if (*step != VerifyWalk::Step::worked)
      wake_.wait_for(lock, std::chrono::nanoseconds(poll_ns),
                     [&] { return give_way(job) || ack_ || session_ != walked_session_; });
    else if (job.scrub && shared_.times.steady_ns() - saved_at_ns_ >= save_every_ns)
      save_place(lock, walk, job);
  }
  if (!job.scrub) --shared_.walkers;
  busy_ = false;
  end_run(lock, walk, job, whole);
}

void Verifier::note_progress(const VerifyWalk& walk, const Job& job) {
  const std::int64_t now = shared_.times.steady_ns();
  if (now - noted_at_ns_ < note_every_ns) return;
  noted_at_ns_ = now;
  status_.counts = walk.counts();
  status_.examples = walk.examples();
  const VerifyMemo memo = shared_.store.get(peer_, job.plan.set);
  const std::uint64_t so_far = resumed_bytes_ + status_.counts.bytes;
  if (job.scrub && memo.last_bytes != 0)
    status_.progress = std::min(0.99, static_cast<double>(so_far) / static_cast<double>(memo.last_bytes));
}

// Without the lock: acknowledgements, which fsyncs wait for, are not to wait for this disk.
void Verifier::remember(Lock& lock, SetNumber set, VerifyMemo memo) {
  lock.unlock();
  if (Status stored = shared_.store.put(peer_, set, std::move(memo)); !stored)
    log_warning("verify: {}", stored.error().to_string());
  lock.lock();
}

void Verifier::save_place(Lock& lock, const VerifyWalk& walk, const Job& job) {
  auto place = walk.place();
  if (!place) return;
  saved_at_ns_ = shared_.times.steady_ns();
  VerifyMemo memo = shared_.store.get(peer_, job.plan.set);
  memo.place = std::move(*place);
  memo.pass_bytes = resumed_bytes_ + walk.counts().bytes;
  const VerifyCounts counts = walk.counts();
  if (counts.open > memo.open) {
    memo.open = counts.open;
    memo.examples = walk.examples();
  }
  remember(lock, job.plan.set, std::move(memo));
}

// What is known to differ: a whole run knows better than what was known before; any other only adds.
void Verifier::end_run(Lock& lock, const VerifyWalk& walk, const Job& job, bool whole) {
  if (job.scrub && !whole) save_place(lock, walk, job);
  const VerifyCounts counts = walk.counts();
  status_.counts = counts;
  status_.examples = walk.examples();
  status_.state = VerifyState::idle;
  VerifyMemo memo = shared_.store.get(peer_, job.plan.set);
  const std::int64_t now = shared_.times.realtime_ns();
  const bool compares_all = whole && job.plan.kind != VerifyKind::sample && resumed_bytes_ == 0;
  if (compares_all || counts.open > memo.open) {
    memo.open = counts.open;
    memo.examples.clear();
    for (auto& e : walk.examples())
      if (e.state != std::string_view("repaired")) memo.examples.push_back(std::move(e));
  }
  if (job.scrub && whole) {
    memo.last_scrub_ns = now;
    memo.last_bytes = resumed_bytes_ + counts.bytes;
    memo.pass_began_ns = 0;
    memo.pass_bytes = 0;
    memo.place = {};
  }
  if (whole && job.plan.kind == VerifyKind::full) memo.last_full_ns = now;
  status_.last_result = !whole && !walk.too_many()           ? VerifyResult::interrupted
                        : counts.open > 0 || walk.too_many() ? VerifyResult::differs
                        : counts.differences > 0             ? VerifyResult::repaired
                                                             : VerifyResult::clean;
  memo.last_result = status_.last_result;
  if (walk.too_many())
    log_error(
        "verify: set {}: so much differs on peer {} that it should be copied anew: stop its mirror, remove its "
        "mirror's state "
        "and start it again",
        job.plan.set, to_hex(peer_));
  remember(lock, job.plan.set, std::move(memo));
  if (!job.scrub || counts.differences > 0)
    log_info("verify: set {} with peer {}: {}: {} objects, {} differed, {} repaired, {} open", job.plan.set,
             to_hex(peer_), to_string(status_.last_result), counts.objects, counts.differences, counts.repaired,
             counts.open);
  const bool news = !job.scrub || counts.differences > 0;
  if (news) report(lock);
}

void Verifier::report(Lock& lock) {
  if (!shared_.reported) return;
  lock.unlock();
  shared_.reported(status());
  lock.lock();
}

}  // namespace holdfast::mirror
