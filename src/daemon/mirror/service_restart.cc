// SPDX-License-Identifier: Apache-2.0
// A planned restart of this process, with the applications running (docs/formats/mirror-control.md, handover.md). systemd has been asked to restart
// it, holdfastd bears the end of the connection for a while, requests of the captures wait in the kernel, and the next process goes on in the same
// epoch. Whatever is in the way of that, and whatever goes wrong, ends as a stop of this process always did: the epoch is over here.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/descriptors.h"
#include "platform/mounts.h"
#include "platform/systemd_units.h"

namespace holdfast::mirror_process {
namespace {

constexpr const char* unit = "holdfast-mirror.service";
constexpr std::chrono::milliseconds agree_patience(1000), request_patience(2000);
constexpr int peers_patience_ms = 1500;
constexpr std::size_t most_inodes = 2'000'000;  // each is some 100 bytes to write and to read, while applications wait

// Off until the file is there: seen to work in tests of its parts, and not yet through systemd on whole machines.
constexpr const char* switched_on_by = "/etc/holdfast/keep-captures";

bool restart_is_wanted() {
  if (::access(switched_on_by, F_OK) != 0) return false;
  auto units = platform::SystemdUnits::connect();
  const auto job = units ? units->job(unit) : Result<std::string>(tl::unexpected(units.error()));
  if (!job) log_warning("{}", job.error().to_string());
  return job && (*job == "restart" || *job == "try-restart");
}

}  // namespace

Result<nlohmann::json> Service::restart_agreed(const Json& request) {
  const std::lock_guard lock(agreed_mutex_);
  agreed_ = Epoch(request.at("epoch").get<std::uint64_t>());
  agreed_cv_.notify_all();
  return Json::object();
}

bool Service::leave_to_successor() {
  if (!log_ || log_->active_epoch() == Epoch() || !mounted() || !restart_is_wanted()) return false;
  const Epoch epoch = log_->active_epoch();
  {
    std::unique_lock lock(agreed_mutex_);
    push_({{"event", "restarting"}, {"epoch", epoch.value}});
    if (!agreed_cv_.wait_for(lock, agree_patience, [&] { return agreed_ == epoch; })) {
      log_warning("holdfastd does not bear a restart now: epoch {} ends here", epoch.value);
      return false;
    }
  }
  const Status left = hand_all_over();
  if (left) return true;
  log_warning("epoch {} can't go on in the next process and ends here: {}", epoch.value, left.error().to_string());
  return false;
}

Status Service::hand_all_over() {
  const std::unique_lock transition(transition_mutex_, std::try_to_lock);
  if (!transition.owns_lock()) return fail(ErrorCode::busy, "a change of roles is under way");
  log_->verify_stop();
  pusher_.reset();  // its helper has files of the captures open
  Succession out;
  for (const auto& set : sets()) {
    if (out.began_ns == 0) out.began_ns = times_.steady_ns();
    HF_ASSIGN(auto handover, set->hand_over(request_patience, most_inodes));
    out.captures.push_back(std::move(handover));
  }
  HF_ASSIGN(out.handed, log_->hand_on(peers_patience_ms));
  if (!lease_.valid(out.handed.epoch)) return fail(ErrorCode::stale, "the lease is over");
  HF_TRY(leave(out));
  // It would take our end for what it is there to answer; the next process has one of its own before it does anything. Until that end it watches on:
  // should something of ours hang in a capture, only an abort frees it.
  return watchdog_.let_go();
}

void Service::inherit(Succession from) {
  const Epoch epoch = from.handed.epoch;
  const auto guard = [&]() -> Status {
    if (!lease_.valid(epoch)) return fail(ErrorCode::stale, "its lease is over");
    for (const auto& each : from.captures) {
      HF_ASSIGN(const platform::UniqueFd fd, platform::open_file(capture::abort_path_of(each), O_WRONLY));
      HF_TRY(watchdog_.arm(epoch, fd.get()));
    }
    return {};
  };
  if (const Status guarded = guard(); !guarded)
    return log_error("epoch {} does not go on here: {}", epoch.value, guarded.error().to_string());
  const std::lock_guard transition(transition_mutex_);
  inherited_ = std::move(from);
}

bool Service::inherits(const std::string& path) const {
  if (!inherited_) return false;
  return std::any_of(inherited_->captures.begin(), inherited_->captures.end(),
                     [&](const capture::Handover& each) { return each.path == path; });
}

void Service::go_on(const MirrorConfig& config) {
  if (!inherited_) return;
  Status done;
  const Epoch epoch = inherited_->handed.epoch;
  {
    Succession from = std::move(*inherited_);
    inherited_.reset();
    done = take_all_over(config, from);
    if (done) {
      const double waited_s = static_cast<double>(times_.steady_ns() - from.began_ns) / 1e9;
      log_info("epoch {} goes on in this process; applications waited {:.2f} s for it", epoch.value, waited_s);
      push_({{"event", "restarted"}, {"epoch", epoch.value}, {"waited_s", waited_s}});
      return;
    }
  }
  // What was not taken over is gone with the descriptors.
  log_error("epoch {} does not go on in this process: {}", epoch.value, done.error().to_string());
  end_sessions();
  for (const auto& set : sets()) set->reap(request_patience);
  if (log_->active_epoch() != Epoch()) log_->abort();
  for (const auto& set : config.sets)
    if (auto gone = platform::remove_dead_captures(set.path); !gone) log_warning("{}", gone.error().to_string());
  push_({{"event", "restart_failed"}, {"epoch", epoch.value}, {"reason", done.error().to_string()}});
}

Status Service::take_all_over(const MirrorConfig& config, Succession& from) {
  const Epoch epoch = from.handed.epoch;
  if (from.captures.size() != config.sets.size()) return fail(ErrorCode::refused, "other folders are protected now");
  for (const auto& each : from.captures)
    if (std::none_of(config.sets.begin(), config.sets.end(), [&](const auto& set) { return set.path == each.path; }))
      return fail(ErrorCode::refused, "{} is not protected any more", each.path);
  if (!lease_.valid(epoch) || epoch.value <= fenced_epoch_.load()) return fail(ErrorCode::stale, "the lease is over");
  HF_TRY(log_->resume(from.handed));
  std::shared_ptr<EpochLeaseGate> gate;
  {
    const std::lock_guard lock(mutex_);
    if (epoch.value <= fenced_epoch_.load()) return fail(ErrorCode::stale, "epoch {} was fenced here", epoch.value);
    gate = gate_ = std::make_shared<EpochLeaseGate>(lease_, epoch, [this, epoch] {
      push_({{"event", "lease_blocked"}, {"epoch", epoch.value}});
    });
  }
  for (const auto& set : sets()) {
    const auto mine = std::find_if(from.captures.begin(), from.captures.end(),
                                   [&](const auto& each) { return each.path == set->config().path; });
    HF_TRY(set->take_over(std::move(*mine), log_->capture_log(), *gate, log_->limits_of(set->config().set),
                          [this](const Error& why) { on_fault(why); }));
  }
  const std::lock_guard lock(mutex_);
  if (gate_ != gate) return fail(ErrorCode::stale, "epoch {} was fenced while it was taken over", epoch.value);
  return {};
}

}  // namespace holdfast::mirror_process
