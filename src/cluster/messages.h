// SPDX-License-Identifier: Apache-2.0
// What members say to each other. Any message may be lost, doubled, late or out of order. Encoding: codec.h.
#pragma once

#include <variant>

#include "cluster/types.h"

namespace holdfast::cluster {

// Candidate to all members, before anything is sealed: would you vote for me? Costs nothing when the answer is no.
struct Canvass {
  std::uint64_t round = 0;  // of this candidate, random: answers to an earlier life or attempt don't count
};
struct CanvassReply {
  std::uint64_t round = 0;
  bool granted = false;
  std::uint32_t retry_ms = 0;  // when not granted: how long the promise to somebody else still lasts
  Epoch promised;
  Incarnation incarnation;
  Position position;      // a hint: nothing is sealed yet
  bool complete = false;  // and able to lead: others may stand back for this node
  ValuePtr accepted;
};

struct VoteRequest {
  std::uint64_t round = 0;
  Epoch epoch;
};
// Sealed, read, persisted, sent: in this order (R1).
struct Vote {
  std::uint64_t round = 0;
  Epoch epoch;
  Incarnation incarnation;
  Position position;
  bool complete = false;
  ValuePtr accepted;
};

// The winner of value->epoch() asks to record a value.
struct Accept {
  ValuePtr value;
};
struct Accepted {
  Revision revision;
  Incarnation incarnation;
};

// The active renews its lease; `beat` names the moment it sent this.
struct Renew {
  Revision recorded;  // newest value a majority holds
  std::uint64_t beat = 0;
  std::uint32_t lease_ms = 0;
};
struct Renewed {
  Epoch epoch;
  std::uint64_t beat = 0;
  Incarnation incarnation;
  Revision accepted;  // behind what the active has: it sends Accept again; then no promise was given either
  bool promised = false;
};

// No: I have promised a newer epoch (or hold a newer value, enclosed so that the sender learns it).
struct Nack {
  Epoch refused;
  Epoch promised;
  std::uint64_t round = 0;     // of the VoteRequest refused, else 0
  std::uint32_t retry_ms = 0;  // a promise to somebody else still lasts that long
  ValuePtr newer;              // null unless newer than what the sender showed
};

// The sender stopped being able to write or answer before it sent this: the promise for that epoch is void at once.
struct Resign {
  Epoch epoch;
  NodeId successor;  // 0 = whoever is eligible
  // Not 0: what the successor was told to do with the epoch it wins now, by a name that it knows (a rollback). Only this
  // word of the last holder makes it so: whoever wins without having heard it does nothing of the kind.
  std::uint64_t order = 0;
};

using Body = std::variant<Canvass, CanvassReply, VoteRequest, Vote, Accept, Accepted, Renew, Renewed, Nack, Resign>;

struct Envelope {
  ClusterId cluster;
  NodeId from;  // the transport must have authenticated it
  NodeId to;
  Body body;
};

}  // namespace holdfast::cluster
