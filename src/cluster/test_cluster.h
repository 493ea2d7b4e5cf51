// SPDX-License-Identifier: Apache-2.0
// For tests only: a small cluster of cores in one process.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cluster/core.h"
#include "cluster/test_actions.h"

namespace holdfast::cluster {

constexpr ClusterId the_cluster(7);
constexpr NodeId n1(1), n2(2), n3(3), w1(9);

// Two nodes and a witness whose disks, mirrors and wires work at once.
class ClusterTest : public ::testing::Test {
 protected:
  struct Node {
    std::unique_ptr<Core> core;
    std::unique_ptr<VoterCore> voter;
    bool cut = false;
    bool complete = true, point = false;  // its mirror's copy; whether it can go back to a consistent one
    Actions seen;
  };

  void boot(NodeId id, Mutation m = {}) {
    nodes_[id].core = std::make_unique<Core>(CoreOptions{the_cluster, id, id.value, m, wait_for_activation_});
    feed(id, in::Started{std::nullopt, Incarnation(id.value)});
    feed(id, in::MirrorState{{}, true, {}});
  }
  void start(bool witness, Mutation m = {}) {
    for (const NodeId id : {n1, n2}) boot(id, m);
    if (witness) {
      nodes_[w1].voter = std::make_unique<VoterCore>(the_cluster, w1, MemberKind::witness);
      feed(w1, in::Started{std::nullopt, Incarnation(9)});
    }
    Value v;
    v.members = {Member{n1, "n1", "", 1}};
    v.config = "{}";
    feed(n1, in::Found{v, 1});
    feed(n1, in::Activated{Epoch(1)});
    feed(n1, in::AddMember{Member{n2, "n2", "", 2, MemberKind::data, false, Incarnation(2)}, 2});
    if (witness) feed(n1, in::AddMember{Member{w1, "w1", "", 0, MemberKind::witness, false, Incarnation(9)}, 3});
    pass(3000);
    feed(n1, in::WaitingFor{n2, at(n1).value()->in_sync_version});
    pass(500);
  }
  Core& at(NodeId id) { return *nodes_[id].core; }
  void feed(NodeId id, Input input) {
    inbox_.emplace_back(id, std::move(input));
    while (!inbox_.empty()) {
      auto [to, next] = std::move(inbox_.front());
      inbox_.pop_front();
      Node& n = nodes_[to];
      if (!n.core && !n.voter) continue;
      for (Action& a : n.core ? n.core->step(next, now_) : n.voter->step(next, now_)) {
        if (auto* p = std::get_if<out::Persist>(&a)) inbox_.emplace_back(to, in::Persisted{p->id});
        if (auto* s = std::get_if<out::SealMirror>(&a))
          inbox_.emplace_back(
              to, in::MirrorSealed{s->epoch, {}, n.complete, n.point && s->look_back, n.point ? "" : "damaged"});
        if (auto* s = std::get_if<out::Send>(&a);
            s && !n.cut && !nodes_[s->envelope.to].cut && !(drops_ && drops_(s->envelope)))
          inbox_.emplace_back(s->envelope.to, in::Received{s->envelope});
        n.seen.push_back(a);
      }
    }
  }
  void pass(std::int64_t ms) {
    for (std::int64_t done = 0; done < ms; done += 25) {
      now_.holder_ns += 25 * ns_per_ms;
      now_.voter_ns += 25 * ns_per_ms;
      for (const NodeId id : {n1, n2, n3})
        if (nodes_[id].core) feed(id, in::Tick{});
    }
  }
  template <class T>
  std::vector<T> seen(NodeId id) {
    return all<T>(nodes_[id].seen);
  }
  void forget() {
    for (auto& [id, n] : nodes_) n.seen.clear();
  }

  std::function<bool(const Envelope&)> drops_;  // what the network loses
  bool wait_for_activation_ = false;
  std::map<NodeId, Node> nodes_;
  std::deque<std::pair<NodeId, Input>> inbox_;
  Now now_;
};

}  // namespace holdfast::cluster
