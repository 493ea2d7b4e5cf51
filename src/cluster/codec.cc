// SPDX-License-Identifier: Apache-2.0
#include "cluster/codec.h"

namespace holdfast::cluster {
namespace {

constexpr std::uint32_t state_magic = 0x53564648;  // "HFVS"

// --- values

void put(ByteWriter& w, const Value& v) {
  w.varint(v.revision.epoch.value);
  w.varint(v.revision.number);
  w.u64(v.active.value);
  w.varint(v.in_sync_version);
  w.varint(v.in_sync.size());
  for (const NodeId id : v.in_sync) w.u64(id.value);
  w.varint(v.members.size());
  for (const Member& m : v.members) {
    w.u64(m.id.value);
    w.text(m.name);
    w.text(m.site);
    w.u8(m.identity);
    w.u8(static_cast<std::uint8_t>(m.kind));
    w.u8(m.voter ? 1 : 0);
    w.u64(m.incarnation.value);
  }
  w.varint(v.old_voters.size());
  for (const Voter& o : v.old_voters) {
    w.u64(o.id.value);
    w.u64(o.incarnation.value);
  }
  w.varint(v.config_version);
  w.text(v.config);
  w.varint(v.settings.lease_ms);
  w.u8(v.settings.automatic_failover ? 1 : 0);
}

void put(ByteWriter& w, const ValuePtr& v) {
  w.u8(v ? 1 : 0);
  if (v) put(w, *v);
}

bool get_bool(ByteReader& r) {
  const std::uint8_t b = r.u8();
  if (b > 1) r.fail();
  return b == 1;
}

std::size_t get_count(ByteReader& r, std::size_t most) {
  const std::uint64_t n = r.varint();
  if (n > most) r.fail();
  return r.ok() ? static_cast<std::size_t>(n) : 0;
}

std::string get_text(ByteReader& r, std::size_t most) {
  const std::string_view t = r.text();
  if (t.size() > most) r.fail();
  return r.ok() ? std::string(t) : std::string();
}

std::uint32_t get_u32(ByteReader& r, std::uint32_t most) {
  const std::uint64_t n = r.varint();
  if (n > most) r.fail();
  return r.ok() ? static_cast<std::uint32_t>(n) : 0;
}

Revision get_revision(ByteReader& r) {
  const Epoch epoch(r.varint());
  return {epoch, r.varint()};
}

Member get_member(ByteReader& r) {
  Member m;
  m.id = NodeId(r.u64());
  m.name = get_text(r, max_name_bytes);
  m.site = get_text(r, max_name_bytes);
  m.identity = r.u8();
  const std::uint8_t kind = r.u8();
  if (kind > 1) r.fail();
  m.kind = static_cast<MemberKind>(kind & 1);
  m.voter = get_bool(r);
  m.incarnation = Incarnation(r.u64());
  return m;
}

ValuePtr get_value(ByteReader& r) {
  if (!get_bool(r)) return nullptr;
  Value v;
  v.revision = get_revision(r);
  v.active = NodeId(r.u64());
  v.in_sync_version = r.varint();
  for (std::size_t n = get_count(r, max_members); n > 0 && r.ok(); --n) v.in_sync.emplace_back(r.u64());
  for (std::size_t n = get_count(r, max_members); n > 0 && r.ok(); --n) v.members.push_back(get_member(r));
  for (std::size_t n = get_count(r, max_members); n > 0 && r.ok(); --n) {
    const NodeId id(r.u64());
    v.old_voters.push_back({id, Incarnation(r.u64())});
  }
  v.config_version = r.varint();
  v.config = get_text(r, max_config_bytes);
  v.settings.lease_ms = get_u32(r, lease_ceiling_ms);
  v.settings.automatic_failover = get_bool(r);
  return r.ok() ? std::make_shared<const Value>(std::move(v)) : nullptr;
}

void put(ByteWriter& w, Revision v) {
  w.varint(v.epoch.value);
  w.varint(v.number);
}

void put(ByteWriter& w, Position p) {
  w.varint(p.epoch.value);
  w.varint(p.sequence.value);
}

Position get_position(ByteReader& r) {
  const Epoch epoch(r.varint());
  return {epoch, Sequence(r.varint())};
}

// --- bodies; the kind byte is the index in Body, so that the order there is part of the format

void put_body(ByteWriter& w, const Canvass& m) { w.u64(m.round); }
void put_body(ByteWriter& w, const CanvassReply& m) {
  w.u64(m.round);
  w.u8(m.granted ? 1 : 0);
  w.varint(m.retry_ms);
  w.varint(m.promised.value);
  w.u64(m.incarnation.value);
  put(w, m.position);
  w.u8(m.complete ? 1 : 0);
  put(w, m.accepted);
}
void put_body(ByteWriter& w, const VoteRequest& m) {
  w.u64(m.round);
  w.varint(m.epoch.value);
}
void put_body(ByteWriter& w, const Vote& m) {
  w.u64(m.round);
  w.varint(m.epoch.value);
  w.u64(m.incarnation.value);
  put(w, m.position);
  w.u8(m.complete ? 1 : 0);
  put(w, m.accepted);
}
void put_body(ByteWriter& w, const Accept& m) { put(w, m.value); }
void put_body(ByteWriter& w, const Accepted& m) {
  put(w, m.revision);
  w.u64(m.incarnation.value);
}
void put_body(ByteWriter& w, const Renew& m) {
  put(w, m.recorded);
  w.u64(m.beat);
  w.varint(m.lease_ms);
}
void put_body(ByteWriter& w, const Renewed& m) {
  w.varint(m.epoch.value);
  w.u64(m.beat);
  w.u64(m.incarnation.value);
  put(w, m.accepted);
  w.u8(m.promised ? 1 : 0);
}
void put_body(ByteWriter& w, const Nack& m) {
  w.varint(m.refused.value);
  w.varint(m.promised.value);
  w.u64(m.round);
  w.varint(m.retry_ms);
  put(w, m.newer);
}
void put_body(ByteWriter& w, const Resign& m) {
  w.varint(m.epoch.value);
  w.u64(m.successor.value);
  if (m.order != 0) w.u64(m.order);
}

CanvassReply get_canvass_reply(ByteReader& r) {
  CanvassReply m;
  m.round = r.u64();
  m.granted = get_bool(r);
  m.retry_ms = get_u32(r, 60'000);
  m.promised = Epoch(r.varint());
  m.incarnation = Incarnation(r.u64());
  m.position = get_position(r);
  m.complete = get_bool(r);
  m.accepted = get_value(r);
  return m;
}

Vote get_vote(ByteReader& r) {
  Vote m;
  m.round = r.u64();
  m.epoch = Epoch(r.varint());
  m.incarnation = Incarnation(r.u64());
  m.position = get_position(r);
  m.complete = get_bool(r);
  m.accepted = get_value(r);
  return m;
}

Renewed get_renewed(ByteReader& r) {
  Renewed m;
  m.epoch = Epoch(r.varint());
  m.beat = r.u64();
  m.incarnation = Incarnation(r.u64());
  m.accepted = get_revision(r);
  m.promised = get_bool(r);
  return m;
}

Nack get_nack(ByteReader& r) {
  Nack m;
  m.refused = Epoch(r.varint());
  m.promised = Epoch(r.varint());
  m.round = r.u64();
  m.retry_ms = get_u32(r, 60'000);
  m.newer = get_value(r);
  return m;
}

// A kind of its own: a version that knows of no orders takes it for nothing, and its promise runs out by itself.
constexpr std::uint8_t resign_with_order = 10;

std::uint8_t kind_of(const Body& body) {
  const auto* resign = std::get_if<Resign>(&body);
  return resign != nullptr && resign->order != 0 ? resign_with_order : static_cast<std::uint8_t>(body.index());
}

Body get_body(ByteReader& r, std::uint8_t kind) {
  switch (kind) {
    case 0:
      return Canvass{r.u64()};
    case 1:
      return get_canvass_reply(r);
    case 2: {
      const std::uint64_t round = r.u64();
      return VoteRequest{round, Epoch(r.varint())};
    }
    case 3:
      return get_vote(r);
    case 4: {
      ValuePtr v = get_value(r);
      if (!v) r.fail();
      return Accept{std::move(v)};
    }
    case 5: {
      const Revision revision = get_revision(r);
      return Accepted{revision, Incarnation(r.u64())};
    }
    case 6: {
      const Revision recorded = get_revision(r);
      const std::uint64_t beat = r.u64();
      return Renew{recorded, beat, get_u32(r, lease_ceiling_ms)};
    }
    case 7:
      return get_renewed(r);
    case 8:
      return get_nack(r);
    case 9: {
      const Epoch epoch(r.varint());
      return Resign{epoch, NodeId(r.u64())};
    }
    case resign_with_order: {
      const Epoch epoch(r.varint());
      const NodeId successor(r.u64());
      const std::uint64_t order = r.u64();
      if (order == 0) r.fail();
      return Resign{epoch, successor, order};
    }
    default:
      r.fail();
      return Canvass{};
  }
}

}  // namespace

Bytes encode(const Envelope& e) {
  Bytes out;
  ByteWriter w(out);
  w.u8(control_version);
  w.u64(e.cluster.value);
  w.u64(e.from.value);
  w.u64(e.to.value);
  w.u8(kind_of(e.body));
  std::visit([&w](const auto& body) { put_body(w, body); }, e.body);
  return out;
}

Result<Envelope> decode_envelope(ByteView bytes) {
  if (bytes.size() > max_message_bytes)
    return fail(ErrorCode::corrupt, "control message of {} bytes: too long", bytes.size());
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  if (r.ok() && version != control_version)
    return fail(ErrorCode::invalid, "control message of version {}: only {} is spoken here", version, control_version);
  Envelope e;
  e.cluster = ClusterId(r.u64());
  e.from = NodeId(r.u64());
  e.to = NodeId(r.u64());
  const std::uint8_t kind = r.u8();
  e.body = get_body(r, kind);
  if (!r.ok() || r.left() != 0) return fail(ErrorCode::corrupt, "control message of kind {} is damaged", kind);
  return e;
}

Bytes encode(const VoterState& s) {
  Bytes out;
  ByteWriter w(out);
  w.u32(state_magic);
  w.u8(control_version);
  w.u64(s.incarnation.value);
  w.varint(s.promised.value);
  w.u64(s.promised_to.value);
  put(w, s.accepted);
  w.u32(crc32c(out));
  return out;
}

Result<VoterState> decode_voter_state(ByteView bytes) {
  if (bytes.size() < 9 || bytes.size() > max_message_bytes)
    return fail(ErrorCode::corrupt, "voter state of {} bytes is damaged", bytes.size());
  ByteReader tail(bytes.last(4));
  if (tail.u32() != crc32c(bytes.first(bytes.size() - 4)))
    return fail(ErrorCode::corrupt, "voter state is damaged: checksum does not match");
  ByteReader r(bytes.first(bytes.size() - 4));
  if (r.u32() != state_magic) return fail(ErrorCode::corrupt, "this is not a voter's state");
  if (const std::uint8_t version = r.u8(); version != control_version)
    return fail(ErrorCode::invalid, "voter state of version {}: only {} is read here", version, control_version);
  VoterState s;
  s.incarnation = Incarnation(r.u64());
  s.promised = Epoch(r.varint());
  s.promised_to = NodeId(r.u64());
  s.accepted = get_value(r);
  if (!r.ok() || r.left() != 0) return fail(ErrorCode::corrupt, "voter state is damaged");
  return s;
}

}  // namespace holdfast::cluster
