// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/mirror_config.h"

#include <charconv>

#include <nlohmann/json.hpp>

namespace holdfast::mirror_process {
namespace {

constexpr std::uint64_t min_undo_mib = 64, max_undo_mib = 64ULL << 20;
constexpr std::uint64_t max_scrub_mib_s = 4096;
constexpr std::int64_t max_undo_age_s = 10LL * 365 * 24 * 3600;

constexpr std::size_t mib = 1U << 20;
constexpr std::size_t max_ring_mib = 65536;
// Some segments each.
constexpr std::uint64_t least_send_queue_mib = 64, least_receive_queue_mib = 64, max_queue_mib = 1U << 20;

Status parse_queues(const nlohmann::json& in, MirrorConfig& config) {
  const std::uint64_t send = in.value("send_queue_mib", std::uint64_t{4096});
  const std::uint64_t keep_free = in.value("send_keep_free_mib", std::uint64_t{512});
  const std::uint64_t receive = in.value("receive_queue_mib", std::uint64_t{4096});
  if (send != 0 && (send < least_send_queue_mib || send > max_queue_mib))
    return fail(ErrorCode::invalid, "send_queue_mib {} is neither 0 nor within {}..{}", send, least_send_queue_mib,
                max_queue_mib);
  if (keep_free > max_queue_mib)
    return fail(ErrorCode::invalid, "send_keep_free_mib {} is not within 0..{}", keep_free, max_queue_mib);
  if (receive < least_receive_queue_mib || receive > max_queue_mib)
    return fail(ErrorCode::invalid, "receive_queue_mib {} is not within {}..{}", receive, least_receive_queue_mib,
                max_queue_mib);
  config.send_limit_bytes = send * mib;
  config.send_keep_free_bytes = keep_free * mib;
  config.receive_limit_bytes = receive * mib;
  return {};
}

Result<SetConfig> parse_set(const nlohmann::json& in) {
  SetConfig set;
  const std::uint64_t number = in.at("set").get<std::uint64_t>();
  if (number == 0 || number > 0xffff) return fail(ErrorCode::invalid, "set number {} is out of range", number);
  set.set = static_cast<SetNumber>(number);
  set.path = in.at("path").get<std::string>();
  if (set.path.size() < 2 || set.path[0] != '/') return fail(ErrorCode::invalid, "not a path to protect: {}", set.path);
  const std::string policy = in.value("write_policy", "write-back");
  if (policy != "write-back" && policy != "write-through")
    return fail(ErrorCode::invalid, "unknown write policy {}", policy);
  set.write_through = policy == "write-through";
  set.protected_in = Epoch(in.value("epoch", std::uint64_t{0}));
  return set;
}

Result<PeerConfig> parse_peer(const nlohmann::json& in) {
  PeerConfig peer;
  HF_ASSIGN(peer.id, node_id_from_hex(in.at("node_id").get<std::string>()));
  peer.name = in.value("name", to_hex(peer.id));
  for (const auto& address : in.at("addresses")) {
    peer.addresses.push_back(address.get<std::string>());
    HF_TRY(split_address(peer.addresses.back()));
  }
  return peer;
}

}  // namespace

Result<std::pair<std::string, std::uint16_t>> split_address(const std::string& address) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0)
    return fail(ErrorCode::invalid, "not an address with port: {}", address);
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  std::uint16_t port = 0;
  const char* end = address.data() + address.size();
  const auto [rest, error] = std::from_chars(address.data() + colon + 1, end, port);
  if (error != std::errc() || rest != end) return fail(ErrorCode::invalid, "not an address with port: {}", address);
  return std::pair(std::move(host), port);
}

Result<MirrorConfig> MirrorConfig::parse(const nlohmann::json& request) {
  MirrorConfig config;
  config.cluster = request.at("cluster").get<std::string>();
  HF_ASSIGN(config.node, node_id_from_hex(request.at("node_id").get<std::string>()));
  config.fsync_mode = request.value("mode", "async") == "fsync";
  config.founder = request.value("founder", false);
  const std::size_t ring_mib = request.value("ring_mib", std::size_t{64});
  if (ring_mib < 8 || ring_mib > max_ring_mib)
    return fail(ErrorCode::invalid, "ring_mib {} is not within 8..{}", ring_mib, max_ring_mib);
  config.ring_bytes = ring_mib * mib;
  HF_TRY(parse_queues(request, config));
  config.tls_dir = request.at("tls_dir").get<std::string>();
  const std::string listen = request.value("listen", "");
  if (!listen.empty()) {
    HF_ASSIGN(auto split, split_address(listen));
    config.listen_address = split.first;
    config.listen_port = split.second;
  }
  for (const auto& in : request.value("sets", nlohmann::json::array())) {
    HF_ASSIGN(auto set, parse_set(in));
    if (config.find_set(set.set)) return fail(ErrorCode::invalid, "set {} is there twice", set.set);
    config.sets.push_back(std::move(set));
  }
  config.next_set = request.value("next_set", SetNumber{0});
  for (const auto& in : request.value("peers", nlohmann::json::array())) {
    HF_ASSIGN(auto peer, parse_peer(in));
    config.peers.push_back(std::move(peer));
  }
  config.node_name = request.value("node", "");
  if (const auto undo = request.find("undo_mib"); undo != request.end()) config.undo_mib = undo->get<std::uint64_t>();
  if (config.undo_mib && *config.undo_mib != 0 && (*config.undo_mib < min_undo_mib || *config.undo_mib > max_undo_mib))
    return fail(ErrorCode::invalid, "undo_mib {} is neither 0 nor within {}..{}", *config.undo_mib, min_undo_mib,
                max_undo_mib);
  config.undo_age_s = request.value("undo_age_s", config.undo_age_s);
  if (config.undo_age_s < 1 || config.undo_age_s > max_undo_age_s)
    return fail(ErrorCode::invalid, "undo_age_s {} is not within 1..{}", config.undo_age_s, max_undo_age_s);
  config.scrub = request.value("scrub", config.scrub);
  config.scrub_mib_s = request.value("scrub_mib_s", config.scrub_mib_s);
  if (config.scrub_mib_s > max_scrub_mib_s)
    return fail(ErrorCode::invalid, "scrub_mib_s {} is not within 0..{}", config.scrub_mib_s, max_scrub_mib_s);
  return config;
}

const SetConfig* MirrorConfig::find_set(SetNumber set) const {
  for (const auto& s : sets)
    if (s.set == set) return &s;
  return nullptr;
}

const PeerConfig* MirrorConfig::find_peer(NodeId id) const {
  for (const auto& p : peers)
    if (p.id == id) return &p;
  return nullptr;
}

}  // namespace holdfast::mirror_process
