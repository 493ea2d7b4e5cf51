// SPDX-License-Identifier: Apache-2.0
#include "mirror/channel.h"

#include <algorithm>

namespace holdfast::mirror {
namespace {

constexpr std::size_t max_text_bytes = 512;
constexpr std::size_t changed_bytes = 128 * 1024;  // a frame of them is not much longer
constexpr std::size_t hot_tail_bytes = 8 + 16 + 4, max_key_bytes = 300, max_value_bytes = 64;
constexpr std::uint8_t start_goes_on = 0, start_anew = 1, start_drained = 2;

std::size_t covered(FrameType type, std::size_t length) {
  return type == FrameType::batch ? std::min(length, batch_head_bytes) : length;
}

std::uint32_t frame_crc(ByteView head, ByteView covered_payload) {
  return crc32c(covered_payload, crc32c(head.first(8)));
}

// Puts the head before what `out` holds after its first 16 bytes.
void seal_frame(Bytes& out, FrameType type, std::size_t payload_bytes) {
  const auto length = static_cast<std::uint32_t>(payload_bytes);
  out[0] = static_cast<std::uint8_t>(type);
  std::memcpy(out.data() + 4, &length, 4);
  const ByteView payload = ByteView(out).subspan(frame_head_bytes);
  const std::uint32_t crc = frame_crc(out, payload.first(covered(type, payload.size())));
  std::memcpy(out.data() + 8, &crc, 4);
}

template <class F>
Bytes make_frame(FrameType type, F&& fill) {
  Bytes out;
  out.reserve(frame_head_bytes + 64);
  out.resize(frame_head_bytes);
  ByteWriter w(out);
  fill(w);
  seal_frame(out, type, out.size() - frame_head_bytes);
  return out;
}

Position read_position(ByteReader& r) {
  Position p;
  p.epoch = Epoch(r.u64());
  p.sequence = Sequence(r.u64());
  return p;
}
void write_position(ByteWriter& w, Position p) {
  w.u64(p.epoch.value);
  w.u64(p.sequence.value);
}

std::string read_text(ByteReader& r) {
  const std::string_view text = r.text();
  if (text.size() > max_text_bytes) r.fail();
  return std::string(text.substr(0, max_text_bytes));
}

// An older node says nothing.
std::uint32_t read_features(ByteReader& r) { return r.left() < 4 ? 0 : r.u32(); }

// Later versions may add fields at the end: what is left over is not an error.
template <class T>
Result<T> finished(const ByteReader& r, T value, const char* what) {
  if (!r.ok()) return fail(ErrorCode::corrupt, "data channel: malformed {}", what);
  return value;
}

}  // namespace

Result<FrameHead> decode_frame_head(ByteView head) {
  ByteReader r(head);
  FrameHead h;
  const std::uint8_t type = r.u8();
  const std::uint8_t zero8 = r.u8();
  const std::uint16_t zero16 = r.u16();
  h.length = r.u32();
  h.crc = r.u32();
  const std::uint32_t zero32 = r.u32();
  if (!r.ok() || type < static_cast<std::uint8_t>(FrameType::hello) ||
      type > static_cast<std::uint8_t>(FrameType::differs) || zero8 || zero16 || zero32)
    return fail(ErrorCode::corrupt, "data channel: not a frame");
  h.type = static_cast<FrameType>(type);
  const std::size_t limit = h.type == FrameType::batch ? max_frame_bytes : 256 * 1024;
  if (h.length > limit)
    return fail(ErrorCode::corrupt, "data channel: a frame of type {} claims {} bytes", type, h.length);
  return h;
}

Status check_frame(const FrameHead& head, ByteView payload) {
  std::uint8_t bytes[8] = {static_cast<std::uint8_t>(head.type)};
  std::memcpy(bytes + 4, &head.length, 4);
  if (payload.size() != head.length || frame_crc(bytes, payload.first(covered(head.type, payload.size()))) != head.crc)
    return fail(ErrorCode::corrupt, "data channel: a frame of type {} is damaged", static_cast<int>(head.type));
  return {};
}

Bytes encode_frame(const Hello& m) {
  return make_frame(FrameType::hello, [&](ByteWriter& w) {
    w.u16(m.version_min);
    w.u16(m.version_max);
    w.u8(m.highest_kind);
    w.text(m.cluster_id);
    w.u64(m.node.value);
    w.u64(m.epoch.value);
    w.u32(m.features);
  });
}
Result<Hello> decode_hello(ByteView payload) {
  ByteReader r(payload);
  Hello m;
  m.version_min = r.u16();
  m.version_max = r.u16();
  m.highest_kind = r.u8();
  m.cluster_id = read_text(r);
  m.node = NodeId(r.u64());
  m.epoch = Epoch(r.u64());
  m.features = read_features(r);
  return finished(r, std::move(m), "hello");
}

Bytes encode_frame(const Welcome& m) {
  return make_frame(FrameType::welcome, [&](ByteWriter& w) {
    w.u16(m.version);
    w.u8(m.highest_kind);
    w.u64(m.node.value);
    write_position(w, m.position);
    w.u8(m.clean ? 1 : 0);
    w.u64(m.life);
    w.varint(m.sets.size());
    for (const auto& s : m.sets) {
      w.u16(s.set);
      w.u8(static_cast<std::uint8_t>((s.complete ? 1 : 0) | (s.empty ? 2 : 0) | (s.doubted ? 4 : 0)));
    }
    w.u32(m.features);
    w.u64(m.led.value);
    write_position(w, m.covered);
    w.u32(m.listed);
  });
}
Result<Welcome> decode_welcome(ByteView payload) {
  ByteReader r(payload);
  Welcome m;
  m.version = r.u16();
  m.highest_kind = r.u8();
  m.node = NodeId(r.u64());
  m.position = read_position(r);
  m.clean = r.u8() != 0;
  m.life = r.u64();
  const std::uint64_t sets = r.varint();
  if (sets > max_sets) r.fail();
  for (std::uint64_t i = 0; i < sets && r.ok(); ++i) {
    PeerSetState s;
    s.set = r.u16();
    const std::uint8_t bits = r.u8();
    s.complete = bits & 1;
    s.empty = bits & 2;
    s.doubted = bits & 4;
    m.sets.push_back(s);
  }
  m.features = read_features(r);
  if (r.left() >= hot_tail_bytes) {
    m.led = Epoch(r.u64());
    m.covered = read_position(r);
    m.listed = r.u32();
    if (m.listed > max_listed) r.fail();
  }
  return finished(r, std::move(m), "welcome");
}

Bytes encode_changed(const std::vector<ports::ChangeEntry>& entries, std::size_t& from) {
  std::size_t to = from, bytes = 0;
  for (; to < entries.size() && bytes < changed_bytes; ++to)
    bytes += entries[to].key.size() + entries[to].value.size() + 8;
  return make_frame(FrameType::changed, [&](ByteWriter& w) {
    w.u32(static_cast<std::uint32_t>(to - from));
    for (; from < to; ++from) {
      w.bytes(entries[from].key);
      w.bytes(entries[from].value);
    }
  });
}
Status decode_changed(ByteView payload, std::vector<ports::ChangeEntry>& entries) {
  ByteReader r(payload);
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    const ByteView key = r.bytes(), value = r.bytes();
    if (key.size() > max_key_bytes || value.size() > max_value_bytes) r.fail();  // of notes, not of any change
    if (r.ok()) entries.push_back({Bytes(key.begin(), key.end()), Bytes(value.begin(), value.end())});
  }
  return finished(r, true, "list of changes").map([](bool) {});
}

