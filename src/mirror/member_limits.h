// SPDX-License-Identifier: Apache-2.0
// What the file systems under the protected folders of all nodes can hold. A passive says it of its own, an active what it knows of everybody, so
// that its successor knows it too; what others said is kept over restarts, so that who is away still counts (docs/formats/channel.md).
//
//   value: "HFLIMIT1", varint count, each as in the channel; crc32c u32
//
// Threads: any.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "mirror/live_limits.h"
#include "ports/durable_cell.h"

namespace holdfast::mirror {

struct ToldLimits {
  NodeId node;
  SetNumber set = 0;
  ports::TreeLimits limits;
  bool operator==(const ToldLimits&) const = default;
};
constexpr std::size_t max_told_limits = 1024;  // no more are said at once, nor taken

// As they stand in frames and in the stored value. Reading leaves out limits that this program does not know.
void write_limits(ByteWriter& w, const std::vector<ToldLimits>& all);
std::vector<ToldLimits> read_limits(ByteReader& r);

class MemberLimits {
 public:
  // `cell`: null: forgotten with the process. It outlives this.
  MemberLimits(ports::DurableCell* cell, NodeId self) : cell_(cell), self_(self) {}
  // ErrorCode::corrupt: the value is damaged, nothing is known until it is said again.
  Status load();
  void set_own(SetNumber set, const ports::TreeLimits& limits);
  void set_members(std::set<NodeId> others);  // whose limits count
  Status forget(SetNumber set);
  // Durable when it returns, unless there is no space for that: then it is stored with the next one. What is said of this node itself is left
  // out. It counts in any case.
  Status told(const std::vector<ToldLimits>& all);
  Status told_by(NodeId node, std::vector<ToldLimits> its);  // whatever it says, it says of itself

  std::vector<ToldLimits> own() const;
  std::vector<ToldLimits> known() const;                // own ones, and everybody else's
  std::uint64_t version() const { return version_; }    // never 0; changes with known()
  std::shared_ptr<const LiveLimits> of(SetNumber set);  // the same object for as long as the set is here
  ports::TreeLimits others(SetNumber set) const;        // the least of what the other members said

 private:
  Status store_locked();
  void refresh_locked();
  ports::TreeLimits others_locked(SetNumber set) const;

  ports::DurableCell* const cell_;
  const NodeId self_;
  mutable std::mutex mutex_;
  std::map<SetNumber, ports::TreeLimits> own_;
  std::map<std::pair<NodeId, SetNumber>, ports::TreeLimits> told_;
  std::set<NodeId> members_;
  bool unstored_ = false;  // the last store failed
  std::map<SetNumber, std::shared_ptr<LiveLimits>> live_;
  std::atomic<std::uint64_t> version_{1};
};

}  // namespace holdfast::mirror
