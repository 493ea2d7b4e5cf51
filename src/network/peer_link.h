// SPDX-License-Identifier: Apache-2.0
// Control links between nodes, and between nodes and witnesses: TLS 1.3 with mutual certificates, ALPN holdfast-control/1.
// They carry messages of the cluster codec (best effort, newest path), requests with one answer, heartbeats with a round-trip
// time per path, and each node's summary of itself.
//
// One I/O thread (epoll) owns every connection. Public calls: any thread, never block. Callbacks run on the I/O thread and
// must not block. A connection that sends garbage, shows the wrong certificate or another protocol version is closed with one
// log line; nothing here ends the process.
//
// Both sides dial every address of each other; a connection serves both directions, so a path that only one side can open
// is enough. A witness dials nobody and answers over what came in.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "network/peer_link_connection.h"

namespace holdfast::network {

// A realm is one cluster that this process is a member of. A node has one, a witness many.
struct LinkRealm {
  std::string cluster;  // cluster id; also the TLS server name, by which a witness picks the certificate
  std::string tls_dir;  // ca.crt, node.crt, node.key
  Hello hello;          // what we say
};

struct LinkPeer {
  NodeId id;
  std::string name;
  PeerKind kind = PeerKind::node;
  std::vector<std::string> addresses;  // "10.0.0.2:9727": each is a path
};

struct PathState {
  std::string address;
  bool connected = false;
  std::optional<double> rtt_ms;
  std::string last_error;  // why it is not connected; may be empty
};

// Exactly one call answers; any thread, also after the connection has gone (then nothing happens).
using Responder = std::function<void(Result<std::string>)>;

struct LinkEvents {
  std::function<void(const std::string& cluster, const Hello& peer)> up;  // the first connection with this peer stands
  std::function<void(const std::string& cluster, NodeId peer)> down;      // the last one has gone
  std::function<void(const std::string& cluster, NodeId from, ByteView)> message;
  std::function<void(const std::string& cluster, NodeId from, std::string op, std::string body, Responder)> request;
  std::function<void(const std::string& cluster, NodeId from, std::string summary)> summary;
};

struct LinkTimings {
  std::chrono::milliseconds heartbeat{250};
  std::chrono::milliseconds silence{1500};  // a connection that is silent for so long is closed
  std::chrono::milliseconds connect{2000};  // for connect, handshake and hello together
  std::chrono::milliseconds redial_first{200};
  std::chrono::milliseconds redial_most{1500};
  std::chrono::milliseconds certificates{60'000};  // how often it is looked whether one was replaced
};

class PeerLinks {
 public:
  PeerLinks(LinkEvents events, LinkTimings timings = {});
  ~PeerLinks();  // closes everything; pending requests are answered `unavailable`
  PeerLinks(const PeerLinks&) = delete;
  PeerLinks& operator=(const PeerLinks&) = delete;

  // Adds a realm, or takes new certificates and a new hello; connections that stand go on.
  Status add_realm(const LinkRealm& realm);
  void remove_realm(const std::string& cluster);
  // Whom to dial and whom to accept in this realm; connections of others are closed. Not called for a realm = every
  // certificate of the cluster is accepted (a witness).
  void set_peers(const std::string& cluster, std::vector<LinkPeer> peers);

  // Own listener (a witness). "0.0.0.0:9729" or "[::]:9729". The certificate follows the TLS server name.
  Status listen(const std::string& address);
  // A connection accepted elsewhere whose handshake is done and whose ALPN is control_alpn. Takes both over.
  void adopt(int fd, SslPtr ssl);

  void send(const std::string& cluster, NodeId to, Bytes message);
  void set_summary(const std::string& cluster, std::string summary);
  void request(const std::string& cluster, NodeId to, std::string op, std::string body,
               std::chrono::milliseconds timeout, Responder done);

  std::vector<PathState> paths(const std::string& cluster, NodeId peer) const;
  bool connected(const std::string& cluster, NodeId peer) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace holdfast::network
