// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/daemon.h"

#include <chrono>
#include <future>

#include "base/log.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "platform/durable_file.h"

namespace holdfast::daemon {

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
std::int64_t wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Daemon::Daemon(DaemonPaths paths) : paths_(std::move(paths)), rollbacks_(paths_.rollback_file()) {}

// In this order: nobody asks any more, plans stop where they are, nothing comes in, then what they used goes.
Daemon::~Daemon() {
  loop_.stop();
  api_.reset();
  if (event_store_) event_store_->stop();
  door_.reset();
  plans_.reset();
  links_.reset();
  mirror_.reset();
  apps_.reset();
  safety_.reset();
  notes_.reset();
  setup_.reset();
  fencer_.reset();
  register_store_.reset();
  engine_.reset();
  network_.reset();
  events_.reset();
}

Status Daemon::open() {
  opened_ms_ = steady_ms();
  for (const std::string& dir : {paths_.state, paths_.run, paths_.state + "/register"})
    HF_TRY(platform::make_private_dir(dir));
  HF_ASSIGN(auto word, platform::LeaseWord::open(platform::LeaseWord::Side::writer, paths_.lease_word()));
  lease_word_.emplace(std::move(word));
  setup_ = std::make_unique<Worker>();
  fencer_ = std::make_unique<Worker>();
  events_ = std::make_unique<Worker>();
  safety_ = std::make_unique<Worker>();
  notes_ = std::make_unique<Worker>();
  plans_ = std::make_unique<PlanKeeper>(*this);
  auto network =
      NetworkIdentity::create({[this](Epoch e) { return lease_word_->valid(e); },
                               [this](std::string text) { event("warning", "public_gate", "holdfastd", text); }});
  if (!network) return tl::unexpected(with_hint(network.error(), "holdfastd needs nftables and CAP_NET_ADMIN"));
  network_ = std::move(*network);
  handlers_ = std::make_unique<ApiHandlers>(*this);
  api_ = std::make_unique<control::ApiServer>(*handlers_);

  HF_ASSIGN(const std::optional<NodeState> node, load_node_state(paths_.node_file()));
  apps_ = std::make_unique<AppSupervisor>(
      node ? node->node_name : "", AppSupervisor::Events{[this](const std::string& severity, const std::string& text) {
                                                           event(severity, "application", "holdfastd", text);
                                                         },
                                                         [this](const std::string& app, const std::string& why) {
                                                           handlers_->automatic_switchover(app, why);
                                                         }});
  mirror_ = std::make_unique<MirrorClient>(
      paths_.mirror_socket(),
      MirrorClient::Events{[this] { loop_.post("the mirror connected", [this] { mirror_connected(); }); },
                           [this] { loop_.post("the mirror is gone", [this] { mirror_gone(); }); },
                           [this](nlohmann::json e) {
                             loop_.post("an event of the mirror", [this, e = std::move(e)] { mirror_event(e); });
                           }});
  if (node) {
    node_ = *node;
    HF_TRY(start_member(false));
  }
  HF_TRY(api_->listen(paths_.api_socket()));
  log_info("holdfastd {} is ready{}", HF_VERSION,
           member_ ? ", node " + node_.node_name + " of cluster " + node_.cluster_name : ", in no cluster yet");
  return {};
}

void Daemon::beat(std::function<void()> alive) {
  alive();
  loop_.after(std::chrono::milliseconds(1000), "watchdog", [this, alive = std::move(alive)] { beat(alive); });
}

void Daemon::run() {
  loop_.after(std::chrono::milliseconds(1), "first look at the mirror", [this] { poll_mirror(); });
  watch_lease();
  watch_schedule();
  watch_active();
  loop_.run();
}

void Daemon::stop() { loop_.stop(); }

// The machine goes down: applications are stopped by systemd as well, so the office is given back instead of left to lapse.
void Daemon::shut_down_machine() {
  const bool posted = loop_.post("the machine goes down", [this] {
    if (office_epoch_.value == 0) return loop_.stop();
    const Epoch epoch = office_epoch_;
    log_info("this machine goes down: the applications are stopped and epoch {} is given back", epoch.value);
    fencer_->post([this, epoch] {
      (void)apps_->stop([](const std::string& text) { log_info("{}", text); }, [] { return false; });
      (void)network_->hide();
      (void)call_mirror(*mirror_, "abort", {{"epoch", epoch.value}}, 5'000);
      loop_.post("give the office back", [this] {
        engine_->feed(cluster::in::Resign{});
        loop_.after(std::chrono::milliseconds(200), "the resignation was sent", [this] { loop_.stop(); });
      });
    });
  });
  if (!posted) loop_.stop();
}

void Daemon::event(const std::string& severity, const std::string& code, const std::string& actor,
                   const std::string& text) {
  if (severity == "error")
    log_error("{}", text);
  else if (severity == "warning")
    log_warning("{}", text);
  else
    log_info("{}", text);
  if (!event_store_ || !events_) return;
  events_->post([store = event_store_.get(), draft = control::EventDraft{severity, code, actor, text}] {
    if (const auto kept = store->append(draft); !kept)
      log_error("the event could not be kept: {}", kept.error().to_string());
  });
}

Snapshot Daemon::snapshot() {
  const auto make = [this] {
    Snapshot s;
    s.member = member_;
    s.node = node_;
    s.config = config_;
    s.value = value_;
    s.office_epoch = office_epoch_;
    s.role_since_wall_ms = role_since_wall_ms_;
    s.mirror = mirror_status_;
    s.mirror_age_ms = mirror_status_ms_ == 0 ? -1 : steady_ms() - mirror_status_ms_;
    s.mirror_connected = mirror_ && mirror_->connected();
    s.peers = summaries_;
    s.fault = fault_;
    s.setup_error = setup_error_;
    s.certificate_error = certificate_error_;
    s.active_answers_at = active_answers_at_;
    if (!engine_ || !engine_started_) return s;
    const Now now = engine_->now();
    const cluster::Core& core = engine_->core();
    s.role = core.role();
    if (core.value()) s.value = core.value();
    s.lease_left_ns = core.lease_left_ns(now);
    s.votes = core.votes(now);
    s.automatic_failover = core.automatic_failover(now);
    s.last_refusal = core.last_refusal();
    return s;
  };
  return loop_.on_loop() ? make() : loop_.call("a snapshot for status", make, Snapshot{});
}

Result<std::string> Daemon::ask_peer(NodeId peer, const std::string& op, const nlohmann::json& body, int timeout_ms) {
  if (!links_) return fail(ErrorCode::unavailable, "this node is in no cluster yet");
  auto answer = std::make_shared<std::promise<Result<std::string>>>();
  auto future = answer->get_future();
  links_->request(node_.cluster_id, peer, op, body.dump(), std::chrono::milliseconds(timeout_ms),
                  [answer](Result<std::string> r) { answer->set_value(std::move(r)); });
  if (future.wait_for(std::chrono::milliseconds(timeout_ms + 1000)) != std::future_status::ready)
    return fail(ErrorCode::timeout, "{} did not answer", to_hex(peer));
  return future.get();
}

Status Daemon::propose_config(const std::function<Result<ClusterConfig>(ClusterConfig)>& change, int timeout_ms) {
  for (int attempt = 0;; ++attempt) {
    const Snapshot s = snapshot();
    if (!s.value) return fail(ErrorCode::unavailable, "the cluster's configuration is not known here yet");
    HF_ASSIGN(const ClusterConfig current, config_from_text(s.value->config));
    HF_ASSIGN(ClusterConfig next, change(current));
    // Only an active's proposal is recorded. Should it be that of a later epoch by then, nothing is concluded from this one.
    for (SetConfig& set : next.sets)
      if (set.set >= current.next_set) set.epoch = s.value->epoch().value;
    cluster::in::ProposeConfig input;
    input.config = to_text(next);
    input.settings = next.settings();
    input.expected_version = s.value->config_version;
    const Status done = ask_core(input, timeout_ms);
    const bool raced = !done && done.error().message.find("changed meanwhile") != std::string::npos;
    if (!raced || attempt == 3) return done;
  }
}

std::optional<network::GateLease> Daemon::gate_lease() {
  if (office_epoch_.value == 0) return std::nullopt;
  const platform::ClockReading reading = platform::read_clocks();
  const std::int64_t left = lease_word_->remaining_ns_at(office_epoch_, &reading);
  if (left < ns_per_ms) return std::nullopt;
  return network::GateLease{reading, left};
}

std::string Daemon::name_of(NodeId id) const {
  const cluster::Member* m = value_ ? value_->member(id) : nullptr;
  return m != nullptr ? m->name : to_hex(id);
}

std::optional<NodeId> Daemon::node_named(const std::string& name) const {
  if (!value_) return std::nullopt;
  for (const cluster::Member& m : value_->members)
    if (m.name == name && m.kind == cluster::MemberKind::data) return m.id;
  return std::nullopt;
}

}  // namespace holdfast::daemon