Bytes encode_frame(const Start& m) {
  std::uint8_t how = start_goes_on;
  if (m.restart) how = m.drained ? start_drained : start_anew;
  return make_frame(FrameType::start, [&](ByteWriter& w) {
    w.u8(how);
    write_position(w, m.base);
  });
}
Result<Start> decode_start(ByteView payload) {
  ByteReader r(payload);
  Start m;
  const std::uint8_t how = r.u8();
  if (how > start_drained) r.fail();
  m.restart = how != start_goes_on;
  m.drained = how == start_drained;
  m.base = read_position(r);
  return finished(r, m, "start");
}

Bytes encode_batch_head(const BatchHead& m, std::size_t records_bytes) {
  Bytes out(frame_head_bytes);
  ByteWriter w(out);
  w.u32(m.count);
  w.u32(0);
  w.u64(m.first.value);
  w.u64(m.last.value);
  seal_frame(out, FrameType::batch, batch_head_bytes + records_bytes);
  return out;
}
Result<BatchHead> decode_batch_head(ByteView payload) {
  ByteReader r(payload);
  BatchHead m;
  m.count = r.u32();
  if (r.u32() != 0) r.fail();
  m.first = Sequence(r.u64());
  m.last = Sequence(r.u64());
  if (m.count == 0 || m.last < m.first || m.last.value - m.first.value != m.count - 1) r.fail();
  return finished(r, m, "batch");
}

