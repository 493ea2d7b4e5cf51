// SPDX-License-Identifier: Apache-2.0
// What the API's mutations take and give. Each is parsed strictly: an unknown member is an error (a misspelt option must
// not be ignored), sizes are bounded, and nothing is defaulted that a safety rule depends on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace holdfast::control {

struct InitRequest {
  std::string name;                           // cluster
  std::string node;                           // default: the host name
  std::string site;                           // default: "default"
  std::string mode;                           // async (default) | fsync
  std::vector<std::string> channel;           // addresses of this node, without port; at least one
  std::vector<std::string> public_addresses;  // "192.0.2.10/24"; may be empty
};
struct InitReply {
  std::string cluster_id;
  std::string node_id;
  std::vector<std::string> warnings;
};

struct TokenRequest {
  std::string kind;          // node (default) | witness
  std::int64_t ttl_s = 900;  // 60..86400
};
struct TokenReply {
  std::string token;
  std::int64_t expires_ms = 0;
  std::string join_with;  // the command to type on the other machine
};

// On the machine that joins (Unix socket only).
struct JoinRequest {
  std::string address;  // of a member: "10.0.0.1" or "10.0.0.1:9727"
  std::string token;    // secret: never logged
  std::string node;
  std::string site;
  std::vector<std::string> channel;  // empty: the local address that reaches `address`
  std::vector<std::string> public_addresses;
};
struct JoinReply {
  std::string cluster;  // name
  std::string cluster_id;
  std::string node_id;
  std::string identity;
};

// First, on the member that admits (TLS, no certificate yet): what must the joiner be able to hold? POST /v1/join/asks there.
struct JoinAsksRequest {
  std::string token;
  std::string kind;  // as in AdmitRequest
};
struct JoinAsksReply {
  std::string asks;  // JSON text the daemon defines; empty: nothing is protected, so there is nothing to answer
};

// Then, on the same member: POST /v1/join there.
struct AdmitRequest {
  std::string token;
  std::string kind;     // node | witness: must be the token's kind
  std::string node;     // name
  std::string node_id;  // hex; a witness has one id for all its clusters, a node gets its own in the answer
  std::string site;
  std::string csr;                   // PEM
  std::vector<std::string> channel;  // a witness: with its port, "10.0.0.3:9729"
  std::vector<std::string> public_addresses;
  std::string version;      // of the joining software
  std::string incarnation;  // of the voter (R9), hex; may be empty
  std::string facts;        // the answer to JoinAsksReply::asks, JSON text the daemon defines
};
struct AdmitReply {
  std::string cluster;
  std::string cluster_id;
  std::string node_id;  // given by the admitting side
  std::string identity;
  std::string certificate;     // PEM, of the joiner
  std::string ca_certificate;  // PEM
  std::string ca_key;          // PEM for kind node (each data node can admit and renew); empty for a witness
  std::string bootstrap;       // JSON text the daemon defines: register value, members and their addresses
};

struct ProtectRequest {
  std::string what;          // plug-in name ("postgresql") or an absolute folder
  std::string application;   // --name; default from the plug-in or the folder
  std::string write_policy;  // write-back (default) | write-through
};
struct ProtectReply {
  std::string application;
  std::vector<std::string> paths;
  std::vector<std::string> warnings;
  std::string plan;  // may be empty
};

struct UnprotectRequest {
  std::string what;  // application name, plug-in or folder
};

struct MakeActiveRequest {
  std::string node;
};
struct FailoverRequest {
  bool force = false;  // accept the loss that the refusal names
  std::string node;    // empty = this node
  std::string to;      // take over at this point of its history (control/when.h); empty = with all it has
  bool although_it_answers =
      false;  // with force: the active still answers at a public address, and is to be ended some other way
};

struct ReleaseRequest {
  std::string node;  // empty = the one that is held
};

struct MemberRemoveRequest {
  std::string name;  // of a node or the witness
};

struct MemberChangeRequest {
  std::string name;
  std::string new_name;              // empty = stays
  std::vector<std::string> channel;  // without port, each a path; empty = stay
};

struct SkipStepRequest {
  std::string plan;  // id; empty = the running one
  std::string step;  // its name
};

struct ConfigSetRequest {
  std::string key;
  std::string value;  // text as typed; the daemon knows each key's type
};
struct ConfigItem {
  std::string key;
  std::string value;
  std::string default_value;
  std::string text;  // what it does, with its unit
};
struct ConfigReply {
  std::uint64_t version = 0;
  std::vector<ConfigItem> items;
};

struct RenewRequest {
  std::string csr;  // PEM; the identity is that of the presented certificate
};
struct RenewReply {
  std::string certificate;
};

// A long operation: follow GET /v1/plans/{plan} until its state is final. Empty = it is done already.
struct Accepted {
  std::string plan;
  std::string undo_with;  // the command that takes it back; may be empty
  std::string text;       // one line for a person; may be empty
};

#define HF_JSON_REQUEST(Type, reader)        \
  nlohmann::json to_json(const Type& value); \
  Result<Type> reader(const nlohmann::json& json)

HF_JSON_REQUEST(InitRequest, init_request_from_json);
HF_JSON_REQUEST(InitReply, init_reply_from_json);
HF_JSON_REQUEST(TokenRequest, token_request_from_json);
HF_JSON_REQUEST(TokenReply, token_reply_from_json);
HF_JSON_REQUEST(JoinRequest, join_request_from_json);
HF_JSON_REQUEST(JoinReply, join_reply_from_json);
HF_JSON_REQUEST(JoinAsksRequest, join_asks_request_from_json);
HF_JSON_REQUEST(JoinAsksReply, join_asks_reply_from_json);
HF_JSON_REQUEST(AdmitRequest, admit_request_from_json);
HF_JSON_REQUEST(AdmitReply, admit_reply_from_json);
HF_JSON_REQUEST(ProtectRequest, protect_request_from_json);
HF_JSON_REQUEST(ProtectReply, protect_reply_from_json);
HF_JSON_REQUEST(UnprotectRequest, unprotect_request_from_json);
HF_JSON_REQUEST(MakeActiveRequest, make_active_request_from_json);
HF_JSON_REQUEST(FailoverRequest, failover_request_from_json);
HF_JSON_REQUEST(ReleaseRequest, release_request_from_json);
HF_JSON_REQUEST(MemberRemoveRequest, member_remove_request_from_json);
HF_JSON_REQUEST(MemberChangeRequest, member_change_request_from_json);
HF_JSON_REQUEST(SkipStepRequest, skip_step_request_from_json);
HF_JSON_REQUEST(ConfigSetRequest, config_set_request_from_json);
HF_JSON_REQUEST(ConfigReply, config_reply_from_json);
HF_JSON_REQUEST(RenewRequest, renew_request_from_json);
HF_JSON_REQUEST(RenewReply, renew_reply_from_json);
HF_JSON_REQUEST(Accepted, accepted_from_json);
#undef HF_JSON_REQUEST

}  // namespace holdfast::control
