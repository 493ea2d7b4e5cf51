// SPDX-License-Identifier: Apache-2.0
// A simulated cluster: machines with clocks, disks and processes, a network, administrators, and what must never happen.
// One seed decides everything; nothing here reads a real clock.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/core.h"
#include "sim/event_queue.h"
#include "sim/mirror_model.h"

namespace holdfast::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : s_(seed * 0x9E3779B97F4A7C15ULL + 0x1234567) {
    next();
    next();
  }
  std::uint64_t next() {
    s_ ^= s_ >> 12;
    s_ ^= s_ << 25;
    s_ ^= s_ >> 27;
    return s_ * 0x2545F4914F6CDD1DULL;
  }
  std::int64_t between(std::int64_t low, std::int64_t high) {  // both included
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(double p) { return static_cast<double>(next() >> 11) * 0x1.0p-53 < p; }
  std::int64_t around(std::int64_t mean) {  // roughly exponential
    std::int64_t v = between(1, 2 * mean);
    return chance(0.15) ? v * 4 : v;
  }

 private:
  std::uint64_t s_;
};

// What a seed chose: topology, timings, mix of faults.
struct Profile {
  int data_nodes = 2;
  bool witness = true;
  std::uint32_t lease_ms = 2000;
  bool automatic = true;
  Time duration = 0;
  Time net_delay = 0, net_jitter = 0;
  double loss = 0, duplicate = 0;
  Time disk = 0, disk_jitter = 0;
  double drift = 0;  // of each clock, at most
  Time write_every = 0;
  Time lost_after = 0;
  Time fault_every = 0;
  bool partitions = false, power = false, restarts = false, pauses = false, jumps = false, mirror_deaths = false,
       amnesia = false, admin = false, lags = false;
};
Profile draw_profile(std::uint64_t seed);

struct Options {
  std::uint64_t seed = 1;
  bool trace = false;
  cluster::Mutation mutation;
  bool joiner_without_wait = false;  // planted in the driver: WaitingFor although the mirror does not wait
};

struct Report {
  std::string violation;  // empty = none
  bool unsafe = false;    // not only that it did not converge
  Time simulated = 0;
  std::uint64_t trace_hash = 0;
  std::uint64_t acknowledged = 0;
  std::uint64_t epochs = 0;
};

class World {
 public:
  explicit World(Options options);
  Report run();

 private:
  struct LeaseWord {
    Epoch epoch;
    std::int64_t until_holder_ns = 0;
  };
  struct Clock {
    Time since = 0;
    double holder_base = 0, voter_base = 0, holder_rate = 1, voter_rate = 1;
    bool voter_stopped = false;
  };
  // One machine: hardware, the mirror, and holdfastd (or the witness) as `life` number n.
  struct Machine {
    NodeId id;
    bool witness = false;
    bool powered = true;
    bool rebooted = false;
    Clock clock;
    MirrorModel mirror;
    LeaseWord word;
    bool word_fenced = false;
    std::optional<cluster::VoterState> disk;
    std::uint64_t life = 0;
    bool running = false;
    bool paused = false;
    std::unique_ptr<cluster::Core> core;
    std::unique_ptr<cluster::VoterCore> voter;
    std::deque<std::function<void()>> stalled;  // came in while paused
    std::deque<std::pair<std::uint64_t, cluster::VoterState>> writing;
    Time disk_free_at = 0;
    std::uint64_t wake_number = 0;
    Time wake_at = -1;
    // driver
    std::uint64_t in_sync_version = 0;
    std::map<NodeId, std::uint64_t> joiners;  // wait begun: log length they must ack before they may join
    std::set<NodeId> in_sync;
    NodeId handing_to;
    Time handing_until = 0;
    bool handing = false;  // unmounted, the register's answer to the handover is awaited
    Time won_at = 0;
    Epoch leased_in;
    bool doomed = false;  // dies at the worst moment: with a state on its way to the disk
    bool frozen = false;  // the whole machine stands still, not only holdfastd
  };
  struct Link {
    bool up = true;
    Time extra = 0;
  };

