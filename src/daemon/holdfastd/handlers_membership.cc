// SPDX-License-Identifier: Apache-2.0
// init, token, join, admit, renew: how a cluster comes to be and who is in it.
#include <ctime>
#include <random>
#include <set>

#include <chrono>
#include <thread>
#include "base/log.h"
#include "control/join_client.h"
#include "control/pki.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/json_read.h"
#include "platform/process.h"

namespace holdfast::daemon {
namespace {

using control::AdmitReply;
using control::AdmitRequest;
using control::Caller;
using nlohmann::json;

constexpr const char* identities[] = {"witness", "primary", "secondary", "tertiary"};

std::int64_t now_s() { return static_cast<std::int64_t>(std::time(nullptr)); }

std::uint64_t random_u64() {
  std::random_device source;
  std::uint64_t value = 0;
  while (value == 0) value = (static_cast<std::uint64_t>(source()) << 32) | source();
  return value;
}

std::string host_name() {
  const auto name = platform::run_checked({.argv = {"hostname", "-s"}, .timeout_ms = 3'000});
  if (!name) return "node";
  return name->substr(0, name->find_first_of("\r\n"));
}

Status check_name(const std::string& name, const char* what) {
  const bool fine = !name.empty() && name.size() <= 63 &&
                    name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                        std::string::npos &&
                    name.front() != '-' && name.front() != '.';
  if (fine) return {};
  return fail(ErrorCode::invalid, "'{}' is no name for a {}: use up to 63 letters, digits, '-', '_' and '.'",
              name.substr(0, 80), what);
}

Caller joining(Caller caller) {
  if (caller.actor.empty()) caller.actor = "token";
  return caller;
}

std::string version_head(const std::string& version) { return version.substr(0, version.find('.')); }

}  // namespace

Status ApiHandlers::check_addresses(const std::vector<std::string>& channel,
                                    const std::vector<std::string>& public_addresses) const {
  HF_ASSIGN(auto links, network::Addresses::open());
  HF_ASSIGN(const auto present, links.list());
  for (const std::string& text : channel) {
    HF_ASSIGN(const network::IpAddress ip, network::IpAddress::parse(text));
    bool here = false;
    for (const auto& p : present) here = here || p.prefix.ip == ip;
    if (!here)
      return tl::unexpected(Error{ErrorCode::invalid, fmt::format("channel address {} is not one of this node's", text),
                                  "ip -brief address shows them", 0});
  }
  for (const std::string& text : public_addresses) {
    HF_ASSIGN(const network::IpPrefix prefix, network::IpPrefix::parse(text));
    for (const std::string& c : channel)
      if (prefix.ip.to_string() == c)
        return fail(ErrorCode::invalid,
                    "{} is a channel address: a public address moves with the active and must be another one", c);
    HF_TRY(links.check(prefix));
  }
  return {};
}

Result<control::InitReply> ApiHandlers::init(const Caller& caller, const control::InitRequest& r) {
  const std::lock_guard lock(membership_mutex_);
  if (const Snapshot s = d_.snapshot(); s.member)
    return tl::unexpected(Error{ErrorCode::exists,
                                fmt::format("this node is in cluster {} already", s.node.cluster_name),
                                "holdfast status shows it", 0});
  NodeState state;
  state.cluster_name = r.name;
  state.node_name = r.node.empty() ? host_name() : r.node;
  state.site = r.site.empty() ? "default" : r.site;
  HF_TRY(check_name(r.name, "cluster"));
  HF_TRY(check_name(state.node_name, "node"));
  HF_TRY(check_name(state.site, "site"));
  if (r.channel.empty()) return fail(ErrorCode::invalid, "init needs at least one channel address: --channel ADDRESS");
  const std::string mode = r.mode.empty() ? "async" : r.mode;
  if (mode != "async" && mode != "fsync") return fail(ErrorCode::invalid, "mode '{}' is neither async nor fsync", mode);
  HF_TRY(check_addresses(r.channel, r.public_addresses));
  if (!d_.mirror().connected())
    return tl::unexpected(
        Error{ErrorCode::unavailable, "holdfast-mirror is not running", "systemctl start holdfast-mirror", 0});
  control::InitReply reply;
  for (const std::string& text : r.public_addresses) {
    HF_ASSIGN(const network::IpPrefix prefix, network::IpPrefix::parse(text));
    HF_ASSIGN(auto links, network::Addresses::open());
    const auto present = links.present(prefix.ip);
    if (present && *present)
      reply.warnings.push_back(text +
                               " is configured on this node already; from now on Holdfast adds and removes it: take it "
                               "out of the network configuration");
    else
      HF_TRY(links.probe_conflict(prefix));
  }

  state.cluster_id = control::random_id_hex();
  HF_ASSIGN(state.node_id, node_id_from_hex(control::random_id_hex()));
  state.incarnation = random_u64();
  HF_ASSIGN(const control::Credentials ca, control::make_ca(state.cluster_id, now_s()));
  HF_ASSIGN(const control::Credentials own,
            control::make_node_credentials(
                ca, {state.cluster_id, to_hex(state.node_id), control::CertificateKind::node}, now_s()));
  HF_TRY(control::store_tls({d_.paths().tls()}, {ca.certificate_pem, ca.key_pem, own}));

  ClusterConfig config;
  config.name = r.name;
  config.mode = mode;
  config.nodes[to_hex(state.node_id)].channel = r.channel;
  for (const std::string& text : r.public_addresses)
    config.public_addresses.push_back({network::IpPrefix::parse(text)->to_string(), state.site, "move"});
  cluster::Value value;
  value.members.push_back({state.node_id, state.node_name, state.site, 1, cluster::MemberKind::data, true,
                           cluster::Incarnation(state.incarnation)});
  value.config = to_text(config);
  value.config_version = 1;
  value.settings = config.settings();

  Status founded = d_.become_member(state, true);
  if (founded) founded = d_.found_cluster(value, 15'000);
  if (!founded) {
    d_.forget_member();
    return tl::unexpected(founded.error());
  }
  d_.event("info", "cluster_founded", caller.actor,
           fmt::format("cluster {} ({}) was founded by {}", r.name, state.cluster_id, state.node_name));
  reply.cluster_id = state.cluster_id;
  reply.node_id = to_hex(state.node_id);
  return reply;
}

Result<control::TokenReply> ApiHandlers::token(const Caller&, const control::TokenRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member) return tl::unexpected(not_a_member());
  HF_ASSIGN(const control::CertificateKind kind, control::certificate_kind_from_text(r.kind.empty() ? "node" : r.kind));
  HF_ASSIGN(const control::TlsMaterial tls, control::load_tls({d_.paths().tls()}, now_s()));
  HF_ASSIGN(const std::string fingerprint, control::fingerprint_of(tls.ca_certificate_pem));
  HF_ASSIGN(const auto issued, tokens_.issue(s.node.cluster_id, fingerprint, kind, r.ttl_s));
  std::string address = "ADDRESS";
  if (const auto it = s.config.nodes.find(to_hex(s.node.node_id));
      it != s.config.nodes.end() && !it->second.channel.empty())
    address = it->second.channel.front();
  const char* command = kind == control::CertificateKind::witness ? "holdfast-witness join" : "holdfast join";
  return control::TokenReply{issued.text, issued.expires_ms,
                             fmt::format("{} {} --token {}", command, address, issued.text)};
}

Result<control::JoinReply> ApiHandlers::join(const Caller& caller, const control::JoinRequest& r) {
  const std::lock_guard lock(membership_mutex_);
  if (const Snapshot s = d_.snapshot(); s.member)
    return tl::unexpected(Error{ErrorCode::exists,
                                fmt::format("this node is in cluster {} already", s.node.cluster_name),
                                "holdfast status shows it", 0});
  NodeState state;
  state.node_name = r.node.empty() ? host_name() : r.node;
  state.site = r.site.empty() ? "default" : r.site;
  HF_TRY(check_name(state.node_name, "node"));
  HF_TRY(check_name(state.site, "site"));
  HF_TRY(check_addresses(r.channel, r.public_addresses));
  if (!d_.mirror().connected())
    return tl::unexpected(
        Error{ErrorCode::unavailable, "holdfast-mirror is not running", "systemctl start holdfast-mirror", 0});
  state.incarnation = random_u64();
  control::JoinOptions options;
  options.address = r.address;
  options.token = r.token;
  options.node = state.node_name;
  options.site = state.site;
  options.channel = r.channel;
  options.public_addresses = r.public_addresses;
  options.version = HF_VERSION;
  options.incarnation = fmt::format("{:016x}", state.incarnation);
  std::vector<std::string> missing;  // folders whose copy is to have a place here
  options.answer = [&](const std::string& asks) { return answer_join(asks, missing); };
  HF_ASSIGN(const control::Joined joined, control::join_cluster(options));
  HF_TRY(make_folders({{"paths", missing}}));
  state.cluster_id = joined.reply.cluster_id;
  state.cluster_name = joined.reply.cluster;
  HF_ASSIGN(state.node_id, node_id_from_hex(joined.reply.node_id));
  HF_ASSIGN(state.peers, peers_from_text(joined.reply.bootstrap));
  HF_TRY(control::store_tls({d_.paths().tls()}, joined.material));
  if (const Status started = d_.become_member(state, false); !started) {
    d_.forget_member();
    return tl::unexpected(started.error());
  }
  d_.event("info", "joined", caller.actor,
           fmt::format("{} joined cluster {} through {}", state.node_name, state.cluster_name, joined.member_address));
  return control::JoinReply{state.cluster_name, state.cluster_id, joined.reply.node_id, joined.reply.identity};
}

// The token is looked at before anything else, so that a stranger learns nothing of the cluster; it is used up last, so that a request that
// can't succeed does not cost it.
Result<AdmitReply> ApiHandlers::admit(const Caller& caller, const AdmitRequest& r) {
  const std::lock_guard lock(membership_mutex_);
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_ASSIGN(const control::CertificateKind kind, control::certificate_kind_from_text(r.kind));
  const bool witness = kind == control::CertificateKind::witness;
  HF_TRY(tokens_.check(r.token, s.node.cluster_id, kind));
  HF_TRY(check_name(r.node, "node"));
  if (r.version.empty()) return fail(ErrorCode::invalid, "{} does not say which version of Holdfast it runs", r.node);
  if (version_head(r.version) != version_head(HF_VERSION))
    return fail(ErrorCode::refused, "{} runs Holdfast {}, this cluster {}: install the same major version", r.node,
                r.version, HF_VERSION);
  std::set<int> taken;
  std::size_t nodes = 0;
  for (const cluster::Member& m : s.value->members) {
    if (m.name == r.node)
      return fail(ErrorCode::exists, "a member of this cluster is named {} already: choose another name with --node",
                  r.node);
    if (witness && m.kind == cluster::MemberKind::witness)
      return fail(ErrorCode::exists, "the cluster has a witness already, {}", m.name);
    taken.insert(m.identity);
    nodes += m.kind == cluster::MemberKind::data ? 1 : 0;
  }
  if (!witness && nodes >= 3) return fail(ErrorCode::refused, "the cluster has three nodes already");
  if (r.channel.empty()) return fail(ErrorCode::invalid, "{} names no channel address", r.node);
  int identity = 0;
  if (!witness)
    for (identity = 1; taken.contains(identity);) ++identity;
  HF_ASSIGN(const control::TlsMaterial tls, control::load_tls({d_.paths().tls()}, now_s()));
  if (tls.ca_key_pem.empty())
    return fail(ErrorCode::refused, "this node does not hold the cluster's authority: join through another node");
  if (!is_active(s) && !d_.links().connected(s.node.cluster_id, s.value->active))
    return fail(ErrorCode::unavailable, "the active can't be reached, so nobody can be admitted now");
  if (!witness) {
    const json facts = {{"name", r.node}, {"facts", r.facts.empty() ? "[]" : r.facts}};
    HF_ASSIGN(const auto judged, forward("judge_joiner", joining(caller), facts, 60'000));
    if (!judged) HF_TRY(judge_joiner(facts));
  }
  HF_TRY(tokens_.consume(r.token, s.node.cluster_id, kind, r.node));

  AdmitReply reply;
  reply.node_id = control::random_id_hex();
  reply.cluster = s.config.name;
  reply.cluster_id = s.node.cluster_id;
  reply.identity = identities[identity];
  HF_ASSIGN(reply.certificate, control::sign_request({tls.ca_key_pem, tls.ca_certificate_pem}, r.csr,
                                                     {s.node.cluster_id, reply.node_id, kind}, now_s()));
  reply.ca_certificate = tls.ca_certificate_pem;
  if (!witness) reply.ca_key = tls.ca_key_pem;
  const json member = {{"id", reply.node_id},
                       {"name", r.node},
                       {"site", r.site.empty() ? "default" : r.site},
                       {"identity", identity},
                       {"witness", witness},
                       {"incarnation", r.incarnation},
                       {"channel", r.channel},
                       {"public", r.public_addresses}};
  const Caller as = joining(caller);
  HF_ASSIGN(const auto forwarded, forward("add_member", as, member));
  if (!forwarded) HF_TRY(add_member(member));

  std::vector<network::LinkPeer> peers;
  for (const cluster::Member& m : s.value->members) {
    network::LinkPeer p{m.id,
                        m.name,
                        m.kind == cluster::MemberKind::witness ? network::PeerKind::witness : network::PeerKind::node,
                        {}};
    if (const auto it = s.config.nodes.find(to_hex(m.id)); it != s.config.nodes.end())
      for (const std::string& a : it->second.channel)
        p.addresses.push_back(with_port(a, witness || p.kind == network::PeerKind::witness ? 9729 : 9727));
    peers.push_back(std::move(p));
  }
  reply.bootstrap = peers_to_text(peers);
  d_.event("info", "admitted", as.actor,
           fmt::format("{} {} was admitted ({})", witness ? "witness" : "node", r.node, reply.node_id));
  return reply;
}

// On the active: addresses first, then the member, so that nobody is a member whom the others can't find.
Result<nlohmann::json> ApiHandlers::add_member(const json& r) {
  cluster::in::AddMember add;
  HF_ASSIGN(add.member.id, node_id_from_hex(text_of(r, "id")));
  add.member.name = text_of(r, "name");
  add.member.site = text_of(r, "site");
  add.member.identity = static_cast<std::uint8_t>(number_of(r, "identity"));
  add.member.kind = flag_of(r, "witness") ? cluster::MemberKind::witness : cluster::MemberKind::data;
  if (const auto incarnation = node_id_from_hex(text_of(r, "incarnation")); incarnation)
    add.member.incarnation = cluster::Incarnation(incarnation->value);
  const std::string id = to_hex(add.member.id);
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    for (const auto& a : list_of(r, "channel"))
      if (a.is_string()) c.nodes[id].channel.push_back(a.get<std::string>());
    for (const auto& a : list_of(r, "public")) {
      if (!a.is_string()) continue;
      HF_ASSIGN(const network::IpPrefix prefix, network::IpPrefix::parse(a.get<std::string>()));
      bool known = false;
      for (const auto& p : c.public_addresses)
        known = known || (p.address == prefix.to_string() && p.site == add.member.site);
      if (!known) c.public_addresses.push_back({prefix.to_string(), add.member.site, "move"});
    }
    return c;
  }));
  const Status added = d_.ask_core(add, 10'000);
  if (!added) {
    (void)d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
      c.nodes.erase(id);
      return c;
    });
    return tl::unexpected(added.error());
  }
  return json::object();
}

Result<nlohmann::json> ApiHandlers::remove_member(const json& r) {
  cluster::in::RemoveMember remove;
  HF_ASSIGN(remove.node, node_id_from_hex(text_of(r, "id")));
  HF_TRY(d_.ask_core(remove, 10'000));
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    c.nodes.erase(text_of(r, "id"));
    return c;
  }));
  return json::object();
}

