// SPDX-License-Identifier: Apache-2.0
// From files to a running member: the register's file, certificates, links; then the engine, once the mirror said what it is.
#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "platform/durable_file.h"

#include <filesystem>

namespace holdfast::daemon {
namespace {

constexpr std::int64_t mirror_patience_ms = 5'000;

std::string boot_id() {
  const auto bytes = platform::read_file("/proc/sys/kernel/random/boot_id", 256);
  return bytes ? std::string(as_text(*bytes)) : std::string("unknown");
}

}  // namespace

Status Daemon::become_member(const NodeState& state, bool founder) {
  HF_TRY(store_node_state(paths_.node_file(), state));
  // Its voter's memory exists from the first moment: a file that is missing later means that it was lost (R9).
  cluster::VoterState fresh;
  fresh.incarnation = cluster::Incarnation(state.incarnation);
  HF_TRY(platform::write_file_durably(paths_.register_file(), cluster::encode(fresh)));
  return loop_.call(
      "become a member",
      [this, state, founder]() -> Status {
        node_ = state;
        return start_member(founder);
      },
      Status(fail(ErrorCode::unavailable, "holdfastd is stopping")));
}

Status Daemon::found_cluster(const cluster::Value& value, int timeout_ms) {
  const std::int64_t until = steady_ms() + timeout_ms;
  loop_.call(
      "configuration of the founder",
      [this, value] {
        value_ = std::make_shared<const cluster::Value>(value);
        if (auto config = config_from_text(value.config)) config_ = std::move(*config);
        return 0;
      },
      0);
  for (;;) {
    const bool started = loop_.call(
        "has the engine started", [this] { return engine_started_; }, false);
    if (started) break;
    if (steady_ms() > until) return fail(ErrorCode::timeout, "holdfast-mirror did not take the configuration in time");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  cluster::in::Found found;
  found.value = value;
  return ask_core(found, static_cast<int>(std::max<std::int64_t>(1'000, until - steady_ms())));
}

void Daemon::forget_member() {
  loop_.call(
      "forget the cluster",
      [this] {
        member_ = engine_started_ = setup_done_ = founder_ = false;
        engine_.reset();
        insync_.reset();
        value_.reset();
        config_ = {};
        applied_.clear();
        saved_.reset();
        return 0;
      },
      0);
  door_.reset();
  links_.reset();
  register_store_.reset();
  std::error_code ignored;
  for (const std::string& path :
       {paths_.node_file(), paths_.tls(), paths_.state + "/register", paths_.tokens(), paths_.rollback_file()})
    std::filesystem::remove_all(path, ignored);
  (void)platform::make_private_dir(paths_.state + "/register");
}

Status Daemon::start_member(bool founder) {
  founder_ = founder;
  if (!event_store_) {
    HF_ASSIGN(event_store_,
              control::EventStore::open(paths_.events(), node_.node_name, control::EventLimits{}, wall_ms));
  }
  apps_->set_node(node_.node_name);
  renew_certificate();
  HF_TRY(platform::make_private_dir(paths_.plans()));
  plans_->open(paths_.plans());
  // Without it nothing is taken back, which loses nothing.
  if (const Status loaded = rollbacks_.load(); !loaded)
    event("error", "rollback_void", "holdfastd", loaded.error().to_string());
  HF_ASSIGN(saved_, RegisterStore::load(paths_.register_file()));
  cluster::CoreOptions options;
  options.cluster = node_.cluster();
  options.self = node_.node_id;
  options.seed = static_cast<std::uint64_t>(wall_ms()) ^ node_.node_id.value;
  options.wait_for_activation = true;  // while the mirror can't capture, the others stay eligible
  engine_ = std::make_unique<Engine>(loop_, clock_, *this, options);
  insync_ = std::make_unique<InSync>(node_.node_id, *this);
  register_store_ = std::make_unique<RegisterStore>(
      paths_.register_file(),
      RegisterStore::Events{
          [this](std::uint64_t id) {
            loop_.post("the register's file is on disk", [this, id] {
              if (engine_) engine_->persisted(id);
            });
          },
          [](const Error& e) { CHECK(false, "the register's file can't be written: {}", e.to_string()); }});
  member_ = true;
  opened_ms_ = steady_ms();
  HF_TRY(open_links());
  if (saved_ && saved_->accepted) {
    value_ = saved_->accepted;
    last_active_ = value_->active;
    HF_ASSIGN(config_, config_from_text(value_->config));
    // Closed before anything else can answer for these addresses; an open gate of before a restart stays open.
    const bool may_resume = value_->active == node_.node_id && lease_word_->valid(value_->epoch());
    HF_TRY(apply_units_and_network(config_));
    if (!may_resume) HF_TRY(network_->hide());
  }
  loop_.after(std::chrono::milliseconds(1), "start of the engine", [this] { start_engine_when_ready(); });
  return {};
}

// The mirror is configured (covers are in place) and has said its role, or does not come up.
void Daemon::start_engine_when_ready() {
  if (!member_ || engine_started_) return;
  const bool known = setup_done_ && !mirror_status_.is_null();
  if (!known && steady_ms() - opened_ms_ < mirror_patience_ms) {
    if (mirror_->connected() && applied_.empty()) apply_setup();
    loop_.after(std::chrono::milliseconds(20), "start of the engine", [this] { start_engine_when_ready(); });
    return;
  }
  if (!known) log_warning("holdfast-mirror does not answer: this node can't vote or be a target until it does");
  start_engine();
}

bool Daemon::lease_survived(const cluster::VoterState& state) const {
  if (!state.accepted || state.accepted->active != node_.node_id) return false;
  const Epoch epoch = state.accepted->epoch();
  const bool captures = text_of(mirror_status_, "role") == "active" && flag_of(mirror_status_, "mounted") &&
                        number_of(mirror_status_, "epoch") == epoch.value;
  return captures && lease_word_->valid(epoch);
}

void Daemon::start_engine() {
  engine_started_ = true;
  role_since_wall_ms_ = wall_ms();
  cluster::in::Started started;
  started.state = saved_;
  started.fresh = cluster::Incarnation(static_cast<std::uint64_t>(steady_ms()) * 0x9E3779B97F4A7C15ULL ^
                                       static_cast<std::uint64_t>(wall_ms()) ^ node_.node_id.value);
  started.lease_word_valid = saved_ && lease_survived(*saved_);
  const auto last_boot = platform::read_file(paths_.boot_file(), 256);
  started.machine_rebooted = last_boot && as_text(*last_boot) != boot_id();
  if (const Status kept = platform::write_file_durably(paths_.boot_file(), as_bytes(boot_id())); !kept)
    log_warning("{}", kept.error().to_string());
  if (started.lease_word_valid)
    log_info("the lease of epoch {} is still held: going on", saved_->accepted->epoch().value);
  engine_->start(std::move(started));
  saved_.reset();
  if (!mirror_status_.is_null()) take_mirror_status(mirror_status_);
}

}  // namespace holdfast::daemon
