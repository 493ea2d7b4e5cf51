// SPDX-License-Identifier: Apache-2.0
// The register: what a majority of voters holds, and what one voter holds of it.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "ports/clock.h"

namespace holdfast::cluster {

using ClusterId = StrongU64<struct ClusterIdTag>;  // random, made at init
using Incarnation = StrongU64<
    struct IncarnationTag>;  // random, made when a voter starts without state: who forgets is somebody else (R9)

// Limits of the format; codec.cc refuses more, the core refuses to propose more.
constexpr std::size_t max_config_bytes = 64 * 1024;
constexpr std::size_t max_members = 8;
constexpr std::size_t max_name_bytes = 255;
constexpr std::uint32_t lease_ceiling_ms = 2000;  // no lease is longer; a restarted voter stays silent for that long
constexpr std::uint32_t lease_floor_ms = 200;

enum class MemberKind : std::uint8_t { data = 0, witness = 1 };

struct Member {
  NodeId id;
  std::string name;
  std::string site;
  std::uint8_t identity = 0;  // 1 primary, 2 secondary, 3 tertiary; 0 for a witness
  MemberKind kind = MemberKind::data;
  bool voter = false;       // managed by the core: see Core, "who votes"
  Incarnation incarnation;  // its acks and votes count only under this one
  bool operator==(const Member&) const = default;
};

struct Voter {
  NodeId id;
  Incarnation incarnation;
  bool operator==(const Voter&) const = default;
};

struct Settings {
  std::uint32_t lease_ms = 2000;  // profile `fast`: 700
  bool automatic_failover = true;
  bool operator==(const Settings&) const = default;
};

// Values are ordered by (epoch, revision). Only the winner of an epoch makes values in it, one after the other.
struct Revision {
  Epoch epoch;
  std::uint64_t number = 0;
  constexpr auto operator<=>(const Revision&) const = default;
};

struct Value {
  Revision revision;
  NodeId active;
  std::uint64_t in_sync_version = 0;  // rises with every change of in_sync, across epochs
  std::vector<NodeId> in_sync;        // the active is always in it; sorted
  std::vector<Member> members;
  std::vector<Voter> old_voters;  // while the voter set changes: the set before, whose majority is needed as well
  std::uint64_t config_version = 0;
  std::string config;  // opaque text, at most max_config_bytes
  Settings settings;
  bool operator==(const Value&) const = default;

  Epoch epoch() const { return revision.epoch; }
  bool is_in_sync(NodeId id) const { return std::find(in_sync.begin(), in_sync.end(), id) != in_sync.end(); }
  const Member* member(NodeId id) const {
    for (const Member& m : members)
      if (m.id == id) return &m;
    return nullptr;
  }
  bool has_witness() const {
    return std::any_of(members.begin(), members.end(), [](const Member& m) { return m.kind == MemberKind::witness; });
  }
  std::size_t data_nodes() const {
    return static_cast<std::size_t>(
        std::count_if(members.begin(), members.end(), [](const Member& m) { return m.kind == MemberKind::data; }));
  }
};
using ValuePtr = std::shared_ptr<const Value>;  // null = none; values are never changed once made

inline Revision revision_of(const ValuePtr& v) { return v ? v->revision : Revision{}; }

// All that must survive a restart of a voter. Written whole, replaced atomically.
struct VoterState {
  Incarnation incarnation;
  Epoch promised;      // nothing below is accepted any more
  NodeId promised_to;  // the one candidate of that epoch
  ValuePtr accepted;
};

// True when `has(id, incarnation)` holds for a majority of the voters of `value` and, while the voter set changes,
// for a majority of the set before too. Votes, records and leases all count this way: any two of them share a voter.
template <class Predicate>
bool quorum(const Value& value, Predicate has) {
  std::size_t voters = 0, yes = 0;
  for (const Member& m : value.members) {
    if (!m.voter) continue;
    ++voters;
    if (has(m.id, m.incarnation)) ++yes;
  }
  if (yes <= voters / 2) return false;
  std::size_t old_yes = 0;
  for (const Voter& v : value.old_voters)
    if (has(v.id, v.incarnation)) ++old_yes;
  return value.old_voters.empty() || old_yes > value.old_voters.size() / 2;
}

}  // namespace holdfast::cluster
