// SPDX-License-Identifier: Apache-2.0
// A daemon made of plain values: answers what the test put there, and notes what it was asked.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "control/handlers.h"

namespace holdfast::control {

class FakeHandlers : public Handlers {
 public:
  // Set before the server starts, or under `mutex`.
  std::mutex mutex;
  ClusterStatus cluster;
  std::vector<PlanStatus> plan_stages;  // plan() answers one after the other, then the last again
  std::size_t plan_asked = 0;
  EventPage page;
  ConfigReply settings;
  Accepted accepted;
  std::optional<Error> refusal;    // every mutation answers this when set
  std::vector<std::string> calls;  // "make_active alice n2"
  std::vector<EventDraft> recorded;

  Result<ClusterStatus> status() override {
    const std::lock_guard lock(mutex);
    return cluster;
  }
  Result<EventPage> events(const EventCursor& since, std::size_t, int) override {
    const std::lock_guard lock(mutex);
    EventPage out = page;
    std::erase_if(out.events, [&](const Event& e) { return since.contains(e.node) && e.counter <= since.at(e.node); });
    return out;
  }
  Result<ConfigReply> config() override {
    const std::lock_guard lock(mutex);
    return settings;
  }
  Result<std::vector<PlanStatus>> plans(std::size_t limit) override {
    calls.push_back("plans " + std::to_string(limit));
    return plan_stages;
  }
  Result<PlanStatus> plan(const std::string& id) override {
    const std::lock_guard lock(mutex);
    if (plan_stages.empty()) return fail(ErrorCode::not_found, "there is no plan {}", id);
    return plan_stages[std::min(plan_asked++, plan_stages.size() - 1)];
  }
  Result<JoinAsksReply> join_asks(const Caller&, const JoinAsksRequest&) override { return JoinAsksReply{}; }
  Result<InitReply> init(const Caller& c, const InitRequest& r) override {
    HF_TRY(note("init", c,
                r.name + " " + r.node + " " + r.site + " " + r.mode + " " + joined(r.channel) + " " +
                    joined(r.public_addresses)));
    return InitReply{"00000000000000c1", "00000000000000a1", {}};
  }
  Result<TokenReply> token(const Caller& c, const TokenRequest& r) override {
    HF_TRY(note("token", c, r.kind + " " + std::to_string(r.ttl_s)));
    return TokenReply{"hf1-SECRET", 1'764'092'700'000, "holdfast join 10.0.0.1 --token hf1-SECRET"};
  }
  Result<JoinReply> join(const Caller& c, const JoinRequest& r) override {
    HF_TRY(note("join", c, r.address + " " + r.token + " " + r.node + " " + joined(r.channel)));
    return JoinReply{"erp", "00000000000000c1", "00000000000000b2", "secondary"};
  }
  Result<AdmitReply> admit(const Caller& c, const AdmitRequest& r) override {
    HF_TRY(note("admit", c, r.node));
    return AdmitReply{};
  }
  Result<RenewReply> renew(const Caller& c, const RenewRequest&) override {
    HF_TRY(note("renew", c, c.peer_node_id));
    return RenewReply{"PEM"};
  }
  Result<ProtectReply> protect(const Caller& c, const ProtectRequest& r) override {
    HF_TRY(note("protect", c, r.what + " " + r.application + " " + r.write_policy));
    return ProtectReply{"postgresql", {"/var/lib/postgresql/15/main"}, {}, accepted.plan};
  }
  Result<Accepted> unprotect(const Caller& c, const UnprotectRequest& r) override {
    return accept("unprotect", c, r.what);
  }
  Result<Accepted> make_active(const Caller& c, const MakeActiveRequest& r) override {
    return accept("make_active", c, r.node);
  }
  Result<Accepted> failover(const Caller& c, const FailoverRequest& r) override {
    return accept("failover", c, r.node + (r.force ? " force" : "") + (r.to.empty() ? "" : " to " + r.to));
  }
  Result<Accepted> member_change(const Caller& c, const MemberChangeRequest& r) override {
    return accept("member_change", c, r.name + " " + r.new_name + " " + std::to_string(r.channel.size()));
  }
  Result<Accepted> member_remove(const Caller& c, const MemberRemoveRequest& r) override {
    return accept("member_remove", c, r.name);
  }
  Result<Accepted> release(const Caller& c, const ReleaseRequest& r) override { return accept("release", c, r.node); }
  Result<Accepted> skip_step(const Caller& c, const SkipStepRequest& r) override {
    return accept("skip_step", c, r.step);
  }
  Result<Accepted> config_set(const Caller& c, const ConfigSetRequest& r) override {
    return accept("config_set", c, r.key + "=" + r.value);
  }
  Timeline past;
  RollbackReply going_back;
  ShadowReply shadow;
  VerifyStatus verification;
  LooksReply views;
  Result<Timeline> timeline(const TimelineRequest& r) override {
    const std::lock_guard lock(mutex);
    calls.push_back("timeline " + r.from + " " + r.to + " " + r.node + " " + std::to_string(r.points));
    return past;
  }
  Result<LooksReply> looks() override { return views; }
  Result<VerifyStatus> verify_status() override {
    const std::lock_guard lock(mutex);
    return verification;
  }
  Result<ShadowReply> shadow_create(const Caller& c, const ShadowRequest& r) override {
    HF_TRY(note("shadow_create", c, r.name + (r.keep ? " keep" : "") + (r.quiesce ? "" : " no quiesce")));
    return shadow;
  }
  Result<Accepted> shadow_keep(const Caller& c, const ShadowChange& r) override {
    return accept("shadow_keep", c, r.name + " " + r.node + (r.keep ? "" : " no"));
  }
  Result<Accepted> shadow_delete(const Caller& c, const ShadowChange& r) override {
    return accept("shadow_delete", c, r.name + " " + r.node);
  }
  Result<RollbackReply> rollback(const Caller& c, const RollbackRequest& r) override {
    HF_TRY(note("rollback", c, r.to + " " + r.node + " " + std::to_string(r.batch) + (r.dry_run ? " dry" : "")));
    RollbackReply reply = going_back;
    if (r.dry_run) reply.plan.clear();
    return reply;
  }
  Result<LookStatus> look(const Caller& c, const LookRequest& r) override {
    HF_TRY(note("look", c,
                r.at + " " + r.node + " " + r.dir + (r.writable ? " writable " + std::to_string(r.scratch_mib) : "")));
    return LookStatus{r.node.empty() ? "n1" : r.node,         r.dir, 7, 1'764'092'700'000, r.writable, 0,
                      r.writable ? std::uint64_t{1} << 30 : 0};
  }
  Result<Accepted> look_end(const Caller& c, const LookEndRequest& r) override {
    return accept("look_end", c, r.node + " " + r.dir);
  }
  Result<Accepted> verify(const Caller& c, const VerifyRequest& r) override {
    return accept("verify", c,
                  r.mode + " " + std::to_string(r.rate_mib_s) + (r.repair ? "" : " no repair") +
                      (r.trust_active ? " trust" : ""));
  }
  Result<Accepted> verify_stop(const Caller& c) override { return accept("verify_stop", c, ""); }
  void record(const EventDraft& event) override {
    const std::lock_guard lock(mutex);
    recorded.push_back(event);
  }

 protected:
  static std::string joined(const std::vector<std::string>& list) {
    std::string out;
    for (const std::string& item : list) out += (out.empty() ? "" : ",") + item;
    return out;
  }
  Status note(const std::string& what, const Caller& caller, const std::string& detail) {
    const std::lock_guard lock(mutex);
    calls.push_back(what + " " + caller.actor + " " + detail);
    if (refusal) return tl::unexpected(*refusal);
    return {};
  }
  Result<Accepted> accept(const std::string& what, const Caller& caller, const std::string& detail) {
    HF_TRY(note(what, caller, detail));
    return accepted;
  }
};

}  // namespace holdfast::control
