// SPDX-License-Identifier: Apache-2.0
// What PeerLinks does with what comes in over one connection, and how a connection ends.
#include <sys/epoll.h>

#include "base/log.h"
#include "network/peer_link_hub.h"

namespace holdfast::network {
namespace {
SteadyTime steady_now() { return std::chrono::steady_clock::now(); }
}  // namespace

void PeerLinks::Impl::drive(std::uint64_t id) {
  const auto it = connections.find(id);
  if (it == connections.end()) return;
  LinkConnection& c = *it->second;
  const bool was_secured = c.secured();
  std::vector<Frame> frames;
  Status verdict = c.drive(frames);
  if (verdict && c.secured() && (!was_secured || c.realm.empty())) say_hello(c);
  for (const Frame& frame : frames) {
    Status said;
    on_frame(c, frame, said);
    if (!said) {
      close_connection(id, said.error().message);
      return;
    }
    if (!connections.contains(id)) return;
  }
  if (!verdict) {
    close_connection(id, verdict.error().message);
    return;
  }
  c.flush();
  update_events(c);
}

// The dialling side knows its realm; the accepting side learns it from the certificate, so it speaks once that is known.
void PeerLinks::Impl::say_hello(LinkConnection& c) {
  if (c.realm.empty()) {
    const auto identity = peer_certificate(c.ssl());
    if (!identity) return refuse(c, identity.error().message);
    c.realm = identity->cluster;
  }
  const Realm* r = realm(c.realm);
  if (r == nullptr) return refuse(c, "this machine is not in that cluster");
  c.queue(FrameType::hello, encode_hello(r->info.hello));
}

void PeerLinks::Impl::refuse(LinkConnection& c, const std::string& reason) {
  c.queue(FrameType::refuse, as_bytes(reason));
  c.flush();
}

void PeerLinks::Impl::on_frame(LinkConnection& c, const Frame& frame, Status& verdict) {
  c.last_heard = steady_now();
  if (frame.type == FrameType::refuse) {
    verdict = fail(ErrorCode::denied, "refused by the peer: {}", as_text(frame.payload).substr(0, 300));
    return;
  }
  if (!c.hello) {
    if (frame.type != FrameType::hello) {
      verdict = fail(ErrorCode::corrupt, "spoke before its hello");
      return;
    }
    auto hello = decode_hello(frame.payload);
    verdict = hello ? on_hello(c, *hello) : Status(tl::unexpected(hello.error()));
    if (!verdict) refuse(c, verdict.error().message);
    return;
  }
  switch (frame.type) {
    case FrameType::heartbeat:
      c.queue(FrameType::heartbeat_answer, frame.payload);
      break;
    case FrameType::heartbeat_answer: {
      ByteReader r(frame.payload);
      const auto stamp = static_cast<std::int64_t>(r.u64());
      const std::chrono::duration<double, std::milli> took = steady_now() - SteadyTime(SteadyTime::duration(stamp));
      if (r.ok() && took.count() >= 0 && took.count() < 60000)
        c.rtt_ms = c.rtt_ms ? *c.rtt_ms * 0.8 + took.count() * 0.2 : took.count();
      break;
    }
    case FrameType::message:
      events.message(c.realm, c.hello->id, frame.payload);
      break;
    case FrameType::summary:
      events.summary(c.realm, c.hello->id, std::string(as_text(frame.payload)));
      break;
    case FrameType::request:
      on_request(c, frame, verdict);
      break;
    case FrameType::response:
      on_response(frame, verdict);
      break;
    case FrameType::hello:
    case FrameType::refuse:
      verdict = fail(ErrorCode::corrupt, "said hello twice");
      break;
  }
}

Status PeerLinks::Impl::on_hello(LinkConnection& c, const Hello& hello) {
  Realm* r = realm(c.realm);
  if (r == nullptr) return fail(ErrorCode::denied, "this machine is not in that cluster");
  if (const auto conflict = version_conflict(r->info.hello, hello)) return fail(ErrorCode::refused, "{}", *conflict);
  HF_ASSIGN(const CertificateIdentity certificate, peer_certificate(c.ssl()));
  if (hello.cluster != c.realm || certificate.cluster != c.realm)
    return fail(ErrorCode::denied, "it belongs to cluster {}, this machine to {}", hello.cluster, c.realm);
  if (certificate.id != hello.id || certificate.kind != hello.kind)
    return fail(ErrorCode::denied, "says it is {} {}, its certificate says {} {}", to_string(hello.kind),
                to_hex(hello.id), to_string(certificate.kind), to_hex(certificate.id));
  if (hello.id == r->info.hello.id) return fail(ErrorCode::invalid, "that address is this machine's own");
  if (c.expected.value != 0 && c.expected != hello.id)
    return fail(ErrorCode::denied, "another member answers at {}", c.address);
  auto peer = r->peers.find(hello.id);
  if (peer == r->peers.end()) {
    if (r->only_listed)
      return fail(ErrorCode::denied, "{} ({}) is not a member of this cluster", hello.name, to_hex(hello.id));
    peer = r->peers.emplace(hello.id, Peer{}).first;
    peer->second.info = LinkPeer{hello.id, hello.name, hello.kind, {}};
  }
  c.hello = hello;
  news.forget(without_port(c.remote()));
  const bool first = peer->second.open.empty();
  peer->second.open.insert(c.id);
  for (Path& path : peer->second.paths) {
    if (path.connection != c.id) continue;
    path.backoff = std::chrono::milliseconds(0);
    path.last_error.clear();
  }
  if (!r->summary.empty() && hello.kind == PeerKind::node) c.queue(FrameType::summary, as_bytes(r->summary));
  if (first) {
    log_info("{} {} connected ({})", to_string(hello.kind), hello.name, c.remote());
    publish_paths();
    events.up(c.realm, hello);
  }
  return {};
}

void PeerLinks::Impl::on_request(LinkConnection& c, const Frame& frame, Status& verdict) {
  auto request = decode_request(frame.payload);
  if (!request) {
    verdict = tl::unexpected(request.error());
    return;
  }
  Responder respond = [weak = weak_from_this(), connection = c.id, id = request->id](Result<std::string> result) {
    const auto hub = weak.lock();
    if (!hub) return;
    hub->post([raw = hub.get(), connection, id, result = std::move(result)] {
      const auto it = raw->connections.find(connection);
      if (it == raw->connections.end()) return;
      it->second->queue(FrameType::response, encode_response({id, result}));
      raw->drive(connection);
    });
  };
  events.request(c.realm, c.hello->id, std::move(request->op), std::move(request->body), std::move(respond));
}

void PeerLinks::Impl::on_response(const Frame& frame, Status& verdict) {
  auto response = decode_response(frame.payload);
  if (!response) {
    verdict = tl::unexpected(response.error());
    return;
  }
  const auto it = pending.find(response->id);
  if (it == pending.end()) return;  // came after its time-out
  Responder done = std::move(it->second.done);
  pending.erase(it);
  done(std::move(response->result));
}

// One line per change of reason, not per attempt: a peer that is down for a week must not fill the journal.
void PeerLinks::Impl::note_failure(LinkConnection& c, const std::string& reason) {
  Realm* r = realm(c.realm);
  if (c.dialled && r != nullptr) {
    if (const auto peer = r->peers.find(c.expected); peer != r->peers.end()) {
      for (Path& path : peer->second.paths) {
        if (path.connection != c.id) continue;
        if (!c.hello && path.last_error != reason)
          log_info("no control connection with {} at {}: {}", peer->second.info.name, path.address, reason);
        path.connection = 0;
        path.last_error = reason;
        path.next_dial = steady_now() + std::max(timings.redial_first, path.backoff);
      }
    }
    return;
  }
  if (c.hello || !news.first(without_port(c.remote()), reason)) return;
  // Also at most one a second: strangers can say something else each time.
  if (steady_now() - last_garbage_line < std::chrono::seconds(1)) return;
  last_garbage_line = steady_now();
  log_warning("control connection from {} refused: {}", c.remote(), reason);
}

void PeerLinks::Impl::close_connection(std::uint64_t id, const std::string& reason) {
  const auto it = connections.find(id);
  if (it == connections.end()) return;
  const std::unique_ptr<LinkConnection> c = std::move(it->second);
  connections.erase(it);
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd(), nullptr);
  note_failure(*c, reason);
  std::vector<Responder> lost;
  for (auto p = pending.begin(); p != pending.end();) {
    if (p->second.connection != id) {
      ++p;
      continue;
    }
    lost.push_back(std::move(p->second.done));
    p = pending.erase(p);
  }
  for (Responder& done : lost) done(fail(ErrorCode::unavailable, "connection lost: {}", reason));
  Realm* r = realm(c->realm);
  if (!c->hello || r == nullptr) return;
  const auto peer = r->peers.find(c->hello->id);
  if (peer == r->peers.end()) {
    events.down(c->realm, c->hello->id);
    return;
  }
  if (peer->second.open.erase(id) > 0 && peer->second.open.empty()) {
    log_warning("{} {} disconnected: {}", to_string(c->hello->kind), c->hello->name, reason);
    publish_paths();
    events.down(c->realm, c->hello->id);
  }
}

}  // namespace holdfast::network
