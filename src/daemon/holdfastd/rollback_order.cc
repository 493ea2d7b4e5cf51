// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/rollback_order.h"

#include <array>

#include <nlohmann/json.hpp>

#include "platform/durable_file.h"

namespace holdfast::daemon {
namespace {

using nlohmann::json;

constexpr int version = 1;
constexpr std::size_t max_bytes = 64 * 1024;
constexpr std::array state_names = {"ordered", "wished", "begun", "done"};

json to_json(const RollbackOrder& o) {
  return {{"version", version},
          {"state", state_names.at(static_cast<std::size_t>(o.state))},
          {"plan", o.plan},
          {"actor", o.actor},
          {"from", o.from},
          {"after", o.after.value},
          {"batch", o.batch},
          {"epoch", o.point.epoch.value},
          {"seq", o.point.sequence.value},
          {"time_ns", o.time_ns},
          {"label", o.label},
          {"data_bytes", o.data_bytes},
          {"applied", o.applied.value}};
}

std::optional<RollbackOrder> from_json(const json& j) {
  RollbackOrder o;
  const auto state = j.at("state").get<std::string>();
  const auto* const found = std::find(state_names.begin(), state_names.end(), state);
  if (found == state_names.end() || j.at("version").get<int>() != version) return std::nullopt;
  o.state = static_cast<OrderState>(found - state_names.begin());
  o.plan = j.at("plan").get<std::string>();
  o.actor = j.at("actor").get<std::string>();
  o.from = j.at("from").get<std::string>();
  o.after = Epoch(j.at("after").get<std::uint64_t>());
  o.batch = j.at("batch").get<std::uint64_t>();
  o.point = {Epoch(j.at("epoch").get<std::uint64_t>()), Sequence(j.at("seq").get<std::uint64_t>())};
  o.time_ns = j.at("time_ns").get<std::int64_t>();
  o.label = j.at("label").get<std::string>();
  o.data_bytes = j.at("data_bytes").get<std::uint64_t>();
  o.applied = Epoch(j.at("applied").get<std::uint64_t>());
  return o;
}

}  // namespace

std::uint64_t order_id(const std::string& plan) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : plan) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash == 0 ? 1 : hash;
}

bool carries_out(const RollbackOrder& o, std::uint64_t won_for, const cluster::ValuePtr& over, NodeId self) {
  const bool named = won_for == order_id(o.plan);
  switch (o.state) {
    case OrderState::ordered:
      return named && over && over->epoch() == o.after;
    case OrderState::wished:
      return named || (won_for == 0 && over && over->active == self && over->epoch() > o.after);
    case OrderState::begun:
      return over && over->epoch() == o.after;
    case OrderState::done:
      return false;
  }
  return false;
}

Status RollbackOrders::load() {
  const std::lock_guard lock(mutex_);
  order_.reset();
  const auto bytes = platform::read_file(file_, max_bytes);
  if (!bytes) return bytes.error().code == ErrorCode::not_found ? Status{} : Status(tl::unexpected(bytes.error()));
  try {
    order_ = from_json(json::parse(as_text(*bytes)));
    if (!order_)
      return fail(ErrorCode::corrupt, "{} is of another version: a rollback in it is not carried out", file_);
    return {};
  } catch (const json::exception& e) {
    return fail(ErrorCode::corrupt, "{} is damaged ({}): a rollback in it is not carried out", file_, e.what());
  }
}

Status RollbackOrders::write(const RollbackOrder& order) {
  HF_TRY(platform::write_file_durably(file_, as_bytes(to_json(order).dump() + "\n")));
  order_ = order;
  return {};
}

Status RollbackOrders::store(const RollbackOrder& order) {
  const std::lock_guard lock(mutex_);
  return write(order);
}

Status RollbackOrders::begin(const RollbackOrder& order, Epoch epoch) {
  const std::lock_guard lock(mutex_);
  RollbackOrder next = order;
  next.state = OrderState::begun;
  next.after = epoch;
  return write(next);
}

Status RollbackOrders::done(const RollbackOrder& order, Epoch epoch) {
  const std::lock_guard lock(mutex_);
  RollbackOrder next = order;
  next.state = OrderState::done;
  next.applied = epoch;
  return write(next);
}

Status RollbackOrders::forget(const std::string& plan) {
  const std::lock_guard lock(mutex_);
  if (!order_ || order_->state == OrderState::done || (!plan.empty() && order_->plan != plan)) return {};
  HF_TRY(platform::remove_file_durably(file_));
  order_.reset();
  return {};
}

std::optional<RollbackOrder> RollbackOrders::last() const {
  const std::lock_guard lock(mutex_);
  return order_;
}

}  // namespace holdfast::daemon
