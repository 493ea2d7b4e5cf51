// SPDX-License-Identifier: Apache-2.0
// The threads, connections and timer that make a mirror::NodeLog run: the applier, the spooler, the listener of the data channel, and for each peer one
// thread that dials it while this node is active, one that reads its acknowledgements, and one that copies.
// Threads: any. Destroying it stops everything and waits.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mirror/node_log.h"
#include "platform/tls_stream.h"

namespace holdfast::platform {

constexpr const char* data_channel_alpn = "holdfast-data/1";
constexpr std::uint16_t data_channel_port = 9728;

struct PeerAddresses {
  NodeId node;
  std::string name;
  std::vector<std::string> addresses;  // "10.0.0.2:9728" or "[fd00::2]:9728", tried in order
};

class MirrorRuntime {
 public:
  struct Options {
    std::string listen_address = "::";
    std::uint16_t listen_port = data_channel_port;  // 0: any, see port()
    std::string tls_dir;                            // read anew for each connection
    int idle_timeout_ms = 5000;                     // both sides send something every half second
  };
  // `log` outlives the runtime.
  static Result<std::unique_ptr<MirrorRuntime>> start(Options options, mirror::NodeLog& log);
  ~MirrorRuntime();

  // Live; also tells the NodeLog its peers.
  void set_peers(const std::vector<PeerAddresses>& peers);
  std::uint16_t port() const { return listener_->port(); }
  // The address a peer is connected by; empty: it is not.
  std::string path(NodeId peer) const;

 private:
  struct Link;
  MirrorRuntime(Options options, mirror::NodeLog& log);
  void accept_loop();
  void serve_incoming(TcpSocket socket);
  void link_loop(Link& link);
  Result<std::shared_ptr<TlsStream>> dial(Link& link, Epoch epoch);
  Status run_session(Link& link, const std::shared_ptr<TlsStream>& stream, Epoch epoch);
  void stop_link(Link& link);
  void tick_loop();

  Options options_;
  mirror::NodeLog& log_;
  std::unique_ptr<TlsListener> listener_;
  std::atomic<bool> stopping_{false};
  struct Incoming;  // outlives the threads that serve connections
  std::shared_ptr<Incoming> incoming_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<NodeId, std::unique_ptr<Link>> links_;
  std::thread applier_, acceptor_, ticker_, spooler_, hot_;
};

}  // namespace holdfast::platform
