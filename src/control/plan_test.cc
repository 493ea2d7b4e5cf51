// SPDX-License-Identifier: Apache-2.0
#include "control/plan.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "control/testing/temporary_folder.h"

namespace holdfast::control {
namespace {

using Names = std::vector<std::string>;
const Names step_names{"stop", "drain", "hide", "epoch", "capture", "start"};
constexpr std::size_t epoch_at = 3;

// What the steps change, outside of any process: survives the "crashes".
struct World {
  std::mutex mutex;
  std::set<std::string> in_force;
  Names log;
  bool epoch = false;
  std::map<std::string, int> fail_run, fail_undo;  // how many times yet
  bool register_silent = false;

  Status run(const std::string& name) {
    const std::lock_guard lock(mutex);
    log.push_back(name);
    if (fail_run[name] > 0) {
      --fail_run[name];
      return fail(ErrorCode::unavailable, "{} does not work", name);
    }
    in_force.insert(name);
    if (name == "epoch") epoch = true;
    return {};
  }
  Status undo(const std::string& name) {
    const std::lock_guard lock(mutex);
    log.push_back("-" + name);
    if (fail_undo[name] > 0) {
      --fail_undo[name];
      return fail(ErrorCode::unavailable, "undo of {} does not work", name);
    }
    in_force.erase(name);
    return {};
  }
};

// Keeps the records; "crashes" at the n-th write, before or after it reaches the disk.
class CrashingJournal final : public PlanJournal {
 public:
  int writes_left = 1'000'000;
  bool reaches_disk = false;
  std::map<std::string, PlanRecord> disk;

  Status write(const PlanRecord& record) override {
    const std::lock_guard lock(mutex_);
    if (writes_left-- <= 0) {
      if (reaches_disk && writes_left == -1) disk[record.status.id] = record;
      return fail(ErrorCode::io, "power is gone");
    }
    disk[record.status.id] = record;
    return {};
  }
  Result<PlanRecord> read(const std::string& id) const override { return disk.at(id); }
  Result<std::vector<PlanRecord>> list() const override { return std::vector<PlanRecord>{}; }
  Status prune(std::size_t) override { return {}; }