Result<control::Accepted> ApiHandlers::member_remove(const Caller& caller, const control::MemberRemoveRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  const cluster::Member* found = nullptr;
  for (const cluster::Member& m : s.value->members)
    if (m.name == r.name) found = &m;
  if (found == nullptr)
    return tl::unexpected(Error{ErrorCode::not_found, fmt::format("there is no member '{}' in this cluster", r.name),
                                "holdfast status shows its nodes and its witness", 0});
  const cluster::Member member = *found;
  if (member.id == s.value->active)
    return tl::unexpected(
        Error{ErrorCode::refused, r.name + " is the active", "holdfast make-active on another node first", 0});
  HF_ASSIGN(const auto forwarded, forward("member_remove", caller, control::to_json(r)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  // A passive that is in the in-sync set leaves it first: the core asks for that, and says when it is done.
  Status removed = fail(ErrorCode::timeout, "");
  for (int attempt = 0; attempt < 20 && !removed; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cluster::in::RemoveMember remove;
    remove.node = member.id;
    removed = d_.ask_core(remove, 10'000);
    if (!removed && removed.error().message.find("in-sync set") == std::string::npos) break;
  }
  HF_TRY(removed);
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    c.nodes.erase(to_hex(member.id));
    return c;
  }));
  const bool witness = member.kind == cluster::MemberKind::witness;
  return control::Accepted{
      "", "",
      fmt::format("{} is no member any more; to let it in again: holdfast token{}, then {} join there", r.name,
                  witness ? " --witness" : "", witness ? "holdfast-witness" : "holdfast")};
}

