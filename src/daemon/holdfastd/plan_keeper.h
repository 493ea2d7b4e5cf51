// SPDX-License-Identifier: Apache-2.0
// The plans of this node: what a promotion, a switchover, protect and unprotect consist of, and which one runs.
// Two may run side by side: `role` (what this node does because it won an epoch; nobody can refuse it) and `command`
// (what an administrator or a rule asked for). Bodies run in the plan's own threads.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "apps/application.h"
#include "control/plan.h"
#include "daemon/holdfastd/cluster_config.h"
#include "daemon/holdfastd/mirror_port.h"
#include "daemon/holdfastd/rollback_order.h"
#include "daemon/holdfastd/worker.h"

namespace holdfast::daemon {

class Daemon;

struct SwitchoverOrder {
  std::string id;
  NodeId target;
  std::string target_name;
  std::string self_name;
  std::string actor;
  std::string reason;
  Epoch epoch;                        // that ends
  std::optional<RollbackOrder> back;  // the successor goes back: a rollback
};

struct PromotionOrder {
  Epoch epoch;
  std::string kind, id, from, actor, reason;
  bool older = false;                 // with its last consistent point, by force
  std::optional<RollbackOrder> back;  // goes back before it captures
  bool confirm = false;               // clients are let in when the applications are healthy, and not before
};

// A rollback's point among the values of a plan's journal.
void to_values(const RollbackOrder& back, std::map<std::string, std::string>& values);
std::optional<RollbackOrder> rollback_from_values(const std::map<std::string, std::string>& values);

struct ProtectOrder {
  std::string actor;
  apps::Application application;  // without resources: data only
  std::vector<SetConfig> sets;    // numbers are given when it is recorded
};

class PlanKeeper {
 public:
  explicit PlanKeeper(Daemon& daemon);
  ~PlanKeeper();
  void open(const std::string& dir);  // the journal; once, when this node is a member

  // These three return at once: the journal waits for the disk, the loop must not. They take effect in the order of the calls.
  // Loop thread. This node has won an epoch.
  void promote(const PromotionOrder& order);
  // Loop thread. The lease survived a restart of the daemon: what ran goes on.
  void resume_in_office(Epoch epoch);
  // Any thread. The office is lost: its plan has no meaning any more.
  void abandon_role_plan(const std::string& reason);

  // Any other thread. The plan's id, or why not; nothing was changed then.
  Result<std::string> switchover(SwitchoverOrder order);
  Result<std::string> rollback(const SwitchoverOrder& order);
  Result<std::string> protect(const ProtectOrder& order);
  Result<std::string> unprotect(const std::string& actor, const apps::Application& application,
                                const std::vector<SetConfig>& sets);

  std::optional<control::PlanStatus> running() const;
  Result<control::PlanStatus> find(const std::string& id) const;  // empty = running or newest
  Result<std::vector<control::PlanStatus>> history() const;  // of this node, oldest first, running ones as they are now
  // Off the loop: this node follows another's epoch, so what its journal has open of an earlier life is that other's to finish.
  void close_what_a_restart_cut_off(const std::string& active);
  Status skip(const std::string& id, const std::string& step, const std::string& actor);
  bool role_plan_running() const;
  std::string next_id(const std::string& kind) const;
  void stop();  // the process ends: plans stop where they are and resume later

 private:
  using Runner = std::shared_ptr<control::PlanRunner>;
  control::PlanSpec promotion_spec(const PromotionOrder& order);
  control::PlanSpec switchover_spec(const SwitchoverOrder& order);
  control::PlanSpec rollback_spec(const SwitchoverOrder& order);
  // `leaves_unhealthy`: may take the place of a promotion that waits, again and again, for an application to become healthy.
  Status start_command(control::PlanSpec spec, bool leaves_unhealthy = false);
  void wait_for_activation() const;
  void start_role(control::PlanSpec spec);
  void end_role(const std::string& reason);
  void resume_open_plan(Epoch epoch);
  void close_old_plans(const std::string& why, const std::string& except);
  void changed(const control::PlanStatus& status);
  Runner make_runner(control::PlanSpec spec);

  Daemon& daemon_;
  std::unique_ptr<control::PlanJournal> journal_;
  mutable std::mutex mutex_;
  Runner role_, command_;
  std::string last_line_;
  std::atomic<int> role_starting_{0};
  std::unique_ptr<Worker> starter_;
};

// Waits for the mirror's answer, but not past the step's cancellation, nor when `give_up` (may be null) says so.
Result<nlohmann::json> call_mirror_in_step(MirrorPort& mirror, const control::StepContext& step, const std::string& op,
                                           nlohmann::json arguments, const std::function<bool()>& give_up = {});

}  // namespace holdfast::daemon
