// SPDX-License-Identifier: Apache-2.0
// Named points of this node's undo history. A shadow is a place in the line of batches: "the trees as they were when the first batch from this
// number on began". It lives as long as the history from there on does; `keep` makes that longer than the age bound, never bigger than the size
// bound. Marks in the log make them at the same sequence on every passive; automatic ones belong to the node that made them.
//
// On disk (a DurableCell, replaced as a whole): docs/formats/log.md, "Shadows".
// Threads: any.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "ports/durable_cell.h"

namespace holdfast::mirror {

enum class ShadowOrigin : std::uint8_t { user = 1, schedule, automatic };
const char* to_string(ShadowOrigin origin);
std::optional<ShadowOrigin> shadow_origin(std::string_view text);

struct Shadow {
  std::string name;
  std::uint64_t batch = 0;  // the first one from this number on begins there
  Position position;
  std::int64_t time_ns = 0;  // the active's clock
  bool keep = false;
  ShadowOrigin origin = ShadowOrigin::user;
  bool application_consistent = false;
};

constexpr std::size_t max_shadow_name_bytes = 200;
constexpr std::size_t max_shadows = 10'000;
// 1 to 200 bytes without '/', control characters and blanks at either end.
Status check_shadow_name(std::string_view name);

// The name of a shadow mark's record: who made it and how, then ':' and the shadow's name ("uc:before the upgrade").
std::string shadow_mark_name(const Shadow& shadow);
std::optional<Shadow> shadow_of_mark(std::string_view name);  // nullopt: not one this program knows

class Shadows {
 public:
  // `cell` may be null: nothing outlives the process (tests).
  explicit Shadows(ports::DurableCell* cell) : cell_(cell) {}
  Status load();  // ErrorCode::corrupt: nothing is taken over; the next change writes it anew

  std::vector<Shadow> list() const;  // by batch
  std::optional<Shadow> find(std::string_view name) const;
  std::optional<Shadow> at(Position position, ShadowOrigin origin) const;
  // Durable when it returns. An older one of the same name gives way, unless it is kept: then the new one is "NAME-2", and so on. Scheduled
  // ones are thinned out.
  Result<Shadow> add(Shadow shadow);
  Result<Shadow> set_keep(std::string_view name, bool keep);
  Status remove(std::string_view name);
  // Those whose history is gone; told once.
  Result<std::vector<Shadow>> drop(const std::function<bool(const Shadow&)>& gone);
  // Lowest batch that is kept past the age bound: by a person, or as what thinning left of a schedule; 0: none is.
  std::uint64_t oldest_kept() const;

 private:
  Status store(std::vector<Shadow> next);

  ports::DurableCell* const cell_;
  mutable std::mutex mutex_;
  std::vector<Shadow> shadows_;  // by batch, then time
};

// Of scheduled shadows: the newest of each hour of the last day, of each day of the last week, of each week of the last four, and the newest of
// all. Those of people and automatic ones stay.
std::vector<Shadow> thin_out(std::vector<Shadow> shadows, std::int64_t now_ns);

}  // namespace holdfast::mirror
