// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link_hub.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <csignal>

#include "base/log.h"

namespace holdfast::network {
namespace {

constexpr std::uint64_t wake_token = 0, listen_token = 1;
constexpr std::size_t max_connections = 20000;

std::string certificate_stamp(const std::string& dir) {
  struct stat s {};
  if (::stat((dir + "/node.crt").c_str(), &s) != 0) return {};
  return fmt::format("{} {} {}.{:09}", s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
}

SteadyTime steady_now() { return std::chrono::steady_clock::now(); }

}  // namespace

PeerLinks::Impl::Impl(LinkEvents e, LinkTimings t) : events(std::move(e)), timings(t) {
  std::signal(SIGPIPE, SIG_IGN);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(epoll_fd >= 0 && wake_fd >= 0, "epoll and eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = wake_token;
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event);
}

// The witness's certificate follows the cluster that the client names (SNI).
int PeerLinks::Impl::pick_realm(SSL* ssl, int*, void* argument) {
  auto* hub = static_cast<Impl*>(argument);
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  Realm* r = name != nullptr ? hub->realm(name) : nullptr;
  if (r == nullptr) return SSL_TLSEXT_ERR_ALERT_FATAL;
  SSL_set_SSL_CTX(ssl, r->server.get());
  // SSL_set_SSL_CTX takes the certificate over, but neither the trust store nor the verify mode.
  SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_ctrl(ssl, SSL_CTRL_SET_VERIFY_CERT_STORE, 1, SSL_CTX_get_cert_store(r->server.get()));
  return SSL_TLSEXT_ERR_OK;
}

PeerLinks::Impl::~Impl() {
  connections.clear();
  for (const int fd : {listen_fd, wake_fd, epoll_fd})
    if (fd >= 0) close(fd);
}

void PeerLinks::Impl::post(std::function<void()> task) {
  {
    const std::lock_guard lock(tasks_mutex);
    tasks.push_back(std::move(task));
  }
  const std::uint64_t one = 1;
  (void)!write(wake_fd, &one, sizeof one);
}

void PeerLinks::Impl::run() {
  SteadyTime next_tick = steady_now();
  while (!stopping) {
    epoll_event ready[64];
    const auto wait = std::chrono::duration_cast<std::chrono::milliseconds>(next_tick - steady_now()).count() + 1;
    const int n = epoll_wait(epoll_fd, ready, 64, static_cast<int>(std::max<long>(0, wait)));
    for (int i = 0; i < n; ++i) {
      if (ready[i].data.u64 == wake_token) {
        std::uint64_t count = 0;
        (void)!read(wake_fd, &count, sizeof count);
      } else if (ready[i].data.u64 == listen_token) {
        accept_ready();
      } else {
        drive(ready[i].data.u64);
      }
    }
    std::deque<std::function<void()>> now_tasks;
    {
      const std::lock_guard lock(tasks_mutex);
      now_tasks.swap(tasks);
    }
    for (auto& task : now_tasks) task();
    if (steady_now() >= next_tick) {
      tick(steady_now());
      next_tick = steady_now() + std::chrono::milliseconds(50);
    }
  }
  close_all();
}

void PeerLinks::Impl::close_all() {
  for (auto& [id, c] : connections) c->flush();
  connections.clear();
  for (auto& [id, p] : pending) p.done(fail(ErrorCode::unavailable, "stopping"));
  pending.clear();
  std::deque<std::function<void()>> rest;
  {
    const std::lock_guard lock(tasks_mutex);
    rest.swap(tasks);
  }
  for (auto& task : rest) task();  // requests among them are answered "no connection"
}

PeerLinks::Impl::Realm* PeerLinks::Impl::realm(const std::string& cluster) {
  const auto it = realms.find(cluster);
  return it == realms.end() ? nullptr : &it->second;
}

// A renewed certificate is used from the next connection on; the present ones go on with the one they began with.
void PeerLinks::Impl::renew_contexts() {
  for (auto& [cluster, r] : realms) {
    const std::string stamp = certificate_stamp(r.info.tls_dir);
    if (stamp.empty() || stamp == r.stamp) continue;
    auto client = control_context(r.info.tls_dir, false);
    auto server = control_context(r.info.tls_dir, true);
    if (!client || !server) continue;  // in the middle of being replaced: looked at again
    r.client = std::move(*client);
    r.server = std::move(*server);
    r.stamp = stamp;
  }
}

Status PeerLinks::Impl::install_realm(const LinkRealm& info) {
  const std::string stamp = certificate_stamp(info.tls_dir);  // before: what is replaced meanwhile is seen later
  HF_ASSIGN(SslContextPtr client, control_context(info.tls_dir, false));
  HF_ASSIGN(SslContextPtr server, control_context(info.tls_dir, true));
  Realm& r = realms[info.cluster];
  r.info = info;
  r.client = std::move(client);
  r.server = std::move(server);
  r.stamp = stamp;
  return {};
}

void PeerLinks::Impl::replace_peers(const std::string& cluster, std::vector<LinkPeer> peers) {
  Realm* r = realm(cluster);
  if (r == nullptr) return;
  r->only_listed = true;
  std::map<NodeId, Peer> next;
  for (LinkPeer& info : peers) {
    if (info.id == r->info.hello.id) continue;
    Peer peer;
    if (const auto old = r->peers.find(info.id); old != r->peers.end()) peer.open = old->second.open;
    for (const std::string& address : info.addresses) {
      Path path;
      path.address = address;
      if (const auto old = r->peers.find(info.id); old != r->peers.end())
        for (const Path& p : old->second.paths)
          if (p.address == address) path = p;
      peer.paths.push_back(path);
    }
    peer.info = std::move(info);
    next[peer.info.id] = std::move(peer);
  }
  r->peers = std::move(next);
  std::vector<std::uint64_t> gone;
  for (const auto& [id, c] : connections) {
    if (c->realm != cluster) continue;
    const NodeId who = c->hello ? c->hello->id : c->expected;
    if (who.value != 0 && !r->peers.contains(who)) gone.push_back(id);
  }
  for (const std::uint64_t id : gone) close_connection(id, "no longer a member");
  publish_paths();
}

void PeerLinks::Impl::accept_ready() {
  for (;;) {
    const int fd = accept4(listen_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (connections.size() >= max_connections || realms.empty()) {
      close(fd);
      continue;
    }
    // Any realm's context starts the handshake; pick_realm then changes to the right one or ends it.
    SSL_CTX* context = realms.begin()->second.server.get();
    SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, reinterpret_cast<void (*)()>(pick_realm));
    SSL_CTX_set_tlsext_servername_arg(context, this);
    SslPtr ssl(SSL_new(context));
    SSL_set_fd(ssl.get(), fd);
    SSL_set_accept_state(ssl.get());
    add_connection(LinkConnection::accepted(fd, std::move(ssl), false));
  }
}

void PeerLinks::Impl::add_connection(std::unique_ptr<LinkConnection> connection) {
  LinkConnection& c = *connection;
  c.id = next_id++;
  c.opened = c.last_heard = steady_now();
  c.next_heartbeat = c.opened;
  epoll_event event{};
  event.events = c.wanted_events();
  event.data.u64 = c.id;
  connections[c.id] = std::move(connection);
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c.fd(), &event);
  drive(c.id);
}

void PeerLinks::Impl::update_events(LinkConnection& c) {
  epoll_event event{};
  event.events = c.wanted_events();
  event.data.u64 = c.id;
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c.fd(), &event);
}

