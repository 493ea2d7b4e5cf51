// SPDX-License-Identifier: Apache-2.0
// What goes wrong, who does something silly at a bad moment, and when everything is well again.
#include <fmt/core.h>

#include "sim/world.h"

namespace holdfast::sim {

using namespace cluster;

Profile draw_profile(std::uint64_t seed) {
  Random r(seed ^ 0xABCDEF);
  Profile p;
  const auto topology = r.between(0, 9);
  p.data_nodes = topology >= 8 ? 3 : 2;
  p.witness = topology < 6 || topology == 9;
  p.lease_ms = r.chance(0.3) ? 700 : 2000;
  p.automatic = r.chance(0.9);
  p.duration = r.between(60, 240) * second;
  p.net_delay = r.chance(0.2) ? r.between(5, 40) * ms : r.between(20, 1000) * 1000;
  p.net_jitter = r.chance(0.3) ? p.net_delay * 10 : p.net_delay / 2;
  p.loss = r.chance(0.5) ? 0 : static_cast<double>(r.between(0, 100)) / 1000;
  p.duplicate = r.chance(0.4) ? 0 : r.chance(0.6) ? 0.05 : 0.5;
  p.disk = r.chance(0.3) ? r.between(20, 200) * 1000 : r.between(1, 10) * ms;
  p.disk_jitter = r.chance(0.2) ? 300 * ms : p.disk;
  p.drift = r.chance(0.3) ? 0 : 0.007;
  p.write_every = r.between(40, 400) * ms;
  // Long enough for an ack to come in on a good day, or a peer would be lost and found for ever.
  p.lost_after = r.between(400, 2500) * ms + 3 * (p.disk + p.disk_jitter + p.net_jitter + p.net_delay);
  p.fault_every = r.between(1, 12) * second;
  p.partitions = r.chance(0.7);
  p.power = r.chance(0.5);
  p.restarts = r.chance(0.5);
  p.pauses = r.chance(0.5);
  p.jumps = r.chance(0.3);
  p.mirror_deaths = r.chance(0.4);
  p.amnesia = r.chance(0.3);
  p.admin = r.chance(0.5);
  p.lags = r.chance(0.3);
  return p;
}

void World::found() {
  for (auto& m : machines_) boot_process(*m);
  Value v;
  v.members.push_back(Member{NodeId(1), "n1", "here", 1, MemberKind::data, false, {}});
  v.config = "{}";
  v.config_version = 1;
  v.settings = {profile_.lease_ms, profile_.automatic};
  const std::uint64_t ticket = ++ticket_;
  answers_[ticket] = [this](bool ok, const std::string& why) {
    if (!ok) return violation("the cluster could not be founded: " + why);
    at(time_ + 10 * ms, [this] { add_next_member(); });
  };
  at(100 * ms, [this, v, ticket] { feed(machine(NodeId(1)), in::Found{v, ticket}); });
}

void World::add_next_member() {
  Machine& first = machine(NodeId(1));
  const ValuePtr value = first.core->value();
  for (auto& m : machines_) {
    if (value->member(m->id) != nullptr) continue;
    const Incarnation incarnation = m->witness ? m->voter->state().incarnation : m->core->voter().state().incarnation;
    const auto identity = static_cast<std::uint8_t>(m->witness ? 0 : m->id.value);
    const std::uint64_t ticket = ++ticket_;
    answers_[ticket] = [this](bool ok, const std::string& why) {
      if (!ok) return violation("a member could not be added: " + why);
      at(time_ + 10 * ms, [this] { add_next_member(); });
    };
    const auto kind = m->witness ? MemberKind::witness : MemberKind::data;
    feed(first,
         in::AddMember{Member{m->id, "m" + std::to_string(m->id.value), "here", identity, kind, false, incarnation},
                       ticket});
    return;
  }
  founded_ = true;
}

void World::fault() {
  if (!faults_on_) return;
  at(time_ + random_.around(profile_.fault_every), [this] { fault(); });
  if (!founded_) return;
  Machine& any =
      *machines_[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(machines_.size()) - 1))];
  const Profile& p = profile_;
  // By the numbers of the cases below; what the seed did not choose is drawn again.
  const bool enabled[] = {
      p.partitions, p.partitions, p.partitions,    p.power,   p.power, p.restarts, p.restarts,
      p.pauses,     p.jumps,      p.mirror_deaths, p.amnesia, p.admin, p.admin,    p.lags || !p.witness};
  std::int64_t kind = random_.between(0, 13);
  for (int i = 0; i < 20 && !enabled[kind]; ++i) kind = random_.between(0, 13);
  switch (kind) {
    case 0:
    case 1:
    case 2:
      if (profile_.partitions) partition();
      break;
    case 3:
      if (profile_.power) power_cut(any, random_.around(8 * second));
      break;
    case 4:
      if (profile_.power && random_.chance(0.2))
        for (auto& m : machines_) power_cut(*m, random_.around(4 * second));
      break;
    case 5:
      if (profile_.restarts) restart_process(any);
      break;
    case 6:
      any.doomed = profile_.restarts;
      break;
    case 7:
      if (profile_.pauses) pause(any, random_.chance(0.5));
      break;
    case 8:
      for (auto& m : machines_) {
        if (!profile_.jumps || random_.chance(0.5)) continue;
        m->clock.holder_base += static_cast<double>(random_.chance(0.5) ? 3600 * second : random_.around(second));
        say(m.get(), "wall clock jumps ahead");
      }
      break;
    case 9:
      if (profile_.mirror_deaths && data(any)) mirror_death(any);
      break;
    case 10:
      if (profile_.amnesia) witness_amnesia();
      break;
    case 11:
      if (profile_.admin) admin_switchover();
      break;
    case 12:
      if (profile_.admin) admin_failover();
      break;
    case 13:
      if (profile_.lags) {
        Link& slow = link(any.id, any_data().id);
        slow.extra = random_.around(200 * ms);
        at(time_ + random_.around(5 * second), [&slow] { slow.extra = 0; });
      } else if (profile_.admin || !profile_.witness) {
        admin_force();
      }
      break;
    default:
      break;
  }
}

