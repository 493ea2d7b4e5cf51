// SPDX-License-Identifier: Apache-2.0
#include "mirror/shadows.h"

#include <algorithm>
#include <cstring>
#include <set>

#include <fmt/core.h>

#include "base/bytes.h"

namespace holdfast::mirror {
namespace {

constexpr char magic[8] = {'H', 'F', 'S', 'H', 'A', 'D', 'O', 'W'};
constexpr std::uint32_t format_version = 1;
constexpr std::int64_t hour_ns = 3600LL * 1'000'000'000, day_ns = 24 * hour_ns, week_ns = 7 * day_ns;

Bytes encode(const std::vector<Shadow>& shadows) {
  Bytes out;
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(magic), sizeof magic});
  w.u32(format_version);
  w.varint(shadows.size());
  for (const Shadow& s : shadows) {
    w.text(s.name);
    w.u64(s.batch);
    w.u64(s.position.epoch.value);
    w.u64(s.position.sequence.value);
    w.u64(static_cast<std::uint64_t>(s.time_ns));
    w.u8(static_cast<std::uint8_t>(s.origin));
    w.u8(static_cast<std::uint8_t>((s.keep ? 1 : 0) | (s.application_consistent ? 2 : 0)));
  }
  w.u32(crc32c(out));
  return out;
}

Result<std::vector<Shadow>> decode(ByteView bytes) {
  std::vector<Shadow> shadows;
  if (bytes.empty()) return shadows;
  const auto damaged = [] { return fail(ErrorCode::corrupt, "the list of shadows is damaged: it begins anew"); };
  if (bytes.size() < sizeof magic + 8 || std::memcmp(bytes.data(), magic, sizeof magic) != 0) return damaged();
  ByteReader crc(bytes.last(4));
  if (crc.u32() != crc32c(bytes.first(bytes.size() - 4))) return damaged();
  ByteReader r(bytes.subspan(sizeof magic));
  if (const std::uint32_t version = r.u32(); version != format_version)
    return fail(ErrorCode::refused, "a list of shadows of version {}; this program reads {}", version, format_version);
  const std::uint64_t n = r.varint();
  for (std::uint64_t i = 0; i < n && r.ok(); ++i) {
    Shadow s;
    s.name = std::string(r.text());
    s.batch = r.u64();
    s.position.epoch = Epoch(r.u64());
    s.position.sequence = Sequence(r.u64());
    s.time_ns = static_cast<std::int64_t>(r.u64());
    s.origin = static_cast<ShadowOrigin>(r.u8());
    const std::uint8_t bits = r.u8();
    s.keep = bits & 1;
    s.application_consistent = bits & 2;
    shadows.push_back(std::move(s));
  }
  if (!r.ok()) return damaged();
  return shadows;
}

void sort(std::vector<Shadow>& shadows) {
  std::stable_sort(shadows.begin(), shadows.end(), [](const Shadow& a, const Shadow& b) {
    return std::pair(a.batch, a.time_ns) < std::pair(b.batch, b.time_ns);
  });
}

}  // namespace

const char* to_string(ShadowOrigin origin) {
  switch (origin) {
    case ShadowOrigin::user:
      return "user";
    case ShadowOrigin::schedule:
      return "schedule";
    case ShadowOrigin::automatic:
      return "auto";
  }
  return "user";
}

std::optional<ShadowOrigin> shadow_origin(std::string_view text) {
  for (const auto o : {ShadowOrigin::user, ShadowOrigin::schedule, ShadowOrigin::automatic})
    if (text == to_string(o)) return o;
  return std::nullopt;
}

Status check_shadow_name(std::string_view name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte != 0x7f && c != '/';
  });
  if (plain && !name.empty() && name.size() <= max_shadow_name_bytes && name.front() != ' ' && name.back() != ' ')
    return {};
  return fail(ErrorCode::invalid, "a shadow's name has 1 to {} bytes, no '/', no control characters",
              max_shadow_name_bytes);
}

std::string shadow_mark_name(const Shadow& s) {
  const char origin = s.origin == ShadowOrigin::user ? 'u' : s.origin == ShadowOrigin::schedule ? 's' : 'a';
  return fmt::format("{}{}:{}", origin, s.application_consistent ? 'c' : '-', s.name);
}

std::optional<Shadow> shadow_of_mark(std::string_view text) {
  if (text.size() < 4 || text[2] != ':') return std::nullopt;
  Shadow s;
  if (text[0] == 'u')
    s.origin = ShadowOrigin::user;
  else if (text[0] == 's')
    s.origin = ShadowOrigin::schedule;
  else if (text[0] == 'a')
    s.origin = ShadowOrigin::automatic;
  else
    return std::nullopt;
  s.application_consistent = text[1] == 'c';
  s.name = std::string(text.substr(3));
  if (!check_shadow_name(s.name)) return std::nullopt;
  return s;
}