Bytes encode_frame(const Ack& m) {
  return make_frame(FrameType::ack, [&](ByteWriter& w) {
    w.u64(m.durable.value);
    w.u64(m.applied.value);
    if (!m.limits.empty()) write_limits(w, m.limits);
  });
}
Result<Ack> decode_ack(ByteView payload) {
  ByteReader r(payload);
  Ack m;
  m.durable = Sequence(r.u64());
  m.applied = Sequence(r.u64());
  if (r.left() > 0) m.limits = read_limits(r);
  return finished(r, std::move(m), "ack");
}

Bytes encode_frame(const Nak& m) {
  return make_frame(FrameType::nak, [&](ByteWriter& w) {
    w.u16(m.set);
    w.raw(m.file.bytes);
    w.u64(m.offset);
    w.u64(m.length);
  });
}
Result<Nak> decode_nak(ByteView payload) {
  ByteReader r(payload);
  Nak m;
  m.set = r.u16();
  const ByteView id = r.raw(m.file.bytes.size());
  if (r.ok()) std::copy(id.begin(), id.end(), m.file.bytes.begin());
  m.offset = r.u64();
  m.length = r.u64();
  return finished(r, m, "nak");
}

Bytes encode_frame(const Differs& m) {
  return make_frame(FrameType::differs, [&](ByteWriter& w) {
    w.u64(m.sequence.value);
    w.u16(m.set);
    w.raw(m.file.bytes);
    w.u32(m.what);
    w.u64(m.offset);
    w.u64(m.length);
    w.text(std::string_view(m.name).substr(0, max_text_bytes));
  });
}
Result<Differs> decode_differs(ByteView payload) {
  ByteReader r(payload);
  Differs m;
  m.sequence = Sequence(r.u64());
  m.set = r.u16();
  const ByteView id = r.raw(m.file.bytes.size());
  if (r.ok()) std::copy(id.begin(), id.end(), m.file.bytes.begin());
  m.what = r.u32();
  m.offset = r.u64();
  m.length = r.u64();
  m.name = read_text(r);
  return finished(r, std::move(m), "differs");
}

Bytes encode_frame(const Heartbeat& m) {
  return make_frame(FrameType::heartbeat, [&](ByteWriter& w) {
    w.u64(static_cast<std::uint64_t>(m.time_ns));
    if (!m.limits.empty()) write_limits(w, m.limits);
  });
}
Result<Heartbeat> decode_heartbeat(ByteView payload) {
  ByteReader r(payload);
  Heartbeat m;
  m.time_ns = static_cast<std::int64_t>(r.u64());
  if (r.left() > 0) m.limits = read_limits(r);
  return finished(r, std::move(m), "heartbeat");
}

Bytes encode_frame(const Refuse& m) {
  return make_frame(FrameType::refuse,
                    [&](ByteWriter& w) { w.text(std::string_view(m.reason).substr(0, max_text_bytes)); });
}
Result<Refuse> decode_refuse(ByteView payload) {
  ByteReader r(payload);
  Refuse m;
  m.reason = read_text(r);
  for (char& c : m.reason)
    if (static_cast<unsigned char>(c) < 0x20) c = '?';  // it ends in a log line
  return finished(r, std::move(m), "refuse");
}

Result<FrameReader::Frame> FrameReader::next() {
  std::uint8_t head_bytes[frame_head_bytes];
  HF_TRY(stream_.read_exact(head_bytes));
  HF_ASSIGN(const FrameHead head, decode_frame_head(head_bytes));
  buffer_.resize(head.length);
  HF_TRY(stream_.read_exact(buffer_));
  HF_TRY(check_frame(head, buffer_));
  return Frame{head.type, buffer_};
}

}  // namespace holdfast::mirror
