// SPDX-License-Identifier: Apache-2.0
// The plan engine: a role change is a journalled list of step rows that providers contribute. It either completes or
// returns the cluster to where it was, and survives the death of the daemon at any instant.
//
//   state of the journal at a restart            | decision
//   final (done, reverted, halted)               | finished: nothing to do
//   epoch recorded, or the register says it is   | forward: redo from the first step that isn't done
//   epoch not recorded, register says no         | revert: undo in reverse all that began
//   epoch step was running, register is silent   | ask again, with back-off: guessing would be split-brain (I1)
//
// What must stay true: a step is journalled as running before its body runs, and as done before the next one starts.
// Bodies and undos are idempotent (after a crash they may run again), honour StepContext::cancelled(), and block only
// boundedly. Before the epoch a failed step reverts everything; after it steps are retried with bounded back-off until they
// succeed, an administrator skips one, or the step's own bound abandons the plan. A background step runs beside the following ones; its failure never reverts.
// If the journal itself can't be written the plan halts where it stands: the caller must fence (I7).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/model.h"

namespace holdfast::control {

enum class StepState { pending, running, done, failed, undoing, undone, skipped };
enum class PlanState { running, reverting, done, reverted, abandoned, halted };
const char* to_string(StepState state);
const char* to_string(PlanState state);

class PlanRunner;

// What a body sees. Valid during the call only; thread-safe.
class StepContext {
 public:
  const std::string& plan_id() const { return plan_id_; }
  bool resumed() const { return resumed_; }       // it had begun before a restart: look before you leap
  int attempt() const { return attempt_; }        // 1..
  int timeout_ms() const { return timeout_ms_; }  // what was left when the body began
  bool cancelled() const;                         // past the timeout, or stopping: return soon, with an error
  void say(std::string detail);                   // progress, shown in status
  // Values that later steps and a resumed plan need ("drained_to"); journalled together with the step's end.
  void set(const std::string& key, std::string value);
  std::string get(const std::string& key) const;  // empty if unset

 private:
  friend class PlanRunner;
  PlanRunner* runner_ = nullptr;
  std::size_t step_ = 0;
  std::string plan_id_;
  bool resumed_ = false;
  int attempt_ = 1;
  int timeout_ms_ = 0;
  std::int64_t deadline_ns_ = 0;  // steady clock
};

using StepBody = std::function<Status(StepContext&)>;

struct StepSpec {
  std::string name;   // "drain the send queue": shown to people
  std::string owner;  // mirror | network | applications | cluster
  int timeout_ms = 30'000;
  StepBody run;
  StepBody undo;  // null = nothing to take back
  bool background = false;
  bool records_epoch = false;  // exactly the step that makes the new epoch durable in a majority
  // After the epoch: so many failures end the plan as `abandoned` instead of retrying for ever, because somebody else can do
  // it better (a promotion that can't mount resigns). 0 = no bound. What follows is the caller's: see Changed.
  int most_attempts = 0;
};

struct PlanSpec {
  std::string id;    // make_plan_id()
  std::string kind;  // switchover | failover | ...
  std::string from;
  std::string to;
  std::string actor;
  std::string reason;
  std::string undo_with;                      // command that takes the finished plan back
  std::map<std::string, std::string> values;  // initial values, journalled: with these the daemon can rebuild the steps
  std::vector<StepSpec> steps;
  // Does the register (a majority) hold this plan's epoch? Asked when the outcome of the epoch step is not known. "No" must
  // be final: a proposal still under way may not be recorded afterwards. An error = can't be known now.
  // Needed when a step records an epoch.
  std::function<Result<bool>()> epoch_is_recorded;
};

// "switchover-20261125T174012-3f9a": sorts by time within a kind, unique, easy to say.
std::string make_plan_id(const std::string& kind, std::int64_t wall_ms);

// What the journal says of one plan; the same that status shows, and the values.
struct PlanRecord {
  PlanStatus status;
  std::map<std::string, std::string> values;
  PlanState state() const;  // from status.state
  bool is_final() const;
};

class PlanJournal {
 public:
  virtual ~PlanJournal() = default;
  virtual Status write(const PlanRecord& record) = 0;  // durable when it returns
  virtual Result<PlanRecord> read(const std::string& id) const = 0;
  virtual Result<std::vector<PlanRecord>> list() const = 0;  // oldest first; damaged files are reported, not skipped
  virtual Status prune(std::size_t keep) = 0;                // oldest final ones go
};

// DIR/<id>.json, written aside, synced, renamed, folder synced.
std::unique_ptr<PlanJournal> open_plan_journal(std::string dir);

enum class ResumeDecision { finished, forward, revert, ask_again };
const char* to_string(ResumeDecision decision);
// The table above. `epoch` is what the register says: nullopt = silent.
ResumeDecision decide_resume(const PlanRecord& record, std::optional<bool> epoch);

struct PlanTiming {
  int first_retry_ms = 200;
  int longest_retry_ms = 5'000;
  std::function<std::int64_t()> wall_ms;  // default: system clock
};

// Runs one plan in threads of its own. start() or resume() once.
class PlanRunner {
 public:
  using Changed = std::function<void(const PlanStatus&)>;  // after each change; from the plan's threads, no locks held

  PlanRunner(PlanSpec spec, PlanJournal& journal, PlanTiming timing = {}, Changed changed = {});
  ~PlanRunner();  // stop() and join; the journal keeps the plan for a resume

  Status start();                    // journals the plan, then runs it
  Status resume(PlanRecord record);  // steps are matched by name: a spec with other steps is refused
  void stop();                       // ask bodies to return; no undo (the process goes down, not the plan)
  // An administrator gives up on the step that is being retried (run or undo). `actor` is noted in its detail.
  Status skip(const std::string& step_name, const std::string& actor);

  PlanStatus status() const;  // seconds of running steps are live
  PlanState wait() const;     // until final or stopped
  bool finished() const;

 private:
  friend class StepContext;
  struct Shared;
  void launch(void (PlanRunner::*drive)());
  void drive_forward();
  void drive_revert();
  void revert();
  bool run_step(std::size_t i);
  bool settle_epoch(std::size_t i);
  void run_background(std::size_t i);
  bool undo_step(std::size_t i);
  Status call(std::size_t i, const StepBody& body, bool resumed);
  bool back_off(std::size_t i, int failures);
  bool change(const std::function<void(PlanRecord&)>& edit);
  void finish(PlanState state);
  void halt(const Error& error);
  std::unique_ptr<Shared> s_;
};

}  // namespace holdfast::control
