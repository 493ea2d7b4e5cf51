// SPDX-License-Identifier: Apache-2.0
#include "mirror/member_limits.h"

#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr char magic[8] = {'H', 'F', 'L', 'I', 'M', 'I', 'T', '1'};
constexpr std::size_t crc_bytes = 4, most_fields = 64;

}  // namespace

void write_limits(ByteWriter& w, const std::vector<ToldLimits>& all) {
  const std::size_t count = std::min(all.size(), max_told_limits);
  w.varint(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [node, set, limits] = all[i];
    w.u64(node.value);
    w.u16(set);
    std::size_t fields = 0;
    for (std::size_t f = 0; f < ports::limit_count; ++f)
      if (limits.most(ports::TreeLimits::at(f)) != ports::no_limit) ++fields;
    w.varint(fields);
    for (std::size_t f = 0; f < ports::limit_count; ++f) {
      const ports::Limit what = ports::TreeLimits::at(f);
      if (limits.most(what) == ports::no_limit) continue;
      w.u8(static_cast<std::uint8_t>(what));
      w.varint(limits.most(what));
    }
  }
}

std::vector<ToldLimits> read_limits(ByteReader& r) {
  std::vector<ToldLimits> all;
  const std::uint64_t count = r.varint();
  if (count > max_told_limits) r.fail();
  for (std::uint64_t i = 0; i < count && r.ok(); ++i) {
    ToldLimits one;
    one.node = NodeId(r.u64());
    one.set = r.u16();
    const std::uint64_t fields = r.varint();
    if (fields > most_fields) r.fail();
    for (std::uint64_t f = 0; f < fields && r.ok(); ++f) {
      const std::uint8_t what = r.u8();
      const std::uint64_t most = r.varint();
      if (what >= 1 && what <= ports::limit_count) one.limits.set(static_cast<ports::Limit>(what), most);
    }
    all.push_back(one);
  }
  if (!r.ok()) all.clear();
  return all;
}

Status MemberLimits::load() {
  if (!cell_) return {};
  HF_ASSIGN(const Bytes stored, cell_->load());
  if (stored.empty()) return {};
  const auto damaged = [] {
    return fail(ErrorCode::corrupt, "what the other nodes' file systems can hold is damaged, and is asked again");
  };
  if (stored.size() < sizeof magic + crc_bytes) return damaged();
  ByteReader crc(ByteView(stored).last(crc_bytes));
  const ByteView body = ByteView(stored).first(stored.size() - crc_bytes);
  if (std::memcmp(body.data(), magic, sizeof magic) != 0 || crc32c(body) != crc.u32()) return damaged();
  ByteReader r(body.subspan(sizeof magic));
  const std::vector<ToldLimits> all = read_limits(r);
  if (!r.ok()) return damaged();
  const std::lock_guard lock(mutex_);
  for (const ToldLimits& one : all) told_[{one.node, one.set}] = one.limits;
  ++version_;
  refresh_locked();
  return {};
}

Status MemberLimits::store_locked() {
  if (!cell_) return {};
  std::vector<ToldLimits> all;
  for (const auto& [key, limits] : told_) all.push_back({key.first, key.second, limits});
  Bytes out;
  out.reserve(512);
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(magic), sizeof magic});
  write_limits(w, all);
  w.u32(crc32c(out));
  Status stored = cell_->store(out);
  unstored_ = !stored;
  return stored;
}

void MemberLimits::set_own(SetNumber set, const ports::TreeLimits& limits) {
  const std::lock_guard lock(mutex_);
  own_[set] = limits;
  ++version_;
  refresh_locked();
}

void MemberLimits::set_members(std::set<NodeId> others) {
  const std::lock_guard lock(mutex_);
  members_ = std::move(others);
  refresh_locked();
}

Status MemberLimits::forget(SetNumber set) {
  const std::lock_guard lock(mutex_);
  live_.erase(set);
  const std::size_t own = own_.erase(set);
  const std::size_t gone = std::erase_if(told_, [&](const auto& one) { return one.first.second == set; });
  if (own + gone != 0) ++version_;
  return gone == 0 ? Status{} : store_locked();
}

Status MemberLimits::told(const std::vector<ToldLimits>& all) {
  const std::lock_guard lock(mutex_);
  bool changed = false;
  for (const ToldLimits& one : all) {
    const std::pair key(one.node, one.set);
    const bool room = told_.size() < max_told_limits || told_.contains(key);
    if (one.node == self_ || one.node == NodeId(0) || !room) continue;
    const auto [it, fresh] = told_.try_emplace(key, one.limits);
    changed = changed || fresh || it->second != one.limits;
    it->second = one.limits;
  }
  if (changed) {
    ++version_;
    refresh_locked();
  }
  if (!changed && !unstored_) return {};
  const bool told_before = unstored_;
  Status stored = store_locked();
  if (stored || stored.error().code != ErrorCode::no_space) return stored;
  if (!told_before) log_warning("what other nodes' file systems can hold is not kept: {}", stored.error().to_string());
  return {};
}

Status MemberLimits::told_by(NodeId node, std::vector<ToldLimits> its) {
  for (ToldLimits& one : its) one.node = node;
  return told(its);
}

std::vector<ToldLimits> MemberLimits::own() const {
  const std::lock_guard lock(mutex_);
  std::vector<ToldLimits> all;
  for (const auto& [set, limits] : own_) all.push_back({self_, set, limits});
  return all;
}

std::vector<ToldLimits> MemberLimits::known() const {
  std::vector<ToldLimits> all = own();
  const std::lock_guard lock(mutex_);
  for (const auto& [key, limits] : told_) all.push_back({key.first, key.second, limits});
  return all;
}

std::shared_ptr<const LiveLimits> MemberLimits::of(SetNumber set) {
  const std::lock_guard lock(mutex_);
  auto& live = live_[set];
  if (!live) live = std::make_shared<LiveLimits>();
  refresh_locked();
  return live;
}

ports::TreeLimits MemberLimits::others(SetNumber set) const {
  const std::lock_guard lock(mutex_);
  return others_locked(set);
}

ports::TreeLimits MemberLimits::others_locked(SetNumber set) const {
  ports::TreeLimits least;
  for (const auto& [key, limits] : told_)
    if (key.second == set && members_.contains(key.first)) least.narrow(limits);
  return least;
}

void MemberLimits::refresh_locked() {
  for (const auto& [set, live] : live_) {
    const auto own = own_.find(set);
    const ports::TreeLimits least = others_locked(set);
    live->set(own == own_.end() ? least : least.narrower_than(own->second));
  }
}

}  // namespace holdfast::mirror
