// SPDX-License-Identifier: Apache-2.0
// Role changes of the mirror: seal, activate, release, abort, follow.
#include <fcntl.h>

#include <algorithm>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/descriptors.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::chrono::milliseconds unmount_patience(5000);
constexpr std::chrono::milliseconds reap_patience(10000);
constexpr int hand_over_ms = 20000;

nlohmann::json to_json(Position position) {
  return {{"epoch", position.epoch.value}, {"seq", position.sequence.value}};
}

nlohmann::json to_json(const std::vector<capture::Holder>& holders) {
  nlohmann::json all = nlohmann::json::array();
  for (const auto& h : holders) all.push_back({{"pid", h.pid}, {"comm", h.command}, {"path", h.what}});
  return all;
}

nlohmann::json went_back_json(const mirror::WentBack& back) {
  return {{"plan", back.plan}, {"position", to_json(back.position)}, {"time_ns", back.time_ns}};
}

Result<Epoch> epoch_of(const nlohmann::json& request) { return Epoch(request.at("epoch").get<std::uint64_t>()); }

}  // namespace

Result<nlohmann::json> Service::seal(const Json& request) {
  HF_ASSIGN(const Epoch epoch, epoch_of(request));
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  if (log_->active_epoch() != Epoch() && log_->active_epoch() < epoch) {
    // Sealed by a higher epoch while active: this epoch is over. Its captures end before the position is read.
    end_sessions();
  }
  HF_TRY(reap_sessions());
  HF_ASSIGN(auto sealed, log_->seal(epoch, request.value("look_back", false)));
  Json reply = {{"position", to_json(sealed.position)}, {"complete", sealed.complete}, {"clean", sealed.clean}};
  reply["sets"] = Json::array();
  for (const auto& set : sets()) reply["sets"].push_back({{"set", set->config().set}});
  if (sealed.fallback) reply["fallback"] = true;
  if (!sealed.no_fallback.empty()) reply["no_fallback"] = sealed.no_fallback;
  return reply;
}

Result<nlohmann::json> Service::activate(const Json& request) {
  HF_ASSIGN(const Epoch epoch, epoch_of(request));
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  if (log_->active_epoch() == epoch && gate_ && mounted()) return Json{{"already", true}};
  if (epoch.value <= fenced_epoch_.load())
    return fail(ErrorCode::stale, "epoch {} was fenced here; a new one must be won", epoch.value);
  if (epoch.value <= ended_epoch_.load())
    return fail(ErrorCode::stale, "epoch {} has ended here; a new one must be won", epoch.value);
  HF_TRY(reap_sessions());
  Json reply = Json::object();
  if (log_->active_epoch() != epoch) {
    HF_ASSIGN(const auto promotion, log_->promote(epoch, promote_options(epoch, request)));
    reply = promotion_json(promotion);
  } else if (const auto back =
                 log_->status().went_back) {  // the attempt before this one promoted it, and could not mount
    reply["went_back"] = went_back_json(*back);
  }
  // The log stays open: the same epoch may be tried again, and what ends it is a fence.
  if (auto done = mount_all(epoch); !done) {
    log_error("cannot capture in epoch {}: {}", epoch.value, done.error().to_string());
    end_sessions();
    return tl::unexpected(done.error());
  }
  log_info("active in epoch {}", epoch.value);
  return reply;
}

mirror::PromoteOptions Service::promote_options(Epoch epoch, const Json& request) const {
  mirror::PromoteOptions options;
  options.allow_older = request.value("allow_older", false);
  if (const auto to = request.find("to"); to != request.end() && to->is_object())
    options.to_batch = to->at("batch").get<std::uint64_t>();
  options.plan = request.value("plan", "").substr(0, 255);
  options.hold_peers = true;
  options.given_up = [this, epoch] { return epoch.value <= fenced_epoch_.load(); };
  return options;
}

