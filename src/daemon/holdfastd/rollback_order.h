// SPDX-License-Identifier: Apache-2.0
// What makes this node go back when it becomes active. One promotion only may carry it out, and only the one it is meant for:
//
//   state   | written by                                    | carried out by the win of an epoch
//   ordered | the old active, just before it hands over     | whose last holder named this order in its resignation, on top of epoch `after`
//   wished  | failover --to, before the core is asked       | of exactly that wish; or, when holdfastd was restarted before it could note the win, on top
//           |                                               | of an epoch of this node's own that is younger than `after`
//   begun   | the promotion, before it touches anything;    | on top of `after`: this node lost that epoch in the middle and nobody else won one
//           | `after` is the epoch that was won             |
//   done    | the promotion; kept as a record of it         | none
//
// Every other win removes what is not done. So a failover in the middle, to whomever, never goes back.
//
//   DIR/rollback.json {"version":1,"state","plan","actor","from","after","batch","epoch","seq","time_ns","label","data_bytes","applied"}
#pragma once

#include <mutex>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "cluster/types.h"

namespace holdfast::daemon {

enum class OrderState { ordered, wished, begun, done };

struct RollbackOrder {
  OrderState state = OrderState::ordered;
  std::string plan, actor, from;  // `from`: name of the node that was active
  Epoch after;
  std::uint64_t batch = 0;  // of this node's undo history
  Position point;
  std::int64_t time_ns = 0;
  std::string label;
  std::uint64_t data_bytes = 0;  // about what has to be rewritten
  Epoch applied;                 // when done
  bool operator==(const RollbackOrder&) const = default;
};

// The name of a plan's order in the cluster core's messages; never 0.
std::uint64_t order_id(const std::string& plan);

// The table above. `order`: of the win; `over`: the value it was won on top of (null: founded anew).
bool carries_out(const RollbackOrder& order, std::uint64_t won_for, const cluster::ValuePtr& over, NodeId self);

// Any thread. What changes it waits for the disk.
class RollbackOrders {
 public:
  explicit RollbackOrders(std::string file) : file_(std::move(file)) {}
  // Once. A damaged file is an error and holds no order: nothing is taken back by a guess.
  Status load();

  Status store(const RollbackOrder& order);               // replaces what was there
  Status begin(const RollbackOrder& order, Epoch epoch);  // the office of `epoch` carries it out now
  Status done(const RollbackOrder& order, Epoch epoch);   // the folders are at its point, and that epoch is open
  Status forget(const std::string& plan = {});            // unless it is done; an empty plan means any
  std::optional<RollbackOrder> last() const;

 private:
  Status write(const RollbackOrder& order);
  const std::string file_;
  mutable std::mutex mutex_;
  std::optional<RollbackOrder> order_;
};

}  // namespace holdfast::daemon
