// SPDX-License-Identifier: Apache-2.0
#include "sim/world.h"

#include <algorithm>
#include <cstdio>

#include <fmt/core.h>

namespace holdfast::sim {

using namespace cluster;

namespace {
constexpr Time drive_every = 200 * ms;
constexpr std::int64_t fence_grace = 500 * ms;
}  // namespace

template <class Deliver>
void World::transmit(NodeId from, NodeId to, Deliver deliver) {
  const Link& way = link(from, to);
  if (!way.up || random_.chance(profile_.loss)) return;
  const int copies = random_.chance(profile_.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    // A copy that took another path may come seconds later.
    const Time detour = i > 0 && random_.chance(0.5) ? random_.between(0, 5 * second) : 0;
    const Time delay = profile_.net_delay + random_.between(0, profile_.net_jitter) + way.extra + detour;
    Machine& target = machine(to);
    at(time_ + delay, [this, &target, life = target.life, from, deliver]() mutable {
      // A connection ends with the process: nothing sent to an earlier life arrives.
      if (target.life == life && target.powered && link(from, target.id).up) deliver(target);
    });
  }
}

World::World(Options options)
    : options_(options),
      profile_(draw_profile(options.seed)),
      random_(options.seed),
      resyncs_(options.seed ^ 0x5e57),
      slow_resyncs_(resyncs_.chance(0.3)) {
  const int count = profile_.data_nodes + (profile_.witness ? 1 : 0);
  for (int i = 0; i < count; ++i) {
    auto m = std::make_unique<Machine>();
    m->id = NodeId(static_cast<std::uint64_t>(i) + 1);
    m->witness = i >= profile_.data_nodes;
    machines_.push_back(std::move(m));
  }
  for (auto& m : machines_) {
    // The holder's scale is the fastest of a machine's clocks, the voter's the slowest; a crystal makes all of them wrong.
    const auto off = [&] { return profile_.drift * static_cast<double>(random_.between(-1000, 1000)) / 1000; };
    const double crystal = random_.chance(0.5) ? (random_.chance(0.5) ? profile_.drift : -profile_.drift) : off();
    const double spread = random_.chance(0.5) ? 0 : std::abs(off()) / 10;
    set_clock(*m, 1 + crystal + spread, 1 + crystal - spread, false);
  }
}

void World::run_until(Time end) {
  while (!events_.empty() && report_.violation.empty() && events_.next_at() <= end) {
    time_ = events_.next_at();
    events_.run_next();
  }
  time_ = end;
}

Now World::now_of(const Machine& m) const {
  const double passed = static_cast<double>(time_ - m.clock.since);
  return {static_cast<std::int64_t>(m.clock.holder_base + passed * m.clock.holder_rate),
          static_cast<std::int64_t>(m.clock.voter_base + (m.clock.voter_stopped ? 0 : passed * m.clock.voter_rate))};
}

void World::set_clock(Machine& m, double holder_rate, double voter_rate, bool voter_stopped) {
  const Now n = now_of(m);
  m.clock = {time_,        static_cast<double>(n.holder_ns), static_cast<double>(n.voter_ns), holder_rate, voter_rate,
             voter_stopped};
}

bool World::word_valid(const Machine& m) const {
  return !m.word_fenced && now_of(m).holder_ns < m.word.until_holder_ns;
}

void World::boot_process(Machine& m) {
  if (m.running || !m.powered) return;
  m.running = true;
  ++m.life;
  m.paused = false;
  m.stalled.clear();
  m.writing.clear();
  m.joiners.clear();
  m.in_sync_version = 0;
  m.in_sync.clear();
  m.handing_to = {};
  m.handing = false;
  m.wake_at = -1;
  const std::uint64_t seed = random_.next();
  if (m.witness)
    m.voter = std::make_unique<VoterCore>(ClusterId(7), m.id, MemberKind::witness, options_.mutation);
  else
    m.core = std::make_unique<Core>(CoreOptions{ClusterId(7), m.id, seed, options_.mutation, true});
  in::Started s;
  s.state = m.disk;
  s.fresh = Incarnation(random_.next() | 1);
  s.machine_rebooted = m.rebooted;
  s.lease_word_valid =
      data(m) && m.mirror.captures() && !m.mirror.draining && word_valid(m) && m.word.epoch == m.mirror.epoch;
  if (data(m) && m.mirror.active && !s.lease_word_valid) m.mirror.stop_capture();
  m.rebooted = false;
  feed(m, s);
  if (data(m)) feed_mirror_state(m);
}

void World::kill_process(Machine& m) {
  m.running = false;
  ++m.life;
  m.core.reset();
  m.voter.reset();
  m.stalled.clear();
  // What was on its way to the disk got there or not, in order.
  while (!m.writing.empty() && random_.chance(0.5)) {
    m.disk = m.writing.front().second;
    m.writing.pop_front();
  }
  m.writing.clear();
}

void World::feed(Machine& m, const Input& input) {
  if (!m.powered || !m.running || !report_.violation.empty()) return;
  if (m.paused) {
    m.stalled.push_back([this, &m, input] { feed(m, input); });
    return;
  }
  stamp(m.id.value * 100 + input.index(), static_cast<std::uint64_t>(time_));
  carry_out(m, m.witness ? m.voter->step(input, now_of(m)) : m.core->step(input, now_of(m)));
  schedule_wake(m);
}

void World::later(Machine& m, Time delay, Input input) {
  at(time_ + delay, [this, &m, life = m.life, input = std::move(input)] {
    if (m.life == life) feed(m, input);
  });
}

void World::schedule_wake(Machine& m) {
  if (!m.core) return;
  const Time target = time_ + std::max<Time>(m.core->wake_after_ns(now_of(m)), ms);
  if (m.wake_at >= time_ && m.wake_at <= target) return;  // fires earlier: then it is asked again
  m.wake_at = target;
  at(target, [this, &m, number = ++m.wake_number, life = m.life] {
    if (m.life != life || m.wake_number != number) return;
    m.wake_at = -1;
    feed(m, in::Tick{});
  });
}

void World::carry_out(Machine& m, Actions actions) {
  const bool writes = std::any_of(actions.begin(), actions.end(),
                                  [](const Action& a) { return std::holds_alternative<out::Persist>(a); });
  for (Action& a : actions) carry_out_one(m, a);
  if (m.doomed && writes && faults_on_) {
    m.doomed = false;
    say(&m, "dies while it writes");
    at(time_, [this, &m] { restart_process(m); });
  }
}

void World::carry_out_one(Machine& m, Action& action) {
  stamp(action.index() + 1000, m.id.value);
  if (auto* p = std::get_if<out::Persist>(&action)) return persist(m, *p);
  if (auto* s = std::get_if<out::Send>(&action)) {
    const auto* vote = std::get_if<Vote>(&s->envelope.body);
    if (vote != nullptr && data(m) && m.mirror.sealed < vote->epoch)
      return violation(fmt::format("n{} votes and its mirror is not sealed", m.id.value));
    transmit(m.id, s->envelope.to,
             [this, e = std::move(s->envelope)](Machine& to) mutable { feed(to, in::Received{std::move(e)}); });
    return;
  }
  if (auto* s = std::get_if<out::SealMirror>(&action)) return seal(m, s->epoch);
  if (auto* x = std::get_if<out::ExtendLease>(&action)) {
    if (!m.mirror.alive || m.word_fenced) return;
    m.word = {x->epoch, x->valid_until_holder_ns};
    if (m.leased_in != x->epoch && writable(m)) {
      m.leased_in = x->epoch;
      check_nothing_lost(m, "it may write in a new epoch");
      loss_accepted_ = false;  // accepted once, for the epoch that was forced
    }
    check_one_writer("a lease was extended");
    return;
  }
  if (std::get_if<out::ClearLease>(&action)) {
    say(&m, "lease word cleared");
    m.word.until_holder_ns = 0;
    return;
  }
  if (auto* b = std::get_if<out::BecomeActive>(&action)) return become_active(m, b->epoch);
  if (auto* s = std::get_if<out::StepDown>(&action)) {
    say(&m, "steps down: " + s->reason);
    m.handing_to = {};
    return m.mirror.stop_capture();
  }
  if (auto* f = std::get_if<out::Follow>(&action)) {
    if (m.mirror.alive && f->epoch >= m.mirror.sealed && !m.mirror.captures()) m.mirror.following = f->epoch;
    return;
  }
  if (auto* i = std::get_if<out::InSyncRecorded>(&action)) return on_in_sync(m, *i);
  if (auto* v = std::get_if<out::ValueRecorded>(&action)) return on_recorded(m, *v->value);
  if (auto* a = std::get_if<out::Answer>(&action)) {
    say(&m, fmt::format("answer {} {} {}", a->ticket, a->ok, a->reason));
    if (const auto it = answers_.find(a->ticket); it != answers_.end()) {
      const auto call = std::move(it->second);
      answers_.erase(it);
      call(a->ok, a->reason);
    }
    return;
  }
  if (auto* n = std::get_if<out::Note>(&action)) say(&m, n->text);
}

void World::on_in_sync(Machine& m, const out::InSyncRecorded& i) {
  say(&m, fmt::format("in-sync version {} of {} recorded", i.version, i.set.size()));
  m.in_sync_version = i.version;
  m.in_sync.clear();
  for (const NodeId id : i.set)
    if (id != m.id) m.in_sync.insert(id);
  for (const NodeId id : m.in_sync) m.joiners.erase(id);
  m.mirror.wait = m.in_sync;
  for (const auto& [id, need] : m.joiners) m.mirror.wait.insert(id);
  acknowledge(m);
}

void World::on_recorded(Machine& m, const Value& v) {
  // A node that was cut off may learn late that its value was recorded; what counts is the newest epoch.
  const bool outdated = !epoch_owner_.empty() && v.epoch() < epoch_owner_.rbegin()->first;
  if (v.active != m.id || outdated || v.in_sync.size() < 2) return;
  for (const NodeId id : v.in_sync) check_nothing_lost(machine(id), "it stands in a recorded in-sync set");
}

void World::persist(Machine& m, const out::Persist& p) {
  m.writing.emplace_back(p.id, p.state);
  m.disk_free_at = std::max(m.disk_free_at, time_) + profile_.disk + random_.between(0, profile_.disk_jitter);
  at(m.disk_free_at, [this, &m, id = p.id, life = m.life] {
    if (m.life != life || m.writing.empty() || m.writing.front().first != id) return;
    m.disk = m.writing.front().second;
    m.writing.pop_front();
    feed(m, in::Persisted{id});
  });
}

void World::seal(Machine& m, Epoch e) {
  if (!m.mirror.alive) return later(m, ms, in::SealFailed{e, "the mirror is down"});
  say(&m, fmt::format("seals for epoch {}", e.value));
  const Time delay = profile_.disk + random_.between(0, profile_.disk_jitter);
  at(time_ + delay, [this, &m, e, life = m.mirror.life, process = m.life] {
    if (m.mirror.life != life || m.life != process) return;
    m.mirror.sealed = std::max(m.mirror.sealed, e);
    m.mirror.durable = m.mirror.log;
    feed(m, in::MirrorSealed{e, position(m.mirror.durable), m.mirror.complete, !m.mirror.complete, ""});
  });
}

void World::become_active(Machine& m, Epoch e) {
  say(&m, fmt::format("becomes active in epoch {}", e.value));
  m.won_at = time_;
  const auto [owner, first] = epoch_owner_.emplace(e, m.id);
  if (!first && owner->second != m.id) return violation(fmt::format("epoch {} has two actives", e.value));
  if (m.mirror.captures() && m.mirror.epoch == e) return;  // resumed
  const Time mounting = random_.between(1, 100) * ms;
  at(time_ + mounting,
     [this, &m, e, process = m.life, life = m.mirror.life, fails = founded_ && faults_on_ && random_.chance(0.05)] {
       const bool office = m.life == process && m.core->role() == Role::active && m.core->epoch() == e;
       if (!office) return;
       if (fails || m.mirror.life != life || !m.mirror.alive || m.mirror.sealed > e) {
         say(&m, "its mirror can't capture");
         return feed(m, in::Resign{m.mirror.wait.empty() ? NodeId{} : *m.mirror.wait.begin()});
       }
       activate(m, e);
       feed(m, in::Activated{e});
     });
}

void World::feed_mirror_state(Machine& m) {
  const MirrorModel& r = m.mirror;
  feed(m, in::MirrorState{position(r.durable), r.alive && r.complete, r.sealed, r.alive && !r.complete});
}

void World::activate(Machine& m, Epoch e) {
  // An epoch may be recorded, and captured in, when it has been overtaken already: then it never gets a lease.
  say(&m, "captures");
  m.mirror.durable = m.mirror.log;
  m.mirror.complete = true;
  m.mirror.following = {};
  m.mirror.sealed = e;
  m.mirror.activate(e);
  m.word = {e, 0};
  m.word_fenced = false;
  m.joiners.clear();
  m.handing_to = {};
}

// --- the data path

void World::client_write(Machine& m) {
  if (!writable(m) || m.frozen) return;
  check_one_writer("a client wrote");
  records_.push_back(Record{m.mirror.log, length(m.mirror.log) + 1, m.mirror.epoch});
  m.mirror.log = &records_.back();
  m.mirror.unacknowledged.push_back(m.mirror.log);
  sync_local(m);
  for (auto& peer : machines_)
    if (data(*peer) && peer->id != m.id) ship(m, peer->id);
}

void World::sync_local(Machine& m) {
  at(time_ + profile_.disk + random_.between(0, profile_.disk_jitter),
     [this, &m, log = m.mirror.log, life = m.mirror.life, e = m.mirror.epoch] {
       if (m.mirror.life != life || m.mirror.epoch != e || !m.mirror.active) return;
       if (length(log) > length(m.mirror.durable)) m.mirror.durable = log;
       acknowledge(m);
     });
}

void World::ship(Machine& m, NodeId peer) {
  transmit(m.id, peer,
           [this, from = m.id, e = m.mirror.epoch, log = m.mirror.log](Machine& to) { receive(to, from, e, log); });
}

void World::receive(Machine& m, NodeId from, Epoch e, Log log) {
  MirrorModel& r = m.mirror;
  const auto refuses = [&m, &r, e] { return m.frozen || !r.alive || r.captures() || r.following != e || r.sealed > e; };
  if (refuses()) return;
  const Time delay = profile_.disk + random_.between(0, profile_.disk_jitter);
  at(time_ + delay, [this, &m, from, e, log, refuses, life = r.life] {
    MirrorModel& mirror = m.mirror;
    if (mirror.life != life || refuses()) return;
    if (mirror.received_in == e && mirror.received_length > length(log)) return;
    // What stands here from an earlier epoch is replaced as a whole: a resync. In some lives it takes its time.
    if (mirror.received_in != e && slow_resyncs_ && mirror.durable && !contains(log, mirror.durable)) {
      mirror.complete = false;
      mirror.resync_ends = time_ + resyncs_.between(1, 12) * second;
      say(&m, "is resynchronized");
    }
    mirror.received_in = e;
    mirror.received_length = length(log);
    if (!mirror.complete && time_ < mirror.resync_ends) return;
    mirror.complete = true;
    mirror.log = mirror.durable = log;
    transmit(m.id, from, [this, peer = m.id, e, got = length(mirror.durable)](Machine& active) {
      MirrorModel& a = active.mirror;
      if (!a.active || a.epoch != e) return;
      a.acked[peer] = std::max(a.acked[peer], got);
      a.acked_at[peer] = time_;
      acknowledge(active);
    });
  });
}

void World::acknowledge(Machine& m) {
  MirrorModel& a = m.mirror;
  if (!writable(m) || m.frozen) return;
  std::erase_if(a.unacknowledged, [&](Log log) {
    if (length(a.durable) < log->length) return false;
    for (const NodeId peer : a.wait)
      if (a.acked[peer] < log->length) return false;
    check_one_writer("a write was acknowledged");
    for (const NodeId peer : m.in_sync)
      if (!contains(machine(peer).mirror.durable, log))
        violation(fmt::format("n{} is in-sync and lacks a write when it is acknowledged", peer.value));
    acknowledged_.push_back(log);
    ++acknowledged_total_;
    return true;
  });
}

// --- checks

void World::check_one_writer(const char* when) {
  const Machine* first = nullptr;
  for (const auto& m : machines_) {
    if (m->witness || !writable(*m)) continue;
    if (first != nullptr)
      return violation(fmt::format("n{} (epoch {}) and n{} (epoch {}) can both write when {}", first->id.value,
                                   first->word.epoch.value, m->id.value, m->word.epoch.value, when));
    first = m.get();
  }
}

void World::check_nothing_lost(Machine& m, const char* when) {
  if (!acknowledged_.empty() && !contains(m.mirror.durable, acknowledged_.back())) {
    if ((loss_accepted_ || vouched_) && when == std::string("it may write in a new epoch")) {
      std::erase_if(acknowledged_, [&](Log log) { return !contains(m.mirror.durable, log); });
      return;
    }
    violation(fmt::format("n{} lacks an acknowledged write when {}", m.id.value, when));
  }
}

void World::violation(const std::string& what, bool unsafe) {
  if (!report_.violation.empty()) return;
  report_.unsafe = unsafe;
  report_.violation = fmt::format("at {:.3f} s: {}", static_cast<double>(time_) / second, what);
  say(nullptr, "VIOLATION " + report_.violation);
}

void World::say(const Machine* m, const std::string& text) {
  if (options_.trace)
    fmt::print("{:10.4f} {} {}\n", static_cast<double>(time_) / second,
               m ? (m->witness ? "w1" : "n" + std::to_string(m->id.value)) : "--", text);
}

void World::stamp(std::uint64_t a, std::uint64_t b) {
  report_.trace_hash = (report_.trace_hash ^ (a * 0x9E3779B97F4A7C15ULL + b)) * 0x100000001B3ULL;
}

// --- the daemon's periodic work

void World::drive(Machine& m) {
  at(time_ + drive_every, [this, &m] { drive(m); });
  if (!m.powered || m.frozen) return;
  // The watchdog is a process of its own: it works with holdfastd dead or hung.
  if (m.mirror.active && now_of(m).holder_ns > m.word.until_holder_ns + fence_grace && m.word.until_holder_ns > 0)
    fence(m);
  if (!m.running || m.paused) return;
  if (m.mirror.active && m.core->role() != Role::active && m.core->role() != Role::recording && m.handing_to.value == 0)
    m.mirror.stop_capture();
  feed_mirror_state(m);
  if (m.mirror.alive && !m.mirror.captures() && m.core->active() != m.id && m.core->epoch() >= m.mirror.sealed)
    m.mirror.following = m.core->epoch();
  if (m.running && m.core && m.core->role() == Role::active && m.mirror.alive && !m.mirror.captures() && !m.handing &&
      time_ - m.won_at > second) {
    say(&m, "resigns: nothing captures here");
    feed(m, in::Resign{});
  }
  if (m.mirror.active) drive_peers(m);
  if (m.handing_to.value != 0) drive_handover(m);
}

void World::fence(Machine& m) {
  say(&m, "fence: capture aborted");
  m.word_fenced = true;
  m.mirror.stop_capture();
  m.handing_to = {};
  if (m.running) feed(m, in::Resign{});
}

void World::drive_peers(Machine& m) {
  MirrorModel& a = m.mirror;
  for (auto& peer : machines_) {
    const NodeId id = peer->id;
    if (peer->witness || id == m.id) continue;
    ship(m, id);
    const bool fresh = a.acked_at.contains(id) && time_ - a.acked_at[id] < profile_.lost_after;
    const bool waited_for = m.in_sync.contains(id) || m.joiners.contains(id);
    if (!fresh && waited_for) {
      m.joiners.erase(id);
      feed(m, in::PeerLost{id});
    } else if (fresh && !waited_for) {
      m.joiners[id] = length(a.log);
      if (!options_.joiner_without_wait) a.wait.insert(id);
    } else if (fresh && m.joiners.contains(id) && a.acked[id] >= m.joiners[id]) {
      feed(m, in::WaitingFor{id, m.in_sync_version});
    }
    if (!a.active || !m.running) return;
  }
}

void World::drive_handover(Machine& m) {
  MirrorModel& a = m.mirror;
  if (!m.core || m.core->role() != Role::active || !a.active) {
    m.handing_to = {};
    return;
  }
  const bool drained = a.acked[m.handing_to] >= length(a.log) && length(a.durable) >= length(a.log);
  if (!drained && time_ < m.handing_until) return;
  const NodeId to = std::exchange(m.handing_to, NodeId{});
  if (!drained) {
    a.stop_capture();
    feed(m, in::Resign{m.id});  // nothing follows epoch-end: it wins the next epoch itself
    return;
  }
  a.stop_capture();
  const std::uint64_t ticket = ++ticket_;
  m.handing = true;
  answers_[ticket] = [this, &m](bool ok, const std::string&) {
    m.handing = false;
    if (!ok) later(m, 0, in::Resign{m.id});
  };
  feed(m, in::Handover{to, ticket});
}

// For the trace of a run that did not converge: what everybody believes.
void World::say_state() {
  for (const auto& m : machines_) {
    if (!data(*m) || !m->core) continue;
    const Core& c = *m->core;
    const MirrorModel& a = m->mirror;
    say(m.get(), fmt::format("end: {} epoch {} promised {} | mirror alive {} captures {} sealed {} following {} log {} "
                             "| word {} fenced {} writable {} | {} joiners, {} in-sync",
                             to_string(c.role()), c.epoch().value, c.voter().state().promised.value, a.alive,
                             a.captures(), a.sealed.value, a.following.value, length(a.log), m->word.epoch.value,
                             m->word_fenced, writable(*m), m->joiners.size(), m->in_sync.size()));
    for (const VoteStatus& v : c.votes(now_of(*m)))
      say(m.get(), fmt::format("     {} voter {} reachable {} granted {} readmission {}", v.name, v.voter, v.reachable,
                               v.granted, v.readmission_needed));
  }
}

// --- a run

Report World::run() {
  found();
  for (auto& m : machines_)
    if (data(*m)) at(random_.between(0, drive_every), [this, p = m.get()] { drive(*p); });
  at(20 * second, [this] { fault(); });
  std::function<void()> writes = [this, &writes] {
    for (auto& m : machines_)
      if (data(*m)) client_write(*m);
    at(time_ + random_.between(1, 2 * profile_.write_every), writes);
  };
  at(5 * second, writes);
  run_until(profile_.duration);
  faults_on_ = false;
  heal();
  const Time deadline = time_ + 90 * second;
  while (report_.violation.empty() && time_ < deadline && !settled()) {
    nudge_admin();
    run_until(time_ + second);
  }
  if (report_.violation.empty() && !settled()) say_state();
  if (report_.violation.empty() && !settled()) violation("nothing converged within 90 s after the last fault", false);
  report_.simulated = time_;
  report_.acknowledged = acknowledged_total_;
  report_.epochs = epoch_owner_.size();
  return report_;
}

}  // namespace holdfast::sim
