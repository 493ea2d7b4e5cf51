// SPDX-License-Identifier: Apache-2.0
// Adapter between the pure cluster core and the world: feeds it inputs with the time, carries out its actions in order, and
// wakes it when it asks. Loop thread only, but for what the ports say.
//
// What must stay true: a vote leaves only after the mirror's seal and the register's file (the core orders it, this class
// never reorders), and ClearLease has taken effect on both fences before any later action is carried out.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "cluster/core.h"
#include "daemon/holdfastd/loop.h"
#include "daemon/holdfastd/mirror_port.h"
#include "platform/clock_reading.h"

namespace holdfast::daemon {

// Both scales of R6 and the raw reading they came from.
class EngineClock {
 public:
  struct Moment {
    Now now;
    platform::ClockReading reading;
  };
  virtual ~EngineClock() = default;
  virtual Moment read() = 0;
};

class SystemEngineClock : public EngineClock {
 public:
  Moment read() override {
    const platform::ClockReading reading = platform::read_clocks();
    return {Now{holder_.now_ns(reading), voter_.now_ns(reading)}, reading};
  }

 private:
  platform::HolderClock holder_;
  platform::VoterClock voter_;
};

// What the daemon does with the core's decisions. Called on the loop; must not block beyond a few milliseconds.
class EngineHost {
 public:
  virtual ~EngineHost() = default;
  virtual void persist(std::uint64_t id, const cluster::VoterState& state) = 0;  // answer: Engine::persisted()
  virtual void send(NodeId to, Bytes message) = 0;
  // `left_ns` of the lease as of `at`; both fences move forward.
  virtual void extend_lease(Epoch epoch, const platform::ClockReading& at, std::int64_t left_ns) = 0;
  virtual void clear_lease(Epoch epoch) = 0;  // both fences are closed when it returns
  // Answer: Engine::feed(MirrorSealed | SealFailed). `look_back`: see out::SealMirror.
  virtual void seal_mirror(Epoch epoch, bool look_back) = 0;
  virtual void become_active(const cluster::out::BecomeActive& won) = 0;
  virtual void step_down(Epoch epoch, const std::string& reason) = 0;
  virtual void follow(Epoch epoch, NodeId active) = 0;
  virtual void in_sync_recorded(Epoch epoch, std::uint64_t version, const std::vector<NodeId>& set) = 0;
  virtual void value_recorded(const cluster::ValuePtr& value) = 0;
  virtual void note(const std::string& text) = 0;
};

class Engine {
 public:
  using Done = std::function<void(bool ok, const std::string& reason)>;

  Engine(Loop& loop, EngineClock& clock, EngineHost& host, cluster::CoreOptions options);
  ~Engine();

  void start(cluster::in::Started started);
  void feed(cluster::Input input);
  void received(NodeId authenticated_from, ByteView message);  // damaged or forged: one log line
  void persisted(std::uint64_t id) { feed(cluster::in::Persisted{id}); }
  // For inputs with a ticket: fills it in, `done` is called exactly once.
  template <class TicketInput>
  void ask(TicketInput input, Done done) {
    input.ticket = next_ticket_++;
    waiting_[input.ticket] = std::move(done);
    feed(std::move(input));
  }

  const cluster::Core& core() const { return core_; }
  cluster::Role role() const { return core_.role(); }
  Now now() { return clock_.read().now; }

 private:
  void drain();
  void carry_out(cluster::Action& action);
  void extend(const cluster::out::ExtendLease& e);
  void rearm();

  Loop& loop_;
  EngineClock& clock_;
  EngineHost& host_;
  cluster::Core core_;
  bool started_ = false;
  bool draining_ = false;
  std::deque<cluster::Input> inputs_;  // what comes while actions are carried out waits its turn
  std::uint64_t next_ticket_ = 1;
  std::map<std::uint64_t, Done> waiting_;
  Loop::TimerId timer_ = 0;
};

}  // namespace holdfast::daemon