void World::partition() {
  const bool one_way = random_.chance(0.3);
  const Machine& lonely =
      *machines_[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(machines_.size()) - 1))];
  const bool whole = random_.chance(0.5);
  std::vector<std::pair<NodeId, NodeId>> cut;
  for (const auto& m : machines_) {
    if (m->id == lonely.id || (!whole && random_.chance(0.5))) continue;
    cut.emplace_back(lonely.id, m->id);
    if (!one_way) cut.emplace_back(m->id, lonely.id);
  }
  say(&lonely, fmt::format("{} links cut", cut.size()));
  for (const auto& c : cut) link(c.first, c.second).up = false;
  at(time_ + random_.around(6 * second), [this, cut] {
    for (const auto& c : cut) link(c.first, c.second).up = true;
    say(nullptr, "links back");
  });
}

void World::power_cut(Machine& m, Time off_for) {
  if (!m.powered) return;
  say(&m, "power cut");
  kill_process(m);
  m.powered = false;
  m.paused = m.frozen = false;
  m.mirror.crash();
  m.word = {};
  m.word_fenced = false;
  at(time_ + off_for, [this, &m] { power_on(m); });
}

void World::power_on(Machine& m) {
  if (m.powered) return;
  if (vouched_ && faults_on_)
    return at(time_ + second, [this, &m] { power_on(m); });  // the administrator vouched that it stays off
  say(&m, "boots");
  m.powered = true;
  m.rebooted = true;
  m.mirror.alive = true;
  set_clock(m, m.clock.holder_rate, m.clock.voter_rate, false);
  boot_process(m);
}

void World::restart_process(Machine& m) {
  if (!m.running) return;
  say(&m, "holdfastd killed");
  kill_process(m);
  const Time down = random_.chance(0.5) ? random_.between(10, 900) * ms : random_.around(3 * second);
  at(time_ + down, [this, &m] {
    if (!m.powered || m.running || m.frozen) return;
    say(&m, "holdfastd starts");
    boot_process(m);
  });
}

void World::pause(Machine& m, bool whole_machine) {
  if (!m.running || m.paused) return;
  say(&m, whole_machine ? "machine frozen" : "holdfastd hangs");
  m.paused = true;
  m.frozen = whole_machine;
  if (whole_machine && random_.chance(0.7)) set_clock(m, m.clock.holder_rate, m.clock.voter_rate, true);
  at(time_ + random_.around(3 * second), [this, &m] { thaw(m); });
}

void World::thaw(Machine& m) {
  if (!m.paused) return;
  say(&m, "goes on");
  m.paused = m.frozen = false;
  set_clock(m, m.clock.holder_rate, m.clock.voter_rate, false);
  auto stalled = std::move(m.stalled);
  m.stalled.clear();
  for (auto& s : stalled) s();
  if (m.mirror.active) acknowledge(m);
}

void World::mirror_death(Machine& m) {
  if (!m.powered || !m.mirror.alive || m.frozen) return;
  say(&m, "mirror dies");
  m.mirror.crash();
  m.word.until_holder_ns = 0;
  feed_mirror_state(m);
  feed(m, in::Resign{});
  at(time_ + random_.around(2 * second), [this, &m] {
    if (m.powered) m.mirror.alive = true;
  });
}

