// SPDX-License-Identifier: Apache-2.0
// What /v1 and the peers ask of this node. Each check of bad input answers one line that says what to do, before anything was
// changed. Mutations that belong to the active are forwarded to it over the control link, with their actor.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <nlohmann/json.hpp>

#include "control/handlers.h"
#include "control/tokens.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/past.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

class ApiHandlers : public control::Handlers {
 public:
  explicit ApiHandlers(Daemon& daemon);
  ~ApiHandlers() override;  // waits for requests of peers that are being answered

  Result<control::ClusterStatus> status() override;
  Result<control::EventPage> events(const control::EventCursor& since, std::size_t limit, int wait_ms) override;
  Result<control::ConfigReply> config() override;
  Result<control::PlanStatus> plan(const std::string& id) override;
  Result<std::vector<control::PlanStatus>> plans(std::size_t limit) override;
  Result<control::JoinAsksReply> join_asks(const control::Caller&, const control::JoinAsksRequest&) override;
  Result<control::InitReply> init(const control::Caller&, const control::InitRequest&) override;
  Result<control::TokenReply> token(const control::Caller&, const control::TokenRequest&) override;
  Result<control::JoinReply> join(const control::Caller&, const control::JoinRequest&) override;
  Result<control::AdmitReply> admit(const control::Caller&, const control::AdmitRequest&) override;
  Result<control::RenewReply> renew(const control::Caller&, const control::RenewRequest&) override;
  Result<control::ProtectReply> protect(const control::Caller&, const control::ProtectRequest&) override;
  Result<control::Accepted> unprotect(const control::Caller&, const control::UnprotectRequest&) override;
  Result<control::Accepted> make_active(const control::Caller&, const control::MakeActiveRequest&) override;
  Result<control::Accepted> failover(const control::Caller&, const control::FailoverRequest&) override;
  Result<control::Accepted> member_remove(const control::Caller&, const control::MemberRemoveRequest&) override;
  Result<control::Accepted> member_change(const control::Caller&, const control::MemberChangeRequest&) override;
  Result<control::Accepted> release(const control::Caller&, const control::ReleaseRequest&) override;
  Result<control::Accepted> skip_step(const control::Caller&, const control::SkipStepRequest&) override;
  Result<control::Accepted> config_set(const control::Caller&, const control::ConfigSetRequest&) override;
  Result<control::Timeline> timeline(const control::TimelineRequest&) override;
  Result<control::LooksReply> looks() override;
  Result<control::VerifyStatus> verify_status() override;
  Result<control::ShadowReply> shadow_create(const control::Caller&, const control::ShadowRequest&) override;
  Result<control::Accepted> shadow_keep(const control::Caller&, const control::ShadowChange&) override;
  Result<control::Accepted> shadow_delete(const control::Caller&, const control::ShadowChange&) override;
  Result<control::RollbackReply> rollback(const control::Caller&, const control::RollbackRequest&) override;
  Result<control::LookStatus> look(const control::Caller&, const control::LookRequest&) override;
  Result<control::Accepted> look_end(const control::Caller&, const control::LookEndRequest&) override;
  Result<control::Accepted> verify(const control::Caller&, const control::VerifyRequest&) override;
  Result<control::Accepted> verify_stop(const control::Caller&) override;
  void record(const control::EventDraft& event) override;

  // From the links' thread; answered from a thread of its own.
  void serve_peer(NodeId from, std::string op, std::string body, network::Responder respond);
  // From the application supervisor.
  void automatic_switchover(const std::string& application, const std::string& reason);
  // From the loop; returns at once. The shadow of the schedule, and then those that are not kept any more go.
  void scheduled_shadow(const std::string& name, const std::string& thinning);

 private:
  using json = nlohmann::json;
  Result<std::string> answer_peer(NodeId from, const std::string& op, const json& body);
  Result<json> do_for_peer(const std::string& op, const control::Caller& caller, const json& request);
  // Empty when this node is the active; else the active's answer.
  Result<std::optional<json>> forward(const std::string& op, const control::Caller& caller, const json& request,
                                      int timeout_ms = 30'000);

  // handlers_membership.cc
  Status check_addresses(const std::vector<std::string>& channel,
                         const std::vector<std::string>& public_addresses) const;
  Result<std::string> has_addresses(const json& body) const;  // what a peer asks before these addresses are its
  Result<json> add_member(const json& request);
  Result<json> remove_member(const json& request);
  // handlers_protect.cc
  Result<apps::Application> application_for(const control::ProtectRequest& request) const;
  using Sizes = std::map<std::string, std::uint64_t>;  // bytes that a folder of this node takes up
  Result<Sizes> check_protect_here(const apps::Application& application, const ClusterConfig& config) const;
  static Status judge_copy(const apps::Application& application, const Sizes& sizes, const std::string& name,
                           const json& answer, json& missing);
  Result<std::string> answer_join(const std::string& asks, std::vector<std::string>& missing) const;
  Result<json> judge_joiner(const json& request) const;
  Result<std::string> protect_facts(const json& body) const;  // what a peer asks before it protects
  Result<std::string> make_folders(const json& body) const;   // what it asks for then: a copy needs a place
  // handlers_roles.cc
  Result<control::Accepted> switch_over(NodeId target, const std::string& actor, const std::string& reason);
  Status ask_ready(const SwitchoverOrder& order);
  Result<std::string> prepare_switchover(NodeId from, const json& body);
  Result<std::string> applied(const json& body) const;
  // handlers_history.cc
  struct NodePast {
    NodeId node;
    std::string name, role;
    json undo;  // of its status
    Result<json> timeline;
  };
  Result<json> ask_mirror(const Snapshot& s, NodeId node, const std::string& op, const json& arguments, int timeout_ms);
  Result<std::string> mirror_for_peer(const json& body);
  Result<NodeId> node_or_self(const Snapshot& s, const std::string& name) const;
  std::vector<NodePast> ask_pasts(const Snapshot& s, const std::string& only, const json& request);
  Result<control::ShadowReply> make_shadow(const std::string& name, const std::string& origin, bool keep, bool quiesce);
  bool shadow_arrives(const Snapshot& s, NodeId node, const std::string& name);
  Result<std::string> change_shadow(const std::string& op, const control::ShadowChange& request, const json& arguments);
  // handlers_rollback.cc
  std::vector<PastCandidate> candidates(const Snapshot& s, const control::RollbackRequest& request,
                                        const control::When& when);
  static std::vector<std::string> rollback_warnings(const Snapshot& s, const PastCandidate& target);
  Result<RollbackOrder> wish_for(const Snapshot& s, const control::Caller& caller, const std::string& to);
  Result<std::string> order_rollback(const json& body);
  Result<std::string> forget_rollback(const json& body);

  Daemon& d_;
  control::TokenStore tokens_;
  std::mutex membership_mutex_;  // one init, join or admit at a time
  std::atomic<int> busy_{0};
};

Error not_a_member();
bool is_active(const Snapshot& s);

}  // namespace holdfast::daemon
