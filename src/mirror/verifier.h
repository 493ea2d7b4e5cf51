// SPDX-License-Identifier: Apache-2.0
// When one peer is compared, and how fast: what an administrator asked for (verify), and a slow pass that begins again and again (scrub). Stands
// back while the peer has a queue, never reads faster than its rate, and goes on where it was after a lost connection; the scrub also after a
// restart. Works while the peer is connected and holds a whole copy.
// Threads: loop() in one of its own, for as long as the Verifier lives; everything else from any, and quick.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "mirror/verify_store.h"
#include "mirror/verify_walk.h"

namespace holdfast::mirror {

constexpr std::uint64_t default_verify_rate = std::uint64_t{64} << 20;  // bytes a second, as is
constexpr std::uint64_t least_scrub_rate = std::uint64_t{1} << 20;

struct VerifyRequest {
  SetNumber set = 0;  // 0: all
  VerifyKind kind = VerifyKind::full;
  bool repair = true, trust_active = false;
  std::uint64_t rate = 0;  // bytes a second; 0: the default
};
struct ScrubSettings {
  bool on = true;
  std::uint64_t rate = 0;  // bytes a second, without a pause between passes; 0: a week for all, one pass a day at most
  bool operator==(const ScrubSettings&) const = default;
};

enum class VerifyState { idle, running, waiting, unsupported };
const char* to_string(VerifyState state);

struct VerifyStatus {
  NodeId peer;
  VerifyState state = VerifyState::idle;
  VerifyKind kind = VerifyKind::scrub;
  SetNumber set = 0;    // of the present run, or the last one
  VerifyCounts counts;  // of it
  double progress = 0;  // of a scrub's pass, guessed by the last one
  std::uint64_t open = 0;
  std::vector<VerifyExample> examples;
  std::int64_t last_full_ns = 0, last_scrub_ns = 0;  // wall clock, the oldest of all sets; 0: never
  VerifyResult last_result = VerifyResult::none;
};

class Verifier {
 public:
  struct Shared {
    CaptureLog& log;
    ports::LiveTree& live;
    ports::Times& times;
    VerifyStore& store;
    std::atomic<int>& walkers;                   // while it is not 0, moved() is told
    std::function<std::set<SetNumber>()> sets;   // protected here
    std::function<std::uint64_t()> queue_bytes;  // what this peer has still to get
    std::function<void(const VerifyStatus&)>
        reported;  // a run ended, or more (less) is known to differ; must only hand over
  };
  Verifier(Shared shared, NodeId peer) : shared_(std::move(shared)), peer_(peer) {}

  void loop();  // returns after stop()
  void stop();

  // --- what was asked for
  Status begin(const VerifyRequest& request);  // ErrorCode::busy: one is under way; refused: the peer is too old
  void cancel();
  void set_scrub(ScrubSettings settings);
  VerifyStatus status() const;

  // --- the peer, as its Sender sees it
  void peer_is(bool whole, std::uint64_t session, std::uint8_t highest_kind);
  void acked(const Ack& ack);
  void differs(const Differs& differs);
  void moved(SetNumber set, const FileId& id);
  void copied(SetNumber set);      // anew: what was known to differ is of the past
  void look_again(SetNumber set);  // the scrub begins a pass soon, from the first object
  // Nothing is appended after it returned, until `may` again: an epoch ends.
  void bar();
  void unbar();

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Job {
    VerifyPlan plan;
    std::uint64_t rate = 0;
    bool scrub = false;
  };
  std::optional<Job> next_job(std::int64_t& wait_ns);
  std::optional<Job> next_scrub(std::int64_t& wait_ns);
  void run(Lock& lock, const Job& job);
  bool give_way(const Job& job) const {
    return stopped_ || barred_ || (job.scrub ? !scrub_.on || !requests_.empty() : cancelled_);
  }
  bool pace(Lock& lock, const Job& job);
  void feed(VerifyWalk& walk);
  void note_progress(const VerifyWalk& walk, const Job& job);
  void save_place(Lock& lock, const VerifyWalk& walk, const Job& job);
  void remember(Lock& lock, SetNumber set, VerifyMemo memo);
  void end_run(Lock& lock, const VerifyWalk& walk, const Job& job, bool whole);
  void report(Lock& lock);

  const Shared shared_;
  const NodeId peer_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopped_ = false, barred_ = false, cancelled_ = false, at_work_ = false, busy_ = false;
  bool whole_ = false, too_old_ = false;
  std::uint64_t session_ = 0, walked_session_ = 0;
  std::int64_t whole_since_ns_ = 0;  // steady
  ScrubSettings scrub_;
  std::deque<Job> requests_;
  // What came for the walk while it was at work.
  std::optional<Ack> ack_;
  std::deque<Differs> differs_;
  std::deque<FileId> moved_;
  SetNumber walking_set_ = 0;
  // What a rate leaves.
  std::int64_t tokens_ = 0, tokens_at_ns_ = 0;
  std::int64_t noted_at_ns_ = 0, saved_at_ns_ = 0;
  std::uint64_t resumed_bytes_ = 0;  // of this pass, in earlier lives
  VerifyStatus status_;
};

}  // namespace holdfast::mirror
