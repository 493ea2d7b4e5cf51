// SPDX-License-Identifier: Apache-2.0
// The applications of this node: started and stopped by plans only, probed while they run, restarted in place when their
// health says so. Units start nowhere but on the active: a drop-in needs a flag file that only start() makes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "apps/application.h"
#include "apps/health.h"
#include "apps/plugins.h"
#include "control/model.h"
#include "platform/postgresql_probe.h"

namespace holdfast::daemon {

class AppSupervisor {
 public:
  struct Events {  // from the supervisor's thread
    std::function<void(const std::string& severity, const std::string& text)> event;
    std::function<void(const std::string& application, const std::string& reason)> switchover_wanted;
  };
  using Say = std::function<void(std::string)>;
  using Cancelled = std::function<bool()>;

  AppSupervisor(std::string node, Events events);
  ~AppSupervisor();

  void set_node(std::string node);  // before anything is configured
  // Units that are new get the drop-in, units that went lose it.
  Status configure(const std::vector<apps::Application>& applications);
  // On a node that is not the active: whatever of them runs is stopped; killed if it ran under protection.
  Status rest(const std::vector<apps::Application>& applications);

  Status start(const Say& say, const Cancelled& cancelled);  // all, in order; the first failure ends it
  Status stop(const Say& say, const Cancelled& cancelled);   // in reverse; what does not stop in time is killed
  Status kill();                                             // at once, until the control groups are empty
  Result<bool> all_gone();                                   // no process of theirs is left
  void adopt_running();                                      // after a restart of the daemon on the active

  // Waits until every application has answered its probe once: it is healthy as its files are now. `timeout` says which one is not.
  Status confirm(const Say& say, const Cancelled& cancelled);
  // Brings their files in order, where their plug-ins can. False: of one of them only what a power cut would leave is in them.
  Result<bool> quiesce(int timeout_ms);

  // Its units are stopped on purpose: their absence is no failure.
  void leave_alone(const std::string& name);

  // One application, around a change of what protects it.
  static Status stop_units(const std::vector<apps::Resource>& resources, const Say& say);

  bool running() const { return running_; }
  std::vector<control::ApplicationStatus> status() const;
  std::vector<control::Alert> alerts() const;

 private:
  struct Watched {
    apps::Application application;
    apps::Health health;
    std::int64_t next_check_ms = 0;
    std::string detail;
    std::vector<control::ResourceStatus> resources;
    std::vector<std::string> warnings;
  };
  struct Outcome {
    bool ok = false;
    bool gone = false;  // a unit of it does not run
    std::string reason;
    std::vector<control::ResourceStatus> resources;
    std::vector<std::string> warnings;
  };
  void run();
  Outcome check(const apps::Application& application) const;
  platform::PostgresqlProbe probe_of(const apps::PostgresqlInstance& instance, int timeout_ms) const;
  void take(const std::string& name, const Outcome& outcome);
  void act(const std::string& name, const std::vector<apps::HealthAction>& actions);
  void restart(const std::string& name);
  void tell_all(apps::HealthInput::Kind kind);
  std::vector<apps::Application> list() const;

  std::string node_;
  const Events events_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Watched> apps_;
  std::vector<std::string> order_;
  std::atomic<bool> running_{false};
  std::string activity_;  // starting | stopping | ""
  bool stopping_ = false;
  std::thread thread_;
};

// What the plug-ins need to know of this host.
apps::HostFacts host_facts();
std::string host_facts_text();  // for a peer
Result<apps::HostFacts> host_facts_from_text(const std::string& text);

}  // namespace holdfast::daemon
