// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/node_state.h"

#include <nlohmann/json.hpp>

#include "platform/durable_file.h"

namespace holdfast::daemon {
namespace {

using nlohmann::json;

json peers_json(const std::vector<network::LinkPeer>& peers) {
  json list = json::array();
  for (const auto& p : peers)
    list.push_back(
        {{"id", to_hex(p.id)}, {"name", p.name}, {"kind", network::to_string(p.kind)}, {"addresses", p.addresses}});
  return list;
}

Result<std::vector<network::LinkPeer>> peers_from(const json& list) {
  std::vector<network::LinkPeer> peers;
  for (const json& j : list) {
    network::LinkPeer p;
    HF_ASSIGN(p.id, node_id_from_hex(j.at("id").get<std::string>()));
    p.name = j.at("name").get<std::string>();
    p.kind = j.at("kind").get<std::string>() == "witness" ? network::PeerKind::witness : network::PeerKind::node;
    p.addresses = j.at("addresses").get<std::vector<std::string>>();
    peers.push_back(std::move(p));
  }
  return peers;
}

}  // namespace

cluster::ClusterId NodeState::cluster() const {
  const auto id = node_id_from_hex(cluster_id);
  return cluster::ClusterId(id ? id->value : 0);
}

Result<std::optional<NodeState>> load_node_state(const std::string& file) {
  const auto bytes = platform::read_file(file, 1u << 20);
  if (!bytes) {
    if (bytes.error().code == ErrorCode::not_found) return std::optional<NodeState>();
    return tl::unexpected(bytes.error());
  }
  try {
    const json j = json::parse(as_text(*bytes));
    NodeState s;
    s.cluster_id = j.at("cluster_id").get<std::string>();
    s.cluster_name = j.at("cluster_name").get<std::string>();
    HF_ASSIGN(s.node_id, node_id_from_hex(j.at("node_id").get<std::string>()));
    s.node_name = j.at("node_name").get<std::string>();
    s.site = j.at("site").get<std::string>();
    s.incarnation = j.at("incarnation").get<std::uint64_t>();
    HF_ASSIGN(s.peers, peers_from(j.at("peers")));
    HF_TRY(node_id_from_hex(s.cluster_id));
    return std::optional<NodeState>(std::move(s));
  } catch (const json::exception& e) {
    return fail(ErrorCode::corrupt,
                "{} is damaged ({}); restore it, or remove this node from the cluster and let it join again", file,
                e.what());
  }
}

Status store_node_state(const std::string& file, const NodeState& s) {
  const json j = {{"cluster_id", s.cluster_id},
                  {"cluster_name", s.cluster_name},
                  {"node_id", to_hex(s.node_id)},
                  {"node_name", s.node_name},
                  {"site", s.site},
                  {"incarnation", s.incarnation},
                  {"peers", peers_json(s.peers)}};
  return platform::write_file_durably(file, as_bytes(j.dump(2) + "\n"));
}

std::string peers_to_text(const std::vector<network::LinkPeer>& peers) { return peers_json(peers).dump(); }

Result<std::vector<network::LinkPeer>> peers_from_text(const std::string& text) {
  try {
    return peers_from(json::parse(text));
  } catch (const json::exception& e) {
    return fail(ErrorCode::corrupt, "the list of members can't be read: {}", e.what());
  }
}

}  // namespace holdfast::daemon
