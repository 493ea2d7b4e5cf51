// SPDX-License-Identifier: Apache-2.0
#include "mirror/verify_store.h"

#include <algorithm>

#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::string_view magic = "HFVERIF1";
constexpr std::uint64_t max_memos = 65536, max_levels = 65536, max_examples = 64;
using Memos = std::map<std::pair<NodeId, SetNumber>, VerifyMemo>;

constexpr const char* states[] = {"open", "undecided", "repaired"};

std::uint8_t number_of(std::string_view state) {
  const auto* it = std::find(std::begin(states), std::end(states), state);
  return it == std::end(states) ? 0 : static_cast<std::uint8_t>(it - std::begin(states));
}

FileId read_id(ByteReader& r) {
  FileId id;
  const ByteView raw = r.raw(id.bytes.size());
  if (r.ok()) std::copy(raw.begin(), raw.end(), id.bytes.begin());
  return id;
}

void write_memo(ByteWriter& w, const VerifyMemo& m) {
  w.varint(m.place.levels.size());
  for (const auto& level : m.place.levels) {
    w.raw(level.id.bytes);
    w.text(level.name);
    w.u64(level.cookie);
    w.u32(level.index);
  }
  w.raw(m.place.file.bytes);
  w.text(m.place.file_name);
  w.u64(m.place.offset);
  for (const std::int64_t ns : {m.pass_began_ns, m.last_scrub_ns, m.last_full_ns}) w.zigzag(ns);
  for (const std::uint64_t n : {m.pass_bytes, m.last_bytes, m.open}) w.varint(n);
  w.u8(static_cast<std::uint8_t>(m.last_result));
  w.varint(m.examples.size());
  for (const auto& e : m.examples) {
    w.text(e.path);
    w.text(e.what);
    w.u8(number_of(e.state));
  }
}

VerifyMemo read_memo(ByteReader& r) {
  VerifyMemo m;
  const std::uint64_t levels = r.varint();
  if (levels > max_levels) r.fail();
  for (std::uint64_t i = 0; i < levels && r.ok(); ++i) {
    VerifyPlace::Level level;
    level.id = read_id(r);
    level.name = r.text();
    level.cookie = r.u64();
    level.index = r.u32();
    m.place.levels.push_back(std::move(level));
  }
  m.place.file = read_id(r);
  m.place.file_name = r.text();
  m.place.offset = r.u64();
  for (std::int64_t* ns : {&m.pass_began_ns, &m.last_scrub_ns, &m.last_full_ns}) *ns = r.zigzag();
  for (std::uint64_t* n : {&m.pass_bytes, &m.last_bytes, &m.open}) *n = r.varint();
  const std::uint8_t result = r.u8();
  if (result > static_cast<std::uint8_t>(VerifyResult::interrupted)) r.fail();
  m.last_result = static_cast<VerifyResult>(r.ok() ? result : 0);
  const std::uint64_t examples = r.varint();
  if (examples > max_examples) r.fail();
  for (std::uint64_t i = 0; i < examples && r.ok(); ++i) {
    VerifyExample e;
    e.path = r.text();
    e.what = r.text();
    e.state = states[std::min<std::size_t>(r.u8(), std::size(states) - 1)];
    m.examples.push_back(std::move(e));
  }
  return m;
}

}  // namespace

const char* to_string(VerifyResult result) {
  static constexpr const char* names[] = {"none", "clean", "repaired", "differs", "interrupted"};
  return names[static_cast<std::size_t>(result)];
}

Bytes encode(const Memos& memos) {
  Bytes out;
  ByteWriter w(out);
  w.raw(as_bytes(magic));
  w.varint(memos.size());
  for (const auto& [key, memo] : memos) {
    w.u64(key.first.value);
    w.u16(key.second);
    write_memo(w, memo);
  }
  w.u32(crc32c(out));
  return out;
}

Result<Memos> decode_verify_memos(ByteView bytes) {
  Memos memos;
  if (bytes.empty()) return memos;
  if (bytes.size() < magic.size() + 4) return fail(ErrorCode::corrupt, "what is remembered of comparisons is cut off");
  ByteReader tail(bytes.last(4));
  if (tail.u32() != crc32c(bytes.first(bytes.size() - 4)) || as_text(bytes.first(magic.size())) != magic)
    return fail(ErrorCode::corrupt, "what is remembered of comparisons is damaged");
  ByteReader r(bytes.subspan(magic.size(), bytes.size() - magic.size() - 4));
  const std::uint64_t count = r.varint();
  if (count > max_memos) r.fail();
  for (std::uint64_t i = 0; i < count && r.ok(); ++i) {
    const NodeId peer(r.u64());
    const SetNumber set = r.u16();
    memos[{peer, set}] = read_memo(r);
  }
  if (!r.ok()) return fail(ErrorCode::corrupt, "what is remembered of comparisons is malformed");
  return memos;
}

VerifyStore::VerifyStore(ports::DurableCell* cell) : cell_(cell) {
  if (Status loaded = load(); !loaded) log_warning("verify: {}: the scrub begins anew", loaded.error().to_string());
}

Status VerifyStore::load() {
  if (!cell_) return {};
  HF_ASSIGN(const Bytes bytes, cell_->load());
  HF_ASSIGN(memos_, decode_verify_memos(bytes));
  return {};
}

VerifyMemo VerifyStore::get(NodeId peer, SetNumber set) const {
  const std::lock_guard lock(mutex_);
  const auto it = memos_.find({peer, set});
  return it == memos_.end() ? VerifyMemo{} : it->second;
}

bool VerifyStore::any_open(SetNumber set) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(memos_.begin(), memos_.end(),
                     [&](const auto& memo) { return memo.first.second == set && memo.second.open != 0; });
}

Status VerifyStore::put(NodeId peer, SetNumber set, VerifyMemo memo) {
  const std::lock_guard one(store_mutex_);
  Bytes bytes;
  {
    const std::lock_guard lock(mutex_);
    memos_[{peer, set}] = std::move(memo);
    bytes = encode(memos_);
  }
  return cell_ ? cell_->store(bytes) : Status{};
}

}  // namespace holdfast::mirror