nlohmann::json Service::promotion_json(const mirror::Promotion& promotion) const {
  Json reply = {{"position", to_json(promotion.base)}};
  if (promotion.recovered_time_ns != 0) {
    reply["recovered_time_ns"] = promotion.recovered_time_ns;
    reply["age_of_data_s"] = static_cast<double>(times_.realtime_ns() - promotion.recovered_time_ns) / 1e9;
  }
  if (promotion.went_back) reply["went_back"] = went_back_json(*promotion.went_back);
  return reply;
}

Status Service::mount_all(Epoch epoch) {
  std::shared_ptr<EpochLeaseGate> gate;
  {
    const std::lock_guard lock(mutex_);
    if (epoch.value <= fenced_epoch_.load()) return fail(ErrorCode::stale, "epoch {} was fenced here", epoch.value);
    // Captures that are still mounted (release_capture was refused) go on with the gate they know.
    if (!gate_ || gate_->epoch() != epoch) {
      if (gate_) ended_gates_.push_back(gate_);
      gate_ = std::make_shared<EpochLeaseGate>(lease_, epoch, [this, epoch] {
        push_({{"event", "lease_blocked"}, {"epoch", epoch.value}});
      });
    }
    gate = gate_;
  }
  for (const auto& set : sets())
    if (!set->session()) HF_TRY(mount_one(*set, *gate));
  // A fence that came meanwhile ended only what was mounted then.
  const std::lock_guard lock(mutex_);
  if (gate_ != gate) return fail(ErrorCode::stale, "epoch {} was fenced while its captures began", epoch.value);
  return {};
}

Status Service::mount_one(ProtectedSet& set, EpochLeaseGate& gate) {
  HF_TRY(set.mount(log_->capture_log(), gate, log_->limits_of(set.config().set),
                   [this](const Error& why) { on_fault(why); }));
  const std::string abort_path = set.session()->abort_path();
  if (abort_path.empty())
    return fail(ErrorCode::internal, "{}: the kernel shows no abort file for the capture; is fusectl mounted?",
                set.config().path);
  HF_ASSIGN(const platform::UniqueFd fd, platform::open_file(abort_path, O_WRONLY));
  return watchdog_.arm(gate.epoch(), fd.get());
}

std::vector<Pusher::Mount> Service::captured_mounts() const {
  std::vector<Pusher::Mount> mounts;
  if (!mounted()) return mounts;
  for (const auto& set : sets())
    if (auto session = set->session()) mounts.push_back({set->config().path, std::move(session)});
  return mounts;
}

bool Service::mounted() const {
  if (!log_ || log_->active_epoch() == Epoch()) return false;
  for (const auto& set : sets())
    if (const auto session = set->session(); !session || session->ended()) return false;
  const std::lock_guard lock(mutex_);
  return gate_ != nullptr;
}

Result<nlohmann::json> Service::release_capture(const Json& request) {
  HF_ASSIGN(const Epoch epoch, epoch_of(request));
  HF_ASSIGN(const NodeId successor, node_id_from_hex(request.at("successor").get<std::string>()));
  const std::lock_guard transition(transition_mutex_);
  if (!log_ || log_->active_epoch() != epoch) return fail(ErrorCode::stale, "not the active of epoch {}", epoch.value);
  std::vector<capture::Holder> holders;
  if (auto done = unmount_all(&holders); !done) {
    const Error error = done.error();
    // Only `busy` leaves the mount as it was. After a time-out it is gone from its path although something keeps it alive: nothing is captured.
    const Status again = error.code == ErrorCode::busy ? mount_all(epoch) : Status(tl::unexpected(error));
    if (!again) {
      if (epoch.value > fenced_epoch_.load()) on_fault(again.error());
      return tl::unexpected(again.error());
    }
    return Json{
        {"ok", false}, {"code", to_string(error.code)}, {"error", error.to_string()}, {"holders", to_json(holders)}};
  }
  return finish_epoch(epoch, successor);
}

Status Service::unmount_all(std::vector<capture::Holder>* holders) {
  const auto no_push = pusher_->pause();
  for (const auto& set : sets()) HF_TRY(set->unmount(unmount_patience, holders));
  return {};
}

