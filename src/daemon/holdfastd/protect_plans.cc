// SPDX-License-Identifier: Apache-2.0
// protect and unprotect as plans: a short, planned stop of the application around the change, and back to where it was on failure.
#include <algorithm>

#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "platform/systemd_units.h"

namespace holdfast::daemon {

using control::PlanSpec;
using control::StepContext;

namespace {

AppSupervisor::Say say_to(StepContext& step) {
  return [&step](std::string text) { step.say(std::move(text)); };
}

std::vector<apps::Resource> reversed(std::vector<apps::Resource> resources) {
  std::reverse(resources.begin(), resources.end());
  return resources;
}

// Outside protection: plain systemd, no flag file needed once the drop-in has gone.
Status start_units(const apps::Application& a, StepContext& step) {
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  for (const apps::Resource& r : a.resources) {
    step.say("starting " + r.unit);
    HF_TRY(systemd.start(r.unit, r.start_timeout_ms));
  }
  return {};
}

Result<ClusterConfig> with_application(ClusterConfig c, const ProtectOrder& order) {
  if (c.application(order.application.name) == nullptr) c.applications.push_back(order.application);
  for (SetConfig set : order.sets) {
    const bool there =
        std::any_of(c.sets.begin(), c.sets.end(), [&](const SetConfig& s) { return s.path == set.path; });
    if (there) continue;
    set.set = c.next_set++;
    c.sets.push_back(set);
  }
  return c;
}

Result<ClusterConfig> without_application(ClusterConfig c, const std::string& name) {
  std::erase_if(c.applications, [&](const apps::Application& a) { return a.name == name; });
  std::erase_if(c.sets, [&](const SetConfig& s) { return s.application == name; });
  return c;
}

// The change is recorded by a majority when this returns; then it is applied here. The peers apply it when they hear of it.
Status record_and_apply(Daemon& d, StepContext& step,
                        const std::function<Result<ClusterConfig>(ClusterConfig)>& change) {
  HF_TRY(d.propose_config(change));
  step.say("recorded; the mirror takes it");
  return d.settle_setup(step.timeout_ms());
}

}  // namespace

Result<std::string> PlanKeeper::protect(const ProtectOrder& order) {
  Daemon& d = daemon_;
  PlanSpec spec;
  spec.id = next_id("protect");
  spec.kind = "protect";
  spec.to = order.application.name;
  spec.actor = order.actor;
  spec.undo_with = "holdfast unprotect " + order.application.name;
  spec.values = {{"plan", "protect"}};
  const bool units = !order.application.resources.empty();
  const std::string name = order.application.name;
  if (units) {
    spec.steps.push_back({"stop " + name + " for a moment", "applications", 120'000,
                          [order](StepContext& s) {
                            return AppSupervisor::stop_units(reversed(order.application.resources), say_to(s));
                          },
                          [order](StepContext& s) { return start_units(order.application, s); }});
  }
  spec.steps.push_back(
      {"record and capture the folders", "mirror", 60'000,
       [&d, order](StepContext& s) {
         return record_and_apply(d, s, [&](ClusterConfig c) { return with_application(std::move(c), order); });
       },
       [&d, name](StepContext& s) {
         return record_and_apply(d, s, [&](ClusterConfig c) { return without_application(std::move(c), name); });
       }});
  if (units) {
    spec.steps.push_back({"start " + name, "applications", 120'000,
                          [&d](StepContext& s) { return d.apps().start(say_to(s), [&s] { return s.cancelled(); }); },
                          [order](StepContext& s) {
                            return AppSupervisor::stop_units(reversed(order.application.resources), say_to(s));
                          }});
  }
  std::string id = spec.id;
  HF_TRY(start_command(std::move(spec)));
  return id;
}

Result<std::string> PlanKeeper::unprotect(const std::string& actor, const apps::Application& a,
                                          const std::vector<SetConfig>& sets) {
  Daemon& d = daemon_;
  ProtectOrder back{actor, a, sets};
  PlanSpec spec;
  spec.id = next_id("unprotect");
  spec.kind = "unprotect";
  spec.to = a.name;
  spec.actor = actor;
  spec.values = {{"plan", "unprotect"}};
  const bool units = !a.resources.empty();
  if (units) {
    spec.steps.push_back({"stop " + a.name + " for a moment", "applications", 120'000,
                          [&d, a](StepContext& s) {
                            d.apps().leave_alone(a.name);
                            return AppSupervisor::stop_units(reversed(a.resources), say_to(s));
                          },
                          [&d](StepContext& s) { return d.apps().start(say_to(s), [&s] { return s.cancelled(); }); }});
  }
  spec.steps.push_back(
      {"record and end the capture", "mirror", 60'000,
       [&d, name = a.name](StepContext& s) {
         return record_and_apply(d, s, [&](ClusterConfig c) { return without_application(std::move(c), name); });
       },
       [&d, back](StepContext& s) {
         return record_and_apply(d, s, [&](ClusterConfig c) { return with_application(std::move(c), back); });
       }});
  if (units)
    spec.steps.push_back({"start " + a.name + " unprotected", "applications", 120'000,
                          [a](StepContext& s) { return start_units(a, s); }, nullptr});
  std::string id = spec.id;
  HF_TRY(start_command(std::move(spec)));
  return id;
}

}  // namespace holdfast::daemon