void PeerLinks::Impl::tick(SteadyTime now) {
  tick_connections(now);
  if (now >= next_look) {
    next_look = now + timings.certificates;
    renew_contexts();
  }
  tick_dials(now);
  std::vector<Responder> late;
  for (auto it = pending.begin(); it != pending.end();) {
    if (now < it->second.deadline) {
      ++it;
      continue;
    }
    late.push_back(std::move(it->second.done));
    it = pending.erase(it);
  }
  for (Responder& done : late) done(fail(ErrorCode::timeout, "no answer in time"));
  publish_paths();
}

void PeerLinks::Impl::tick_connections(SteadyTime now) {
  std::vector<std::pair<std::uint64_t, std::string>> gone;
  for (auto& [id, c] : connections) {
    if (!c->hello) {
      if (now - c->opened > timings.connect)
        gone.emplace_back(id, c->secured() ? "said no hello" : "no connection in time");
      continue;
    }
    if (now - c->last_heard > timings.silence) {
      gone.emplace_back(id, "silent");
      continue;
    }
    if (now >= c->next_heartbeat) {
      Bytes stamp;
      ByteWriter(stamp).u64(static_cast<std::uint64_t>(now.time_since_epoch().count()));
      c->queue(FrameType::heartbeat, stamp);
      c->next_heartbeat = now + timings.heartbeat;
      c->flush();
      update_events(*c);
    }
  }
  for (const auto& [id, reason] : gone) close_connection(id, reason);
}

void PeerLinks::Impl::tick_dials(SteadyTime now) {
  for (auto& [cluster, r] : realms) {
    for (auto& [id, peer] : r.peers) {
      for (Path& path : peer.paths) {
        if (path.connection != 0 || now < path.next_dial) continue;
        path.backoff = std::min(timings.redial_most, std::max(timings.redial_first, path.backoff * 2));
        path.next_dial = now + path.backoff;
        auto c = LinkConnection::dial(path.address, r.client.get(), cluster);
        if (!c) {
          path.last_error = c.error().message;
          continue;
        }
        (*c)->realm = cluster;
        (*c)->expected = id;
        path.connection = next_id;
        add_connection(std::move(*c));
      }
    }
  }
}

void PeerLinks::Impl::publish_paths() {
  std::map<std::pair<std::string, std::uint64_t>, std::vector<PathState>> all;
  std::set<std::pair<std::string, std::uint64_t>> up;
  for (const auto& [cluster, r] : realms) {
    for (const auto& [id, peer] : r.peers) {
      auto& list = all[{cluster, id.value}];
      if (!peer.open.empty()) up.insert({cluster, id.value});
      for (const Path& p : peer.paths) {
        PathState state{p.address, false, std::nullopt, p.last_error};
        if (const auto it = connections.find(p.connection); it != connections.end() && it->second->hello) {
          state.connected = true;
          state.rtt_ms = it->second->rtt_ms;
          state.last_error.clear();
        }
        list.push_back(std::move(state));
      }
    }
  }
  const std::lock_guard lock(published_mutex);
  published_paths.swap(all);
  published_up.swap(up);
}

LinkConnection* PeerLinks::Impl::best(const std::string& cluster, NodeId id) {
  Realm* r = realm(cluster);
  if (r == nullptr) return nullptr;
  const auto peer = r->peers.find(id);
  if (peer == r->peers.end()) return nullptr;
  LinkConnection* found = nullptr;
  for (const std::uint64_t open : peer->second.open) {
    const auto it = connections.find(open);
    if (it == connections.end()) continue;
    if (found == nullptr || it->second->last_heard > found->last_heard) found = it->second.get();
  }
  return found;
}

}  // namespace holdfast::network
