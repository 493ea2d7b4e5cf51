// SPDX-License-Identifier: Apache-2.0
// What holdfastd tells the mirror with `configure`: parsed once, checked here, plain data from then on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "base/types.h"

namespace holdfast::mirror_process {

struct SetConfig {
  SetNumber set = 0;
  std::string path;
  bool write_through = false;
  Epoch protected_in;  // the epoch whose active was told to; 0: not known
  bool is_same_as(const SetConfig& other) const { return path == other.path && write_through == other.write_through; }
};

struct PeerConfig {
  NodeId id;
  std::string name;
  std::vector<std::string> addresses;  // "10.0.0.2:9728", in order of preference
  bool operator==(const PeerConfig&) const = default;
};

struct MirrorConfig {
  std::string cluster;
  NodeId node;
  std::string node_name;
  bool fsync_mode = false;
  bool founder = false;  // this node's tree is the cluster's first: complete by definition
  std::size_t ring_bytes = 0;
  std::uint64_t send_limit_bytes = 0,
                send_keep_free_bytes = 0;  // of each peer's queue on disk (0: none); left free there
  std::uint64_t receive_limit_bytes = 0;
  std::string listen_address;  // "" = any
  std::uint16_t listen_port = 9728;
  std::string tls_dir;
  std::vector<SetConfig> sets;
  SetNumber next_set = 0;  // those below it that are not in `sets` were unprotected: a number is never given twice
  std::vector<PeerConfig> peers;
  std::optional<std::uint64_t> undo_mib;  // 0: no history; nothing: a tenth of the file system
  bool keeps_history() const { return !undo_mib || *undo_mib != 0; }
  std::int64_t undo_age_s = 24 * 3600;
  bool scrub = true;
  std::uint64_t scrub_mib_s = 0;  // 0: a week for all of it

  static Result<MirrorConfig> parse(const nlohmann::json& request);
  const SetConfig* find_set(SetNumber set) const;
  const PeerConfig* find_peer(NodeId id) const;
};

// "10.0.0.2:9728", "[2001:db8::2]:9728"
Result<std::pair<std::string, std::uint16_t>> split_address(const std::string& address);

}  // namespace holdfast::mirror_process