// Everything is unmounted: nothing may follow in this epoch, whatever happens from here.
Result<nlohmann::json> Service::finish_epoch(Epoch epoch, NodeId successor) {
  {
    const std::lock_guard lock(mutex_);
    gate_.reset();
  }
  if (auto disarmed = watchdog_.disarm(); !disarmed) log_warning("{}", disarmed.error().to_string());
  ended_epoch_ = epoch.value;
  HF_ASSIGN(const Position end, log_->end_epoch());
  HF_ASSIGN(const bool held, log_->wait_handed_over(successor, end, hand_over_ms));
  if (!held)
    return fail(ErrorCode::timeout, "the successor did not take over the end of epoch {} within {} s", epoch.value,
                hand_over_ms / 1000);
  HF_TRY(log_->step_down(end));
  log_info("epoch {} ended at {} and is held by the successor", epoch.value, end.sequence.value);
  return Json{{"position", to_json(end)}};
}

Result<nlohmann::json> Service::abort(const Json& request) {
  HF_ASSIGN(const Epoch epoch, epoch_of(request));
  if (!log_) return Json::object();
  if (log_->active_epoch() != Epoch() && log_->active_epoch() > epoch)
    return fail(ErrorCode::stale, "epoch {} is over; epoch {} is active here", epoch.value, log_->active_epoch().value);
  {
    const std::lock_guard lock(mutex_);
    fenced_epoch_ = std::max(fenced_epoch_.load(), epoch.value);
  }
  // The fence does not wait for a role change under way: that one ends with an error when its sessions are gone.
  end_sessions();
  const std::lock_guard transition(transition_mutex_);
  if (log_->active_epoch() > epoch)
    return fail(ErrorCode::stale, "epoch {} is over; epoch {} is active here", epoch.value, log_->active_epoch().value);
  end_sessions();  // what it mounted before it noticed
  if (log_->active_epoch() != Epoch()) log_->abort();
  HF_TRY(reap_sessions());
  return Json::object();
}

void Service::end_sessions() {
  std::shared_ptr<EpochLeaseGate> gate;
  {
    const std::lock_guard lock(mutex_);
    gate = std::move(gate_);
    gate_.reset();
    if (gate) ended_gates_.push_back(gate);
  }
  if (gate) gate->end();
  for (const auto& set : sets())
    if (const auto session = set->session()) session->abort();
  // Under the lock, so that a late fence never disarms the watchdog of the epoch after.
  const std::lock_guard lock(mutex_);
  if (gate_) return;
  if (auto disarmed = watchdog_.disarm(); !disarmed) log_warning("{}", disarmed.error().to_string());
}

// R23: until the threads of an aborted capture are gone, one of them may still write to the tree below. Nothing goes on before that.
Status Service::reap_sessions() {
  {
    const std::lock_guard lock(mutex_);
    if (gate_) return {};
  }
  for (const auto& set : sets())
    if (!set->reap(reap_patience))
      return fail(ErrorCode::busy, "{}: a request of the fenced capture is still stuck in the disk below",
                  set->config().path);
  return {};
}

Result<nlohmann::json> Service::follow(const Json& request) {
  HF_ASSIGN(const Epoch epoch, epoch_of(request));
  HF_ASSIGN(const NodeId active, node_id_from_hex(request.at("active").at("node_id").get<std::string>()));
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  if (log_->active_epoch() != Epoch() && log_->active_epoch() < epoch) end_sessions();
  HF_TRY(reap_sessions());
  HF_TRY(log_->follow(epoch, active));
  return Json::object();
}

void Service::on_fault(const Error& why) {
  log_error("fault: {}", why.to_string());
  push_({{"event", "fault"}, {"reason", why.to_string()}});
  // Fail-stop (I7): the captures end now; holdfastd gives the lease back and the peer takes over.
  if (log_ && log_->active_epoch() != Epoch()) lease_.revoke(log_->active_epoch());
}

void Service::shut_down() {
  end_looks();
  unmarker_.stop();
  if (runtime_) {
    pusher_.reset();
    end_sessions();
    for (const auto& set : sets()) set->reap(reap_patience);
    runtime_.reset();
  }
}

}  // namespace holdfast::mirror_process
