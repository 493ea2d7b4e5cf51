// SPDX-License-Identifier: Apache-2.0
// holdfastd put together: the loop, the engine, the links, the mirror's client, the fences, applications and plans.
//
// Everything that is not marked otherwise belongs to the loop thread. API handlers and plan steps run in their own threads
// and reach this state through loop().call(...) only.
//
//   no cluster --init/join--> member: passive <--become_active / step_down--> active (office_epoch_ != 0)
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/news.h"
#include "control/api_server.h"
#include "control/events.h"
#include "control/plan.h"
#include "daemon/holdfastd/app_supervisor.h"
#include "daemon/holdfastd/cluster_config.h"
#include "daemon/holdfastd/engine.h"
#include "daemon/holdfastd/insync.h"
#include "daemon/holdfastd/mirror_client.h"
#include "daemon/holdfastd/network_identity.h"
#include "daemon/holdfastd/node_state.h"
#include "daemon/holdfastd/register_store.h"
#include "daemon/holdfastd/rollback_order.h"
#include "daemon/holdfastd/worker.h"
#include "network/peer_link.h"
#include "network/peer_link_listener.h"
#include "platform/lease_word.h"

namespace holdfast::daemon {

class ApiHandlers;
class PlanKeeper;

struct DaemonPaths {
  std::string state = "/var/lib/holdfast";
  std::string run = "/run/holdfast";
  std::string api_socket() const { return run + "/api.sock"; }
  std::string mirror_socket() const { return run + "/mirror.sock"; }
  std::string lease_word() const { return run + "/lease"; }
  std::string node_file() const { return state + "/node.json"; }
  std::string tls() const { return state + "/tls"; }
  std::string register_file() const { return state + "/register/voter"; }
  std::string boot_file() const { return state + "/register/boot_id"; }
  std::string plans() const { return state + "/plans"; }
  std::string rollback_file() const { return state + "/rollback.json"; }
  std::string events() const { return state + "/events"; }
  std::string tokens() const { return state + "/tokens.json"; }
};

// What the newest summary of a peer said, and when it came.
struct PeerSummary {
  nlohmann::json json;
  std::int64_t received_ms = 0;
};

// A switchover that this node was told of, so that its promotion is shown as part of it.
struct ExpectedSwitchover {
  std::string plan_id, from, actor, reason;
  std::int64_t until_ms = 0;
};

// A copy of what status and handlers need, made on the loop.
struct Snapshot {
  bool member = false;
  NodeState node;
  ClusterConfig config;
  cluster::ValuePtr value;
  cluster::Role role = cluster::Role::stopped;
  Epoch office_epoch;
  std::int64_t role_since_wall_ms = 0;
  std::int64_t lease_left_ns = 0;
  std::vector<cluster::VoteStatus> votes;
  cluster::Availability automatic_failover;
  std::string last_refusal;
  nlohmann::json mirror;  // its last status; null when it does not answer
  std::int64_t mirror_age_ms = 0;
  bool mirror_connected = false;
  std::map<NodeId, PeerSummary> peers;
  std::string fault;
  std::string setup_error;
  std::string certificate_error;  // of this node's own certificate
  std::string active_answers_at;  // nothing is heard of the active, but it answers at this public address
};

class Daemon : public EngineHost, public InSync::Port {
 public:
  explicit Daemon(DaemonPaths paths);
  ~Daemon() override;

  // Opens everything and, when this node is a member, starts it. Before run().
  Status open();
  void beat(std::function<void()> alive);  // before run(): called from the loop once a second
  void run();                              // the loop, until stop()
  void stop();               // any thread: ends run(); the lease is kept, so that a restart is not noticed
  void shut_down_machine();  // any thread: gives the office back first, then stop()

  Loop& loop() { return loop_; }
  const DaemonPaths& paths() const { return paths_; }
  MirrorPort& mirror() { return *mirror_; }
  network::PeerLinks& links() { return *links_; }
  AppSupervisor& apps() { return *apps_; }
  NetworkIdentity* network() { return network_.get(); }
  PlanKeeper& plans() { return *plans_; }
  control::EventStore* event_store() { return event_store_.get(); }  // null before init or join
  Worker& setup() { return *setup_; }
  RollbackOrders& rollbacks() { return rollbacks_; }

  // Any thread.
  void event(const std::string& severity, const std::string& code, const std::string& actor, const std::string& text);
  Snapshot snapshot();
  Result<std::string> ask_peer(NodeId peer, const std::string& op, const nlohmann::json& body, int timeout_ms);