void World::witness_amnesia() {
  Machine& w = *machines_.back();
  if (!w.witness || !w.running) return;
  say(&w, "loses its memory");
  kill_process(w);
  w.disk.reset();
  w.powered = true;
  boot_process(w);
}

void World::admin_switchover() {
  Machine& to = any_data();
  for (auto& m : machines_) {
    if (m->witness || !m->running || m->paused || m->core->role() != Role::active || m->id == to.id) continue;
    if (!m->mirror.captures() || m->handing_to.value != 0 || m->handing || !m->in_sync.contains(to.id)) continue;
    say(m.get(), fmt::format("administrator: make n{} active", to.id.value));
    m->mirror.draining = true;
    m->handing_to = to.id;
    m->handing_until = time_ + 3 * second;
  }
}

void World::admin_failover() {
  Machine& m = any_data();
  if (!m.running || m.paused || m.core->role() == Role::active) return;
  say(&m, "administrator: failover");
  feed(m, in::Failover{false, 0, ++ticket_});
}

// Only when the active's machine is off, and it stays off until the answer: that is what the administrator vouches for.
void World::admin_force() {
  if (vouched_ || (profile_.witness || profile_.data_nodes > 2)) return;
  for (auto& m : machines_) {
    if (m->powered) continue;
    for (auto& other : machines_) {
      if (other->witness || !other->running || other->paused || other->core->role() == Role::active) continue;
      vouched_ = true;
      const std::uint64_t ticket = ++ticket_;
      say(other.get(), "administrator: failover --force");
      answers_[ticket] = [this](bool ok, const std::string&) {
        vouched_ = false;
        loss_accepted_ |= ok;
      };
      feed(*other, in::Failover{true, 1'000'000 + static_cast<std::uint64_t>(time_ / ms), ticket});
      // Should the process die it never answers; by then the old one may not be promoted by it any more.
      at(time_ + 30 * second, [this, ticket] {
        if (answers_.erase(ticket) == 0) return;
        vouched_ = false;
        loss_accepted_ = true;  // it may have been won
      });
      return;
    }
  }
}

void World::heal() {
  say(nullptr, "faults end");
  links_ = {};
  profile_.loss = profile_.duplicate = 0;
  for (auto& m : machines_) {
    if (m->paused) thaw(*m);
    if (!m->powered) power_on(*m);
    m->mirror.alive = true;
    if (!m->running) boot_process(*m);
  }
  without_active_since_ = time_;
}

bool World::settled() {
  const Machine* active = nullptr;
  for (const auto& m : machines_)
    if (data(*m) && writable(*m)) active = m.get();
  if (active == nullptr || !active->running || active->core->role() != Role::active) return false;
  without_active_since_ = time_;
  const Value& v = *active->core->value();
  if (!v.old_voters.empty() || v.in_sync.size() != static_cast<std::size_t>(profile_.data_nodes)) return false;
  const bool all_vote = profile_.witness || profile_.data_nodes > 2;
  for (const Member& m : v.members) {
    if (m.voter != (all_vote || m.id == active->id)) return false;
    const Machine& owner = machine(m.id);
    const VoterCore& voter = owner.witness ? *owner.voter : owner.core->voter();
    if (voter.state().incarnation != m.incarnation || revision_of(voter.accepted()) != v.revision) return false;
  }
  return true;
}

// Where the rules leave it to a person, a person comes: no automatic failover, or no witness.
void World::nudge_admin() {
  const bool person_needed = !profile_.automatic || (!profile_.witness && profile_.data_nodes == 2);
  if (!person_needed || time_ - without_active_since_ < 15 * second || vouched_) return;
  Machine* best = nullptr;
  for (auto& m : machines_)
    if (data(*m) && (best == nullptr || m->core->value()->revision > best->core->value()->revision)) best = m.get();
  // The active of the newest epoch loses least.
  if (best->core->active().value != 0) best = &machine(best->core->active());
  without_active_since_ = time_;
  const bool force = !profile_.witness && profile_.data_nodes == 2;
  const std::uint64_t ticket = ++ticket_;
  vouched_ = force;
  answers_[ticket] = [this, force](bool ok, const std::string&) {
    vouched_ = false;
    loss_accepted_ |= ok && force;
  };
  say(best, "administrator: failover at last");
  feed(*best, in::Failover{force, 1'000'000 + static_cast<std::uint64_t>(time_ / ms), ticket});
}

}  // namespace holdfast::sim
