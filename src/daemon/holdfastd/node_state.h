// SPDX-License-Identifier: Apache-2.0
// What this node knows of itself before it can ask anybody: node.json. Written at init and join, and when members' addresses
// change, so that after a restart it finds the others even when the register's file is of an older membership.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cluster/types.h"
#include "network/peer_link.h"

namespace holdfast::daemon {

struct NodeState {
  std::string cluster_id;  // 16 hex digits
  std::string cluster_name;
  NodeId node_id;
  std::string node_name;
  std::string site;
  std::uint64_t incarnation = 0;  // of its voter, made before the first register file
  std::vector<network::LinkPeer> peers;

  cluster::ClusterId cluster() const;
};

// nullopt: this node is in no cluster yet.
Result<std::optional<NodeState>> load_node_state(const std::string& file);
Status store_node_state(const std::string& file, const NodeState& state);

std::string peers_to_text(const std::vector<network::LinkPeer>& peers);
Result<std::vector<network::LinkPeer>> peers_from_text(const std::string& text);

}  // namespace holdfast::daemon
