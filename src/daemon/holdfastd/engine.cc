// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/engine.h"

#include <algorithm>

#include "base/log.h"
#include "cluster/codec.h"

namespace holdfast::daemon {

using namespace cluster;  // in::, out:: and the core's words

Engine::Engine(Loop& loop, EngineClock& clock, EngineHost& host, CoreOptions options)
    : loop_(loop), clock_(clock), host_(host), core_(options) {}

Engine::~Engine() {
  if (timer_ != 0) loop_.cancel(timer_);
}

void Engine::start(in::Started started) {
  CHECK(!started_, "the engine starts once");
  started_ = true;
  feed(std::move(started));
}

void Engine::feed(Input input) {
  if (!started_) return;  // nothing concerns a cluster member that is not one yet
  inputs_.push_back(std::move(input));
  if (!draining_) drain();
}

void Engine::drain() {
  draining_ = true;
  while (!inputs_.empty()) {
    const Input input = std::move(inputs_.front());
    inputs_.pop_front();
    Actions actions = core_.step(input, clock_.read().now);
    for (Action& action : actions) carry_out(action);
  }
  draining_ = false;
  rearm();
}

void Engine::rearm() {
  if (timer_ != 0) loop_.cancel(timer_);
  const std::int64_t wait_ns =
      std::clamp<std::int64_t>(core_.wake_after_ns(clock_.read().now), ns_per_ms, 250 * ns_per_ms);
  timer_ =
      loop_.after(std::chrono::milliseconds((wait_ns + ns_per_ms - 1) / ns_per_ms), "tick of the cluster core", [this] {
        timer_ = 0;
        feed(in::Tick{});
      });
}

void Engine::received(NodeId authenticated_from, ByteView message) {
  auto envelope = decode_envelope(message);
  if (!envelope) {
    log_warning("control message from {} dropped: {}", to_hex(authenticated_from), envelope.error().message);
    return;
  }
  if (envelope->from != authenticated_from) {
    log_warning("control message from {} dropped: it says it is from {}", to_hex(authenticated_from),
                to_hex(envelope->from));
    return;
  }
  feed(in::Received{std::move(*envelope)});
}

// The lease counts from before the renewal was sent; what is left of it now is handed on with the clocks as they read now.
void Engine::extend(const out::ExtendLease& e) {
  const EngineClock::Moment moment = clock_.read();
  const std::int64_t left_ns = e.valid_until_holder_ns - moment.now.holder_ns;
  if (left_ns > 0) host_.extend_lease(e.epoch, moment.reading, left_ns);
}

void Engine::carry_out(Action& action) {
  if (auto* a = std::get_if<out::Persist>(&action)) return host_.persist(a->id, a->state);
  if (auto* a = std::get_if<out::Send>(&action)) return host_.send(a->envelope.to, encode(a->envelope));
  if (auto* a = std::get_if<out::ExtendLease>(&action)) return extend(*a);
  if (auto* a = std::get_if<out::ClearLease>(&action)) return host_.clear_lease(a->epoch);
  if (auto* a = std::get_if<out::SealMirror>(&action)) return host_.seal_mirror(a->epoch, a->look_back);
  if (auto* a = std::get_if<out::BecomeActive>(&action)) return host_.become_active(*a);
  if (auto* a = std::get_if<out::StepDown>(&action)) return host_.step_down(a->epoch, a->reason);
  if (auto* a = std::get_if<out::Follow>(&action)) return host_.follow(a->epoch, a->active);
  if (auto* a = std::get_if<out::InSyncRecorded>(&action)) return host_.in_sync_recorded(a->epoch, a->version, a->set);
  if (auto* a = std::get_if<out::ValueRecorded>(&action)) return host_.value_recorded(a->value);
  if (auto* a = std::get_if<out::Note>(&action)) return host_.note(a->text);
  if (auto* a = std::get_if<out::Answer>(&action)) {
    const auto it = waiting_.find(a->ticket);
    if (it == waiting_.end()) return;
    const Done done = std::move(it->second);
    waiting_.erase(it);
    done(a->ok, a->reason);
  }
}

}  // namespace holdfast::daemon
