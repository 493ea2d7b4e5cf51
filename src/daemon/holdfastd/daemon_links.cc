// SPDX-License-Identifier: Apache-2.0
// The ways into this node from the network: control links with the other members, and the API over TLS.
#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/handlers.h"

namespace holdfast::daemon {
namespace {

// HTTP over the listener's TLS connection.
class TlsHttpStream final : public control::TimedStream {
 public:
  explicit TlsHttpStream(network::BlockingTls& tls) : tls_(tls) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms) override {
    return tls_.read_some(into, timeout_ms);
  }
  Status write_all(ByteView bytes, int timeout_ms) override { return tls_.write_all(bytes, timeout_ms); }

 private:
  network::BlockingTls& tls_;
};

}  // namespace

Status Daemon::open_links() {
  network::LinkEvents events;
  events.up = [this](const std::string&, const network::Hello& peer) {
    loop_.post("a peer connected", [this, id = peer.id] {
      if (engine_started_) engine_->feed(cluster::in::Tick{});
      (void)id;
    });
  };
  events.down = [this](const std::string&, NodeId id) {
    loop_.post("a peer disconnected", [this, id] { summaries_.erase(id); });
  };
  events.message = [this](const std::string&, NodeId from, ByteView message) {
    loop_.post("a message of a member", [this, from, copy = Bytes(message.begin(), message.end())] {
      if (engine_started_) engine_->received(from, copy);
    });
  };
  events.summary = [this](const std::string&, NodeId from, std::string summary) {
    auto json = nlohmann::json::parse(summary, nullptr, false);
    if (!json.is_object()) return;
    loop_.post("a peer's summary", [this, from, json = std::move(json)]() mutable {
      summaries_[from] = PeerSummary{std::move(json), steady_ms()};
    });
  };
  events.request = [this](const std::string&, NodeId from, std::string op, std::string body,
                          network::Responder respond) {
    link_request(from, std::move(op), std::move(body), std::move(respond));
  };
  links_ = std::make_unique<network::PeerLinks>(std::move(events));

  network::LinkRealm realm;
  realm.cluster = node_.cluster_id;
  realm.tls_dir = paths_.tls();
  realm.hello.cluster = node_.cluster_id;
  realm.hello.id = node_.node_id;
  realm.hello.name = node_.node_name;
  realm.hello.software = std::string("holdfast ") + HF_VERSION;
  HF_TRY(links_->add_realm(realm));
  links_->set_peers(node_.cluster_id, node_.peers);

  network::DoorEvents door;
  door.control = [this](int fd, network::SslPtr ssl) { links_->adopt(fd, std::move(ssl)); };
  door.http = [this](network::BlockingTls& tls, std::optional<network::CertificateIdentity> peer,
                     const std::string& address) { serve_http(tls, peer, address); };
  auto opened = network::TlsDoor::open("[::]:9727", paths_.tls(), door);
  if (!opened) opened = network::TlsDoor::open("0.0.0.0:9727", paths_.tls(), door);  // a kernel without IPv6
  if (!opened) return tl::unexpected(opened.error());
  door_ = std::move(*opened);
  return {};
}

void Daemon::link_request(NodeId from, std::string op, std::string body, network::Responder respond) {
  handlers_->serve_peer(from, std::move(op), std::move(body), std::move(respond));
}

void Daemon::serve_http(network::BlockingTls& tls, const std::optional<network::CertificateIdentity>& peer,
                        const std::string& address) {
  control::Caller caller;
  caller.address = address;
  caller.origin = control::Origin::join;
  if (peer) {
    if (peer->cluster != node_.cluster_id) return;
    caller.origin = peer->kind == network::PeerKind::node ? control::Origin::peer : control::Origin::witness;
    caller.peer_node_id = to_hex(peer->id);
  }
  TlsHttpStream stream(tls);
  api_->serve(stream, caller);
}

}  // namespace holdfast::daemon
