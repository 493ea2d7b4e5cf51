// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sys/epoll.h>

#include <cerrno>
#include <future>

#include "base/log.h"
#include "network/peer_link_hub.h"

namespace holdfast::network {

PeerLinks::PeerLinks(LinkEvents events, LinkTimings timings)
    : impl_(std::make_shared<Impl>(std::move(events), timings)) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

PeerLinks::~PeerLinks() {
  impl_->stopping = true;
  impl_->post([] {});
  impl_->thread.join();
}

Status PeerLinks::add_realm(const LinkRealm& realm) {
  auto answer = std::make_shared<std::promise<Status>>();
  auto future = answer->get_future();
  impl_->post([impl = impl_.get(), realm, answer] { answer->set_value(impl->install_realm(realm)); });
  return future.get();  // files of a few KiB; the I/O thread is never blocked for long
}

void PeerLinks::remove_realm(const std::string& cluster) {
  impl_->post([impl = impl_.get(), cluster] {
    std::vector<std::uint64_t> gone;
    for (const auto& [id, c] : impl->connections)
      if (c->realm == cluster) gone.push_back(id);
    for (const std::uint64_t id : gone) impl->close_connection(id, "this member was removed");
    impl->realms.erase(cluster);
    impl->publish_paths();
  });
}

void PeerLinks::set_peers(const std::string& cluster, std::vector<LinkPeer> peers) {
  impl_->post([impl = impl_.get(), cluster, peers = std::move(peers)]() mutable {
    impl->replace_peers(cluster, std::move(peers));
  });
}

Status PeerLinks::listen(const std::string& address) {
  HF_ASSIGN(const SocketAddress at, parse_socket_address(address));
  const auto* raw = reinterpret_cast<const sockaddr*>(at.bytes.data());
  const int fd = socket(raw->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno(errno, "socket");
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (raw->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(fd, raw, static_cast<socklen_t>(at.bytes.size())) != 0 || ::listen(fd, 128) != 0) {
    const int saved = errno;
    close(fd);
    return fail_errno(saved, "cannot listen on {}", address);
  }
  impl_->post([impl = impl_.get(), fd] {
    impl->listen_fd = fd;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = 1;
    epoll_ctl(impl->epoll_fd, EPOLL_CTL_ADD, fd, &event);
  });
  return {};
}

void PeerLinks::adopt(int fd, SslPtr ssl) {
  auto shared = std::make_shared<SslPtr>(std::move(ssl));
  impl_->post([impl = impl_.get(), fd, shared] {
    impl->add_connection(LinkConnection::accepted(fd, std::move(*shared), true));
  });
}

void PeerLinks::send(const std::string& cluster, NodeId to, Bytes message) {
  impl_->post([impl = impl_.get(), cluster, to, message = std::move(message)] {
    LinkConnection* c = impl->best(cluster, to);
    if (c == nullptr) return;
    c->queue(FrameType::message, message);
    impl->drive(c->id);
  });
}

void PeerLinks::set_summary(const std::string& cluster, std::string summary) {
  impl_->post([impl = impl_.get(), cluster, summary = std::move(summary)] {
    Impl::Realm* realm = impl->realm(cluster);
    if (realm == nullptr) return;
    realm->summary = summary;
    for (auto& [id, peer] : realm->peers) {
      if (peer.info.kind == PeerKind::witness) continue;
      LinkConnection* c = impl->best(cluster, id);
      if (c == nullptr || c->queued_bytes() > (1u << 20)) continue;
      c->queue(FrameType::summary, as_bytes(summary));
      impl->drive(c->id);
    }
  });
}

void PeerLinks::request(const std::string& cluster, NodeId to, std::string op, std::string body,
                        std::chrono::milliseconds timeout, Responder done) {
  impl_->post(
      [impl = impl_.get(), cluster, to, op = std::move(op), body = std::move(body), timeout, done = std::move(done)] {
        LinkConnection* c = impl->best(cluster, to);
        if (c == nullptr) {
          done(fail(ErrorCode::unavailable, "no connection with {}", to_hex(to)));
          return;
        }
        const std::uint64_t id = impl->next_request++;
        impl->pending[id] = Impl::Pending{c->id, std::chrono::steady_clock::now() + timeout, done};
        c->queue(FrameType::request, encode_request({id, op, body}));
        impl->drive(c->id);
      });
}

std::vector<PathState> PeerLinks::paths(const std::string& cluster, NodeId peer) const {
  const std::lock_guard lock(impl_->published_mutex);
  const auto it = impl_->published_paths.find({cluster, peer.value});
  return it == impl_->published_paths.end() ? std::vector<PathState>{} : it->second;
}

bool PeerLinks::connected(const std::string& cluster, NodeId peer) const {
  const std::lock_guard lock(impl_->published_mutex);
  return impl_->published_up.contains({cluster, peer.value});
}

}  // namespace holdfast::network