Result<std::string> ApiHandlers::has_addresses(const json& body) const {
  std::vector<std::string> addresses;
  for (const json& a : list_of(body, "channel"))
    if (a.is_string()) addresses.push_back(a.get<std::string>());
  HF_TRY(check_addresses(addresses, {}));
  return std::string("yes");
}

// Ids stay, so nothing of the data or the votes is touched; links and mirrors take up the new addresses as soon as it is recorded.
Result<control::Accepted> ApiHandlers::member_change(const Caller& caller, const control::MemberChangeRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  const cluster::Member* found = nullptr;
  for (const cluster::Member& m : s.value->members) {
    if (m.name == r.name) found = &m;
    if (!r.new_name.empty() && m.name == r.new_name)
      return tl::unexpected(
          Error{ErrorCode::exists, fmt::format("a member is named {} already", r.new_name), "choose another name", 0});
  }
  if (found == nullptr)
    return tl::unexpected(Error{ErrorCode::not_found, fmt::format("there is no member '{}' in this cluster", r.name),
                                "holdfast status shows its nodes and its witness", 0});
  if (r.new_name.empty() == r.channel.empty())
    return fail(ErrorCode::invalid, "say a new name or new addresses, one of them");
  if (!r.new_name.empty()) HF_TRY(check_name(r.new_name, "node"));
  HF_ASSIGN(const auto forwarded, forward("member_change", caller, control::to_json(r)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  cluster::in::AddMember change;
  change.member = *found;
  const std::string id = to_hex(found->id);
  if (!r.new_name.empty()) {
    change.member.name = r.new_name;
    HF_TRY(d_.ask_core(change, 10'000));
    return control::Accepted{"", fmt::format("holdfast member rename {} {}", r.new_name, r.name),
                             fmt::format("{} is called {} from now on", r.name, r.new_name)};
  }
  // A witness answers no questions: it is believed to have the address.
  if (found->id == s.node.node_id) {
    HF_TRY(check_addresses(r.channel, {}));
  } else if (found->kind == cluster::MemberKind::data) {
    const auto has = d_.ask_peer(found->id, "has_addresses", {{"channel", r.channel}}, 5'000);
    if (!has)
      return tl::unexpected(
          with_hint(Error{has.error().code,
                          fmt::format("{} does not take these addresses: {}", r.name, has.error().message),
                          {},
                          0},
                    "while it can be reached at its old addresses, give it both: its old ones and the new; then the "
                    "new ones alone"));
  }
  std::string before;
  if (const auto it = s.config.nodes.find(id); it != s.config.nodes.end())
    for (const std::string& a : it->second.channel) before += " --channel " + a;
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    c.nodes[id].channel = r.channel;
    return c;
  }));
  return control::Accepted{"", fmt::format("holdfast member address {}{}", r.name, before),
                           fmt::format("{} is reached at its new addresses from now on", r.name)};
}

Result<control::RenewReply> ApiHandlers::renew(const Caller& caller, const control::RenewRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_ASSIGN(const NodeId id, node_id_from_hex(caller.peer_node_id));
  const cluster::Member* m = s.value->member(id);
  if (m == nullptr) return fail(ErrorCode::denied, "{} is not a member of this cluster", caller.peer_node_id);
  HF_ASSIGN(const control::TlsMaterial tls, control::load_tls({d_.paths().tls()}, now_s()));
  const auto kind =
      m->kind == cluster::MemberKind::witness ? control::CertificateKind::witness : control::CertificateKind::node;
  HF_ASSIGN(std::string certificate, control::sign_request({tls.ca_key_pem, tls.ca_certificate_pem}, r.csr,
                                                           {s.node.cluster_id, caller.peer_node_id, kind}, now_s()));
  return control::RenewReply{std::move(certificate)};
}

}  // namespace holdfast::daemon