 private:
  std::mutex mutex_;
};

PlanSpec spec_of(World& world) {
  PlanSpec spec;
  spec.id = "switchover-1";
  spec.kind = "switchover";
  spec.from = "n1", spec.to = "n2", spec.actor = "alice";
  for (const std::string& name : step_names)
    spec.steps.push_back({name, "mirror", 5000, [&world, name](StepContext&) { return world.run(name); },
                          [&world, name](StepContext&) { return world.undo(name); }, false, name == "epoch"});
  spec.epoch_is_recorded = [&world]() -> Result<bool> {
    const std::lock_guard lock(world.mutex);
    if (world.register_silent) return fail(ErrorCode::unavailable, "no majority");
    return world.epoch;
  };
  return spec;
}

const PlanTiming quick{.first_retry_ms = 1, .longest_retry_ms = 4};

Names states(const PlanStatus& status) {
  Names out;
  for (const PlanStepStatus& s : status.steps) out.push_back(s.state);
  return out;
}

void wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 10'000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_TRUE(condition());
}

TEST(Plan, RunsItsStepsInOrder) {
  World world;
  CrashingJournal journal;
  std::atomic<int> changes{0};
  PlanRunner runner(spec_of(world), journal, quick, [&](const PlanStatus&) { ++changes; });
  ASSERT_TRUE(runner.start());
  EXPECT_EQ(runner.wait(), PlanState::done);
  EXPECT_EQ(world.log, step_names);
  EXPECT_EQ(states(runner.status()), Names(6, "done"));
  EXPECT_TRUE(runner.status().epoch_recorded);
  EXPECT_GE(changes, 12);
  EXPECT_TRUE(journal.disk.at("switchover-1").is_final());
}

TEST(Plan, BeforeTheEpochAFailureReverts) {
  for (std::size_t bad = 0; bad <= epoch_at; ++bad) {
    World world;
    world.fail_run[step_names[bad]] = 1;
    world.fail_undo[step_names[0]] = 3;  // undo is tried until it works
    CrashingJournal journal;
    PlanRunner runner(spec_of(world), journal, quick);
    ASSERT_TRUE(runner.start());
    EXPECT_EQ(runner.wait(), PlanState::reverted);
    EXPECT_TRUE(world.in_force.empty());
    EXPECT_NE(runner.status().error.find(step_names[bad] + " does not work"), std::string::npos);
    Names order;
    for (std::size_t i = 0; i <= bad; ++i) order.push_back(step_names[i]);
    for (std::size_t i = bad + 1; i-- > 0;) order.push_back("-" + step_names[i]);
    for (int i = 0; i < 3; ++i) order.push_back("-stop");
    EXPECT_EQ(world.log, order);
  }
}

TEST(Plan, AfterTheEpochOnlyForward) {
  World world;
  world.fail_run["capture"] = 5;
  CrashingJournal journal;
  PlanRunner runner(spec_of(world), journal, quick);
  ASSERT_TRUE(runner.start());
  EXPECT_EQ(runner.wait(), PlanState::done);
  EXPECT_EQ(runner.status().steps[4].attempts, 6);
  EXPECT_EQ(runner.status().error, "");
  for (const std::string& entry : world.log) EXPECT_NE(entry[0], '-');
}

TEST(Plan, AStepWithABoundAbandonsThePlanAndIsNotResumed) {
  World world;
  world.fail_run["capture"] = 1'000'000;
  PlanSpec spec = spec_of(world);
  spec.steps[4].most_attempts = 3;
  CrashingJournal journal;
  std::atomic<bool> told{false};
  PlanRunner runner(std::move(spec), journal, quick,
                    [&](const PlanStatus& s) { told = told || s.state == "abandoned"; });
  ASSERT_TRUE(runner.start());
  EXPECT_EQ(runner.wait(), PlanState::abandoned);
  EXPECT_TRUE(told);
  EXPECT_EQ(runner.status().steps[4].attempts, 3);
  EXPECT_EQ(runner.status().error, "capture: capture does not work");
  EXPECT_EQ(states(runner.status()), (Names{"done", "done", "done", "done", "failed", "pending"}));
  EXPECT_EQ(decide_resume(journal.disk.at("switchover-1"), true), ResumeDecision::finished);
}

TEST(Plan, AdministratorMaySkipWhatIsRetriedAndNothingElse) {
  World world;
  world.fail_run["start"] = 1'000'000;
  CrashingJournal journal;
  PlanRunner runner(spec_of(world), journal, quick);
  ASSERT_TRUE(runner.start());
  wait_for([&] { return runner.status().steps[5].attempts > 2; });
  EXPECT_EQ(runner.skip("drain", "alice").error().code, ErrorCode::refused);
  EXPECT_EQ(runner.skip("nonsense", "alice").error().code, ErrorCode::not_found);
  EXPECT_TRUE(runner.skip("start", "alice"));
  EXPECT_EQ(runner.wait(), PlanState::done);
  EXPECT_EQ(runner.status().steps[5].state, "skipped");
}

TEST(Plan, AnEpochStepThatFailsButWasRecordedGoesOn) {
  World world;
  PlanSpec spec = spec_of(world);
  spec.steps[epoch_at].run = [&](StepContext&) -> Status {
    EXPECT_TRUE(world.run("epoch"));
    const std::lock_guard lock(world.mutex);
    world.register_silent = true;
    return fail(ErrorCode::timeout, "no answer");  // recorded, but the answer got lost
  };
  CrashingJournal journal;
  PlanRunner runner(std::move(spec), journal, quick);
  ASSERT_TRUE(runner.start());
  wait_for([&] { return runner.status().steps[epoch_at].detail.find("can't tell") != std::string::npos; });
  EXPECT_FALSE(runner.finished()) << "a silent register is waited for, not guessed around";
  {
    const std::lock_guard lock(world.mutex);
    world.register_silent = false;
  }
  EXPECT_EQ(runner.wait(), PlanState::done);
}

TEST(Plan, BackgroundStepsRunBesideAndNeverRevert) {
  World world;
  PlanSpec spec = spec_of(world);
  std::atomic<bool> release{false};
  spec.steps.insert(spec.steps.begin() + 4, {"dns", "network", 60'000,
                                             [&](StepContext& c) -> Status {
                                               while (!release && !c.cancelled()) std::this_thread::yield();
                                               return world.run("dns");
                                             },
                                             nullptr, true, false});
  CrashingJournal journal;
  PlanRunner runner(std::move(spec), journal, quick);
  ASSERT_TRUE(runner.start());
  wait_for([&] { return runner.status().steps[6].state == "done"; });
  EXPECT_EQ(runner.status().steps[4].state, "running");
  EXPECT_FALSE(runner.finished()) << "done means all of it";
  release = true;
  EXPECT_EQ(runner.wait(), PlanState::done);

  World failing;
  PlanSpec second = spec_of(failing);
  second.steps.insert(
      second.steps.begin() + 4,
      {"dns", "network", 10, [](StepContext&) -> Status { return fail(ErrorCode::io, "no"); }, nullptr, true, false});
  PlanRunner other(std::move(second), journal, quick);
  ASSERT_TRUE(other.start());
  EXPECT_EQ(other.wait(), PlanState::done);
  EXPECT_EQ(other.status().steps[4].state, "failed");
}

TEST(Plan, BodiesSeeTheirTimeout) {
  World world;
  PlanSpec spec = spec_of(world);
  spec.steps[1].timeout_ms = 5;
  spec.steps[1].run = [](StepContext& c) -> Status {
    EXPECT_EQ(c.timeout_ms(), 5);
    while (!c.cancelled()) std::this_thread::yield();
    return fail(ErrorCode::busy, "17 MiB left");
  };
  CrashingJournal journal;
  PlanRunner runner(std::move(spec), journal, quick);
  ASSERT_TRUE(runner.start());
  EXPECT_EQ(runner.wait(), PlanState::reverted);
  EXPECT_EQ(runner.status().error, "drain: not finished within 0.0 s: 17 MiB left");
}

// The heart of it: the journal stops at every write, before or after reaching the disk; each time the plan is resumed from
// what the disk says, and must end with everything in force or nothing, on the right side of the epoch.
TEST(Plan, CrashAtEveryWriteThenResume) {
  int completed = 0, reverted = 0, crashes = 0;
  for (const bool reaches_disk : {false, true}) {
    for (const std::string& failing : {std::string(), std::string("hide")}) {
      for (int at = 0;; ++at) {
        World world;
        if (!failing.empty()) world.fail_run[failing] = 1;
        CrashingJournal journal;
        journal.writes_left = at;
        journal.reaches_disk = reaches_disk;
        PlanState state;
        {
          PlanRunner first(spec_of(world), journal, quick);
          if (!first.start()) {  // nothing was journalled that counts, or the very first record: nothing has happened
            EXPECT_TRUE(world.log.empty());
            continue;
          }
          state = first.wait();
        }
        if (state != PlanState::halted) {
          EXPECT_GT(at, 10);
          break;
        }
        ++crashes;
        journal.writes_left = 1'000'000;
        const bool epoch_then = world.epoch;
        PlanRunner second(spec_of(world), journal, quick);
        ASSERT_TRUE(second.resume(journal.disk.at("switchover-1")));
        second.wait();
        const PlanState end = journal.disk.at("switchover-1").state();
        if (epoch_then) {
          EXPECT_EQ(end, PlanState::done) << at;
          EXPECT_EQ(world.in_force.size(), step_names.size()) << at;
          ++completed;
        } else {
          EXPECT_EQ(end, PlanState::reverted) << at;
          EXPECT_TRUE(world.in_force.empty()) << at;
          ++reverted;
        }
        EXPECT_EQ(std::count(world.log.begin(), world.log.end(), "epoch"), world.epoch ? 1 : 0)
            << "never proposed twice";
      }
    }
  }
  EXPECT_GT(completed, 5);
  EXPECT_GT(reverted, 20);
  EXPECT_EQ(completed + reverted, crashes);
}

TEST(Plan, CrashDuringTheRevertGoesOnReverting) {
  int crashes = 0;
  for (int at = 4;; ++at) {
    World world;
    world.fail_run["hide"] = 1;
    CrashingJournal journal;
    journal.writes_left = at;
    {
      PlanRunner first(spec_of(world), journal, quick);
      ASSERT_TRUE(first.start());
      if (first.wait() != PlanState::halted) break;
    }
    ++crashes;
    journal.writes_left = 1'000'000;
    PlanRunner second(spec_of(world), journal, quick);
    ASSERT_TRUE(second.resume(journal.disk.at("switchover-1")));
    second.wait();
    EXPECT_TRUE(world.in_force.empty()) << at;
    EXPECT_EQ(journal.disk.at("switchover-1").state(), PlanState::reverted) << at;
  }
  EXPECT_GT(crashes, 6);
}

TEST(Plan, ResumeWaitsForASilentRegister) {
  World world;
  CrashingJournal journal;
  journal.writes_left = 8;  // start, three steps twice, "epoch" running; then power is gone
  {
    PlanRunner first(spec_of(world), journal, quick);
    ASSERT_TRUE(first.start());
    ASSERT_EQ(first.wait(), PlanState::halted);
  }
  ASSERT_EQ(journal.disk.at("switchover-1").status.steps[epoch_at].state, "running");
  ASSERT_TRUE(world.epoch);
  journal.writes_left = 1'000'000;
  world.register_silent = true;
  EXPECT_EQ(decide_resume(journal.disk.at("switchover-1"), std::nullopt), ResumeDecision::ask_again);
  PlanRunner second(spec_of(world), journal, quick);
  ASSERT_TRUE(second.resume(journal.disk.at("switchover-1")));
  wait_for([&] { return second.status().steps[epoch_at].detail.find("can't tell") != std::string::npos; });
  EXPECT_FALSE(second.finished());
  {
    const std::lock_guard lock(world.mutex);
    world.register_silent = false;
  }
  EXPECT_EQ(second.wait(), PlanState::done);
}

TEST(Plan, StopLeavesTheRestToTheResume) {
  World world;
  PlanSpec spec = spec_of(world);
  std::atomic<bool> inside{false};
  spec.steps[4].run = [&](StepContext& c) -> Status {
    c.set("mounted", "no");
    inside = true;
    while (!c.cancelled()) std::this_thread::yield();
    return fail(ErrorCode::unavailable, "going down");
  };
  CrashingJournal journal;
  {
    PlanRunner first(std::move(spec), journal, quick);
    ASSERT_TRUE(first.start());
    wait_for([&] { return inside.load(); });
    first.stop();
  }
  const PlanRecord left = journal.disk.at("switchover-1");
  EXPECT_EQ(left.status.state, "running");
  EXPECT_EQ(states(left.status), (Names{"done", "done", "done", "done", "running", "pending"}));
  bool resumed = false;
  PlanSpec again = spec_of(world);
  again.steps[4].run = [&](StepContext& c) {
    resumed = c.resumed();
    return world.run("capture");
  };
  PlanRunner second(std::move(again), journal, quick);
  ASSERT_TRUE(second.resume(left));
  EXPECT_EQ(second.wait(), PlanState::done);
  EXPECT_TRUE(resumed);
}

TEST(Plan, ResumeWithOtherStepsIsRefused) {
  World world;
  CrashingJournal journal;
  journal.writes_left = 3;
  {
    PlanRunner first(spec_of(world), journal, quick);
    ASSERT_TRUE(first.start());
    first.wait();
  }
  PlanSpec other = spec_of(world);
  other.steps[2].name = "renamed";
  PlanRunner second(std::move(other), journal, quick);
  EXPECT_EQ(second.resume(journal.disk.at("switchover-1")).error().code, ErrorCode::corrupt);
}

TEST(PlanDecision, Table) {
  const auto record = [](const char* state, const char* epoch_step, bool recorded) {
    PlanRecord r;
    r.status.state = state;
    r.status.epoch_recorded = recorded;
    r.status.steps.push_back({"epoch", "cluster", epoch_step});
    r.values["epoch_step"] = "epoch";
    return r;
  };
  using D = ResumeDecision;
  EXPECT_EQ(decide_resume(record("done", "done", true), true), D::finished);
  EXPECT_EQ(decide_resume(record("reverted", "undone", false), false), D::finished);
  EXPECT_EQ(decide_resume(record("halted", "running", false), false), D::finished);
  EXPECT_EQ(decide_resume(record("running", "done", true), std::nullopt), D::forward);
  EXPECT_EQ(decide_resume(record("running", "running", false), true), D::forward);
  EXPECT_EQ(decide_resume(record("running", "running", false), false), D::revert);
  EXPECT_EQ(decide_resume(record("running", "running", false), std::nullopt), D::ask_again);
  EXPECT_EQ(decide_resume(record("running", "pending", false), std::nullopt), D::revert);
  EXPECT_EQ(decide_resume(record("reverting", "failed", false), true), D::revert)
      << "the undo itself may have won a later epoch";
}

TEST(PlanJournalFolder, WritesReadsListsPrunes) {
  const TemporaryFolder tmp;
  const auto journal = open_plan_journal(tmp / "plans");
  EXPECT_TRUE(journal->list()->empty());
  for (int i = 0; i < 5; ++i) {
    PlanRecord r;
    r.status.id = fmt::format("switchover-{}", i);
    r.status.state = i == 0 ? "running" : "done";
    r.status.started_ms = 1'795'000'000'000 + i;
    r.status.steps.push_back({"drain", "mirror", "done", 1.5, 30, 1, false, "ok"});
    r.values["to"] = "n2";
    ASSERT_TRUE(journal->write(r));
  }
  const PlanRecord back = journal->read("switchover-3").value();
  EXPECT_EQ(back.values.at("to"), "n2");
  EXPECT_EQ(back.status.steps[0].seconds, 1.5);
  EXPECT_EQ(back.status.started_ms, 1'795'000'000'003);
  EXPECT_EQ(journal->read("../../etc/passwd").error().code, ErrorCode::not_found);
  EXPECT_EQ(journal->read("none").error().code, ErrorCode::not_found);
  ASSERT_TRUE(journal->prune(2));
  const auto left = journal->list().value();
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].status.id, "switchover-0") << "an unfinished one is never pruned";
  EXPECT_EQ(left[1].status.id, "switchover-4");
  std::ofstream(tmp / "plans/switchover-4.json") << "{\"version\":1,";
  EXPECT_EQ(journal->list().error().code, ErrorCode::corrupt) << "damage is said, not skipped";
}

TEST(PlanId, IsASafeName) {
  const std::string id = make_plan_id("switchover", 1'764'092'412'000);
  EXPECT_TRUE(id.starts_with("switchover-20251125T174012-")) << id;
}

}  // namespace
}  // namespace holdfast::control
