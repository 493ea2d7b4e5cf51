// SPDX-License-Identifier: Apache-2.0
// Inside of PeerLinks: the I/O thread's state. Private to peer_link*.cc.
#pragma once

#include <deque>
#include <set>

#include "base/news.h"
#include "network/peer_link.h"

namespace holdfast::network {

struct PeerLinks::Impl : std::enable_shared_from_this<PeerLinks::Impl> {
  struct Path {
    std::string address;
    std::uint64_t connection = 0;  // 0 = none
    SteadyTime next_dial{};
    std::chrono::milliseconds backoff{0};
    std::string last_error;
  };
  struct Peer {
    LinkPeer info;
    std::vector<Path> paths;
    std::set<std::uint64_t> open;  // connections that have said hello, of either direction
  };
  struct Realm {
    LinkRealm info;
    SslContextPtr client, server;
    std::string stamp;  // of the certificate they were made from
    bool only_listed = false;
    std::map<NodeId, Peer> peers;
    std::string summary;
  };
  struct Pending {
    std::uint64_t connection = 0;
    SteadyTime deadline{};
    Responder done;
  };

  void renew_contexts();
  SteadyTime next_look{};  // at the certificates
  Impl(LinkEvents e, LinkTimings t);
  ~Impl();

  static int pick_realm(SSL* ssl, int* alert, void* hub);  // OpenSSL's server name callback

  // Any thread: runs `task` on the I/O thread.
  void post(std::function<void()> task);
  void run();
  void close_all();

  // I/O thread only, from here on.
  Status install_realm(const LinkRealm& realm);
  void replace_peers(const std::string& cluster, std::vector<LinkPeer> peers);
  void accept_ready();
  void add_connection(std::unique_ptr<LinkConnection> connection);
  void drive(std::uint64_t id);
  void on_frame(LinkConnection& c, const Frame& frame, Status& verdict);
  Status on_hello(LinkConnection& c, const Hello& hello);
  void on_request(LinkConnection& c, const Frame& frame, Status& verdict);
  void on_response(const Frame& frame, Status& verdict);
  void say_hello(LinkConnection& c);
  void refuse(LinkConnection& c, const std::string& reason);
  void close_connection(std::uint64_t id, const std::string& reason);
  void note_failure(LinkConnection& c, const std::string& reason);
  void update_events(LinkConnection& c);
  void tick(SteadyTime now);
  void tick_connections(SteadyTime now);
  void tick_dials(SteadyTime now);
  void publish_paths();
  LinkConnection* best(const std::string& cluster, NodeId peer);
  Realm* realm(const std::string& cluster);

  LinkEvents events;
  const LinkTimings timings;
  int epoll_fd = -1, wake_fd = -1, listen_fd = -1;
  std::atomic<bool> stopping{false};
  std::thread thread;

  std::mutex tasks_mutex;
  std::deque<std::function<void()>> tasks;

  std::map<std::string, Realm> realms;
  std::map<std::uint64_t, std::unique_ptr<LinkConnection>> connections;
  std::map<std::uint64_t, Pending> pending;
  std::uint64_t next_id = 16;  // below: the wake-up and the listener
  std::uint64_t next_request = 1;
  SteadyTime last_garbage_line{};
  News news;  // refused connections, by host

  mutable std::mutex published_mutex;
  std::map<std::pair<std::string, std::uint64_t>, std::vector<PathState>> published_paths;
  std::set<std::pair<std::string, std::uint64_t>> published_up;
};

}  // namespace holdfast::network
