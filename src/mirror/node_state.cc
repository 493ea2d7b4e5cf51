// SPDX-License-Identifier: Apache-2.0
#include "mirror/node_state.h"

namespace holdfast::mirror {
namespace {

constexpr char magic[8] = {'H', 'F', 'S', 'T', 'A', 'T', 'E', '1'};

void write_sets(ByteWriter& w, const std::set<SetNumber>& sets) {
  w.varint(sets.size());
  for (const SetNumber s : sets) w.u16(s);
}
void read_sets(ByteReader& r, std::set<SetNumber>& sets) {
  const std::uint64_t n = r.varint();
  for (std::uint64_t i = 0; i < n && r.ok(); ++i) sets.insert(r.u16());
}

void write_past(ByteWriter& w, const std::optional<PastState>& past) {
  w.u8(past ? 1 : 0);
  if (!past) return;
  w.u64(past->batch);
  w.u64(past->applied.epoch.value);
  w.u64(past->applied.sequence.value);
  w.u64(past->active_epoch.value);
  w.u8(past->clean ? 1 : 0);
  write_sets(w, past->complete);
}
void read_past(ByteReader& r, std::optional<PastState>& past) {
  if (r.u8() == 0) return;
  past.emplace();
  past->batch = r.u64();
  past->applied.epoch = Epoch(r.u64());
  past->applied.sequence = Sequence(r.u64());
  past->active_epoch = Epoch(r.u64());
  past->clean = r.u8() != 0;
  read_sets(r, past->complete);
}

std::uint32_t version_of(const NodeState& s) {
  if (!s.marked.empty() || !s.doubted.empty()) return 4;
  if (s.rewind_for_epoch || s.went_back || s.led_from || !s.lost.empty()) return 3;
  return s.point || s.rewind ? 2 : 1;
}

}  // namespace

bool NodeState::speaks_of(SetNumber set) const {
  for (const auto* sets : {&complete, &resyncing, &lost, &doubted})
    if (sets->contains(set)) return true;
  for (const auto* past : {&point, &rewind})
    if (*past && (*past)->complete.contains(set)) return true;
  return marked.contains(set);
}

void NodeState::forget(SetNumber set) {
  for (auto* sets : {&complete, &resyncing, &lost, &doubted}) sets->erase(set);
  marked.erase(set);
  if (point) point->complete.erase(set);
  if (point && point->complete.empty()) point.reset();
  if (rewind) rewind->complete.erase(set);  // the others' way back waits for it no longer
}

Bytes encode(const NodeState& s) {
  Bytes out;
  out.reserve(128);
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(magic), sizeof magic});
  const std::uint32_t version = version_of(s);
  w.u32(version);
  w.u64(s.sealed.value);
  w.u64(s.active_epoch.value);
  w.u8(static_cast<std::uint8_t>((s.clean ? 1 : 0) | (s.restarting ? 2 : 0)));
  w.u64(s.log_life);
  w.u64(s.applied.epoch.value);
  w.u64(s.applied.sequence.value);
  write_sets(w, s.complete);
  write_sets(w, s.resyncing);
  if (version >= 2) {
    write_past(w, s.point);
    w.u64(static_cast<std::uint64_t>(s.point_time_ns));
    write_past(w, s.rewind);
    w.u64(s.reversal);
  }
  if (version >= 3) {
    w.u8(static_cast<std::uint8_t>((s.rewind_for_epoch ? 1 : 0) | (s.went_back ? 2 : 0) | (s.led_from ? 4 : 0)));
    w.text(s.rewind_plan);
    if (s.went_back) {
      w.text(s.went_back->plan);
      w.u64(s.went_back->position.epoch.value);
      w.u64(s.went_back->position.sequence.value);
      w.u64(static_cast<std::uint64_t>(s.went_back->time_ns));
      w.u64(s.went_back->epoch.value);
    }
    if (s.led_from) {
      w.u64(s.led_from->epoch.value);
      w.u64(s.led_from->sequence.value);
    }
    write_sets(w, s.lost);
  }
  if (version >= 4) {
    write_sets(w, s.doubted);
    w.varint(s.marked.size());
    for (const auto& [set, mark] : s.marked) {
      w.u16(set);
      w.u64(mark.log_life);
      w.u64(mark.applied.value);
    }
  }
  w.u32(crc32c(out));
  return out;
}

Result<NodeState> decode_node_state(ByteView bytes) {
  NodeState s;
  if (bytes.empty()) return s;
  ByteReader r(bytes);
  const ByteView head = r.raw(sizeof magic);
  if (!r.ok() || std::memcmp(head.data(), magic, sizeof magic) != 0 || bytes.size() < 4)
    return fail(ErrorCode::corrupt, "not a mirror state");
  const std::uint32_t version = r.u32();
  if (version < 1 || version > node_state_version)
    return fail(ErrorCode::refused, "mirror state of version {}; this program reads 1 to {}", version,
                node_state_version);
  s.sealed = Epoch(r.u64());
  s.active_epoch = Epoch(r.u64());
  const std::uint8_t bits = r.u8();
  s.clean = bits & 1;
  s.restarting = bits & 2;
  s.log_life = r.u64();
  s.applied.epoch = Epoch(r.u64());
  s.applied.sequence = Sequence(r.u64());
  read_sets(r, s.complete);
  read_sets(r, s.resyncing);
  if (version >= 2) {
    read_past(r, s.point);
    s.point_time_ns = static_cast<std::int64_t>(r.u64());
    read_past(r, s.rewind);
    s.reversal = r.u64();
  }
  if (version >= 3) {
    const std::uint8_t has = r.u8();
    s.rewind_for_epoch = has & 1;
    s.rewind_plan = std::string(r.text());
    if (has & 2) {
      s.went_back.emplace();
      s.went_back->plan = std::string(r.text());
      s.went_back->position.epoch = Epoch(r.u64());
      s.went_back->position.sequence = Sequence(r.u64());
      s.went_back->time_ns = static_cast<std::int64_t>(r.u64());
      s.went_back->epoch = Epoch(r.u64());
    }
    if (has & 4) {
      s.led_from.emplace();
      s.led_from->epoch = Epoch(r.u64());
      s.led_from->sequence = Sequence(r.u64());
    }
    read_sets(r, s.lost);
  }
  if (version >= 4) {
    read_sets(r, s.doubted);
    const std::uint64_t n = r.varint();
    for (std::uint64_t i = 0; i < n && r.ok(); ++i) {
      CheckpointMark& mark = s.marked[r.u16()];
      mark.log_life = r.u64();
      mark.applied = Sequence(r.u64());
    }
  }
  const std::uint32_t crc = r.u32();
  if (!r.ok() || crc32c(bytes.first(bytes.size() - 4)) != crc)
    return fail(ErrorCode::corrupt,
                "the mirror's state file is damaged: remove it and the receive log, and the node resynchronizes");
  return s;
}

}  // namespace holdfast::mirror