  // world.cc
  template <class What>
  void at(Time when, What&& what) {
    events_.push(std::max(when, time_), std::forward<What>(what));
  }
  void run_until(Time end);
  Now now_of(const Machine& m) const;
  void set_clock(Machine& m, double holder_rate, double voter_rate, bool voter_stopped);
  void boot_process(Machine& m);
  void kill_process(Machine& m);
  void feed(Machine& m, const cluster::Input& input);
  void feed_mirror_state(Machine& m);
  void later(Machine& m, Time delay, cluster::Input input);
  void carry_out(Machine& m, cluster::Actions actions);
  void carry_out_one(Machine& m, cluster::Action& action);
  void on_in_sync(Machine& m, const cluster::out::InSyncRecorded& i);
  void on_recorded(Machine& m, const cluster::Value& v);
  void schedule_wake(Machine& m);
  // `deliver` is called once for each copy that arrives.
  template <class Deliver>
  void transmit(NodeId from, NodeId to, Deliver deliver);
  void persist(Machine& m, const cluster::out::Persist& p);
  void seal(Machine& m, Epoch e);
  void become_active(Machine& m, Epoch e);
  void activate(Machine& m, Epoch e);
  void drive(Machine& m);  // the daemon's and the watchdog's periodic work
  void drive_peers(Machine& m);
  void drive_handover(Machine& m);
  void fence(Machine& m);
  void client_write(Machine& m);
  void sync_local(Machine& m);
  void ship(Machine& m, NodeId peer);
  void receive(Machine& m, NodeId from, Epoch e, Log log);
  void acknowledge(Machine& m);
  bool word_valid(const Machine& m) const;
  bool writable(const Machine& m) const {
    return m.powered && m.mirror.captures() && !m.mirror.draining && word_valid(m) && m.word.epoch == m.mirror.epoch;
  }
  static constexpr std::size_t most_machines = 8;
  Link& link(NodeId from, NodeId to) { return links_[from.value - 1][to.value - 1]; }
  Machine& machine(NodeId id) { return *machines_[id.value - 1]; }
  bool data(const Machine& m) const { return !m.witness; }
  // faults.cc
  void found();
  void add_next_member();
  void fault();
  void partition();
  void power_cut(Machine& m, Time off_for);
  void power_on(Machine& m);
  void restart_process(Machine& m);
  void pause(Machine& m, bool whole_machine);
  void thaw(Machine& m);
  void mirror_death(Machine& m);
  void witness_amnesia();
  void admin_switchover();
  void admin_failover();
  void admin_force();
  void heal();
  bool settled();
  void nudge_admin();
  Machine& any_data() { return *machines_[static_cast<std::size_t>(random_.between(0, profile_.data_nodes - 1))]; }
  // checks
  void violation(const std::string& what, bool unsafe = true);
  void check_one_writer(const char* when);
  void check_nothing_lost(Machine& m, const char* when);
  void say_state();
  void say(const Machine* m, const std::string& text);
  void stamp(std::uint64_t a, std::uint64_t b);

  Options options_;
  Profile profile_;
  Random random_;
  Random resyncs_;  // of its own: seeds that are known for something stay what they are
  bool slow_resyncs_ = false;
  Time time_ = 0;
  EventQueue events_;
  std::vector<std::unique_ptr<Machine>> machines_;
  std::array<std::array<Link, most_machines>, most_machines> links_;
  bool faults_on_ = true;
  std::uint64_t ticket_ = 0;
  std::map<std::uint64_t, std::function<void(bool, const std::string&)>> answers_;
  bool vouched_ = false;        // an administrator's --force is under way: meanwhile what is off stays off
  bool loss_accepted_ = false;  // one was won, and nobody has written since: another that is refused takes nothing back
  bool founded_ = false;
  Time without_active_since_ = 0;
  std::map<Epoch, NodeId> epoch_owner_;
  std::deque<Record> records_;     // all that were ever written
  std::vector<Log> acknowledged_;  // fsyncs answered 0 that must not be lost
  std::uint64_t acknowledged_total_ = 0;
  Report report_;
};

}  // namespace holdfast::sim