  // Other threads than the loop: an input with a ticket, answered.
  template <class TicketInput>
  Status ask_core(TicketInput input, int timeout_ms);
  // Becomes a member: what init and join have stored is loaded and started. `found` founds the cluster with that value.
  Status become_member(const NodeState& state, bool founder);
  Status found_cluster(const cluster::Value& value, int timeout_ms);
  void forget_member();  // after a failed init or join, nothing of it stays
  Status propose_config(const std::function<Result<ClusterConfig>(ClusterConfig)>& change, int timeout_ms = 10'000);
  // Applies `config` to units, network and mirror here and waits for it.
  Status settle_setup(int timeout_ms);

  // Loop thread; for plans.
  Epoch office_epoch() const { return office_epoch_; }
  std::optional<network::GateLease> gate_lease();
  Engine* engine() { return engine_.get(); }
  const ClusterConfig& config() const { return config_; }
  const cluster::ValuePtr& value() const { return value_; }
  const NodeState& node() const { return node_; }
  void expect_switchover(ExpectedSwitchover e) { expected_ = std::move(e); }
  bool fence_done() const { return fencing_ == 0; }
  std::string name_of(NodeId id) const;
  std::optional<NodeId> node_named(const std::string& name) const;
  // This node can't do what an active must: the epoch is given back and everything fenced.
  void give_up_office(const std::string& reason, NodeId successor);
  NodeId last_passive_active() const { return before_office_; }
  // Where a member can be met by clients, and at which of these doors that node answers now; empty: at none. Blocks; any thread.
  static std::vector<std::string> public_doors(const ClusterConfig& config);
  std::string address_where_answers(NodeId node, const std::vector<std::string>& doors, int timeout_ms) const;

 private:
  friend class ApiHandlers;
  // EngineHost
  void persist(std::uint64_t id, const cluster::VoterState& state) override;
  void send(NodeId to, Bytes message) override;
  void extend_lease(Epoch epoch, const platform::ClockReading& at, std::int64_t left_ns) override;
  void clear_lease(Epoch epoch) override;
  void seal_mirror(Epoch epoch, bool look_back) override;
  void become_active(const cluster::out::BecomeActive& won) override;
  void step_down(Epoch epoch, const std::string& reason) override;
  void follow(Epoch epoch, NodeId active) override;
  void in_sync_recorded(Epoch epoch, std::uint64_t version, const std::vector<NodeId>& set) override;
  void value_recorded(const cluster::ValuePtr& value) override;
  void note(const std::string& text) override;
  // InSync::Port
  void set_wait_set(const std::vector<NodeId>& peers, std::function<void(bool ok)> done) override;
  void waiting_for(NodeId node, std::uint64_t in_sync_version) override;
  void peer_lost(NodeId node) override;

  // daemon_member.cc
  Status start_member(bool founder);
  void start_engine_when_ready();
  void start_engine();
  bool lease_survived(const cluster::VoterState& state) const;
  std::optional<cluster::VoterState> saved_;
  // daemon_roles.cc
  void take_office(const cluster::out::BecomeActive& won, NodeId before);
  void fence(Epoch epoch, const std::string& reason);
  void fence_mirror(Epoch epoch);
  void fence_applications(Epoch epoch);
  void fence_part_done();
  void send_follow();
  void send_seal(Epoch epoch, bool look_back);
  // daemon_mirror.cc
  void mirror_connected();
  void mirror_gone();
  void mirror_event(const nlohmann::json& event);
  void tell_of_the_past(const std::string& kind, const nlohmann::json& event);
  void poll_mirror();
  void poll_again(std::chrono::milliseconds delay);
  Loop::TimerId poll_timer_ = 0;
  void take_mirror_status(const nlohmann::json& status);
  void publish_summary();
  nlohmann::json last_rollback() const;
  void watch_mirror();
  void watch_capture(bool captures);
  // A planned restart of the mirror, with the applications running: for a while it may be gone.
  void mirror_restarts(Epoch epoch);
  void restart_is_over(const nlohmann::json& event);
  bool bears_restart() const { return bear_until_ms_ != 0; }
  std::int64_t bear_until_ms_ = 0;
  void watch_lease();
  void watch_schedule();
  std::string scheduled_shadow_;  // the last one that was due here
  bool had_lease_ = false;        // in this office
  bool has_captured_ = false;     // in this office
  std::int64_t lapsed_since_ms_ = 0;
  std::int64_t uncaptured_since_ms_ = 0;
  // daemon_safety.cc
  void watch_active();
  void note_takeover(NodeId from, const std::string& hold_because);
  std::string active_answers_at_;
  std::int64_t active_answered_ms_ = 0;
  bool asking_for_active_ = false;
  // daemon_setup.cc
  void take_value(const cluster::ValuePtr& value);
  void apply_setup();
  Status apply_units_and_network(const ClusterConfig& config);
  Status make_passive(const ClusterConfig& config);
  nlohmann::json mirror_configuration() const;
  std::vector<network::LinkPeer> peers_from_value() const;
  void refresh_peers();
  void renew_certificate();
  std::string certificate_error_;
  // daemon_links.cc
  Status open_links();
  void link_request(NodeId from, std::string op, std::string body, network::Responder respond);
  void serve_http(network::BlockingTls& tls, const std::optional<network::CertificateIdentity>& peer,
                  const std::string& address);

  const DaemonPaths paths_;
  RollbackOrders rollbacks_;
  Loop loop_;
  SystemEngineClock clock_;
  std::optional<platform::LeaseWord> lease_word_;
  std::unique_ptr<control::EventStore> event_store_;
  std::unique_ptr<NetworkIdentity> network_;
  std::unique_ptr<AppSupervisor> apps_;
  std::unique_ptr<MirrorClient> mirror_;
  std::unique_ptr<network::PeerLinks> links_;
  std::unique_ptr<network::TlsDoor> door_;
  std::unique_ptr<RegisterStore> register_store_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<InSync> insync_;
  std::unique_ptr<PlanKeeper> plans_;
  std::unique_ptr<ApiHandlers> handlers_;
  std::unique_ptr<control::ApiServer> api_;
  std::unique_ptr<Worker> setup_;   // units, addresses, mirror configuration
  std::unique_ptr<Worker> fencer_;  // what a fence does slowly
  std::unique_ptr<Worker> events_;  // event files wait for the disk
  std::unique_ptr<Worker> safety_;  // looks for the active at its public addresses
  std::unique_ptr<Worker> notes_;   // notes of failures wait for a majority

  bool member_ = false;
  bool founder_ = false;
  NodeState node_;
  cluster::ValuePtr value_;  // newest recorded value that was taken
  ClusterConfig config_;
  std::string applied_;  // what apply_setup() was last given
  std::string setup_error_;
  bool setup_done_ = false;  // once; the engine starts then
  bool engine_started_ = false;
  std::int64_t opened_ms_ = 0;

  Epoch office_epoch_;    // 0 = not the active
  NodeId last_active_;    // newest known
  NodeId before_office_;  // who was the active before this node's office
  std::int64_t role_since_wall_ms_ = 0;
  int fencing_ = 0;                                    // parts of a fence still under way
  News fence_news_;                                    // its attempts repeat themselves until they succeed
  std::vector<std::pair<Epoch, bool>> seals_waiting_;  // until the abort before them is done
  std::optional<std::pair<Epoch, NodeId>> follow_;
  bool follow_sent_ = false;
  ExpectedSwitchover expected_;
  nlohmann::json mirror_status_;
  std::int64_t mirror_status_ms_ = 0;
  std::int64_t mirror_heard_ms_ = 0;  // its last sign of life, or when it connected
  bool mirror_polling_ = false;
  std::string fault_;
  std::map<NodeId, PeerSummary> summaries_;
  std::map<NodeId, std::int64_t> lost_logged_ms_;
  std::map<NodeId, std::string> channel_told_;  // last state of a data channel that became an event
  std::atomic<std::uint64_t> lease_epoch_{0};
};

std::string with_port(const std::string& address, int port);  // unless it has one
std::int64_t steady_ms();
std::int64_t wall_ms();

template <class TicketInput>
Status Daemon::ask_core(TicketInput input, int timeout_ms) {
  auto answer = std::make_shared<std::promise<Status>>();
  auto future = answer->get_future();
  loop_.post("a question to the cluster core", [this, input = std::move(input), answer]() mutable {
    if (!engine_) return answer->set_value(fail(ErrorCode::unavailable, "this node is in no cluster yet"));
    engine_->ask(std::move(input), [answer](bool ok, const std::string& reason) {
      answer->set_value(ok ? Status{} : Status(fail(ErrorCode::refused, "{}", reason)));
    });
  });
  if (future.wait_for(std::chrono::milliseconds(timeout_ms)) != std::future_status::ready)
    return fail(ErrorCode::timeout, "no majority of the voters answered in time");
  return future.get();
}

}  // namespace holdfast::daemon