Status Shadows::load() {
  if (cell_ == nullptr) return {};
  HF_ASSIGN(const Bytes stored, cell_->load());
  HF_ASSIGN(auto shadows, decode(stored));
  sort(shadows);
  const std::lock_guard lock(mutex_);
  shadows_ = std::move(shadows);
  return {};
}

Status Shadows::store(std::vector<Shadow> next) {
  if (cell_ != nullptr) HF_TRY(cell_->store(encode(next)));
  shadows_ = std::move(next);
  return {};
}

std::vector<Shadow> Shadows::list() const {
  const std::lock_guard lock(mutex_);
  return shadows_;
}

std::optional<Shadow> Shadows::find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  for (const Shadow& s : shadows_)
    if (s.name == name) return s;
  return std::nullopt;
}

std::optional<Shadow> Shadows::at(Position position, ShadowOrigin origin) const {
  const std::lock_guard lock(mutex_);
  for (const Shadow& s : shadows_)
    if (s.position == position && s.origin == origin) return s;
  return std::nullopt;
}

Result<Shadow> Shadows::add(Shadow shadow) {
  const std::lock_guard lock(mutex_);
  std::vector<Shadow> next = shadows_;
  const auto named = [&](const std::string& name) {
    return std::find_if(next.begin(), next.end(), [&](const Shadow& s) { return s.name == name; });
  };
  const std::string wanted = shadow.name;
  for (int n = 2;; ++n) {
    const auto same = named(shadow.name);
    if (same == next.end()) break;
    if (!same->keep && shadow.origin != ShadowOrigin::automatic) {
      next.erase(same);
      break;
    }
    shadow.name = fmt::format("{}-{}", wanted, n);
  }
  next.push_back(shadow);
  if (shadow.origin == ShadowOrigin::schedule) next = thin_out(std::move(next), shadow.time_ns);
  sort(next);
  if (next.size() > max_shadows)
    return fail(ErrorCode::refused, "there are {} shadows already: holdfast shadow delete", max_shadows);
  HF_TRY(store(std::move(next)));
  return shadow;
}

Result<Shadow> Shadows::set_keep(std::string_view name, bool keep) {
  const std::lock_guard lock(mutex_);
  std::vector<Shadow> next = shadows_;
  for (Shadow& s : next) {
    if (s.name != name) continue;
    s.keep = keep;
    const Shadow found = s;
    HF_TRY(store(std::move(next)));
    return found;
  }
  return fail(ErrorCode::not_found, "there is no shadow '{}' here: holdfast shadow list shows which there are", name);
}

Status Shadows::remove(std::string_view name) {
  const std::lock_guard lock(mutex_);
  std::vector<Shadow> next = shadows_;
  if (std::erase_if(next, [&](const Shadow& s) { return s.name == name; }) == 0)
    return fail(ErrorCode::not_found, "there is no shadow '{}' here: holdfast shadow list shows which there are", name);
  return store(std::move(next));
}

Result<std::vector<Shadow>> Shadows::drop(const std::function<bool(const Shadow&)>& gone) {
  const std::lock_guard lock(mutex_);
  std::vector<Shadow> next, dropped;
  for (const Shadow& s : shadows_) (gone(s) ? dropped : next).push_back(s);
  if (!dropped.empty()) HF_TRY(store(std::move(next)));
  return dropped;
}

std::uint64_t Shadows::oldest_kept() const {
  const std::lock_guard lock(mutex_);
  for (const Shadow& s : shadows_)
    if (s.keep || s.origin == ShadowOrigin::schedule) return s.batch;
  return 0;
}

std::vector<Shadow> thin_out(std::vector<Shadow> shadows, std::int64_t now_ns) {
  std::vector<Shadow> scheduled;
  for (const Shadow& s : shadows)
    if (s.origin == ShadowOrigin::schedule) scheduled.push_back(s);
  std::sort(scheduled.begin(), scheduled.end(),
            [](const Shadow& a, const Shadow& b) { return a.time_ns > b.time_ns; });  // newest first
  std::set<std::string> stay;
  std::set<std::pair<std::int64_t, std::int64_t>> taken;  // length of the period, its number
  for (const Shadow& s : scheduled) {
    const std::int64_t age = now_ns - s.time_ns;
    const std::int64_t period = age < day_ns ? hour_ns : age < week_ns ? day_ns : age < 4 * week_ns ? week_ns : 0;
    if (stay.empty() || (period != 0 && taken.insert({period, s.time_ns / period}).second)) {
      if (stay.empty() && period != 0) taken.insert({period, s.time_ns / period});
      stay.insert(s.name);
    }
  }
  std::erase_if(shadows, [&](const Shadow& s) {
    return s.origin == ShadowOrigin::schedule && !s.keep && !stay.contains(s.name);
  });
  return shadows;
}

}  // namespace holdfast::mirror
