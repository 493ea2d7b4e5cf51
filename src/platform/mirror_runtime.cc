// SPDX-License-Identifier: Apache-2.0
#include "platform/mirror_runtime.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/log.h"
#include "base/news.h"
#include "mirror/channel.h"

namespace holdfast::platform {
namespace {

constexpr int tick_ms = 100;
// A peer that was connected in this epoch is away for a moment, and what it lacks grows meanwhile: it is asked more often, first where it was, and
// without waiting for the second of TCP's own repetitions.
constexpr int least_backoff_ms = 50, most_backoff_ms = 1000, most_backoff_known_ms = 250;
constexpr int connect_timeout_ms = 2000, connect_timeout_known_ms = 900;
constexpr int max_incoming = 32;  // strangers may knock; they don't get to hold more threads than this

Result<std::pair<std::string, std::uint16_t>> split_address(const std::string& text) {
  const auto colon = text.rfind(':');
  std::uint16_t port = data_channel_port;
  std::string host = text;
  const bool has_port =
      colon != std::string::npos && (text.front() == '[' ? colon > text.find(']') : text.find(':') == colon);
  if (has_port) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (error != std::errc() || stop != end) return fail(ErrorCode::invalid, "not an address: {}", text);
    host = text.substr(0, colon);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return std::pair{host, port};
}

}  // namespace

struct MirrorRuntime::Link {
  PeerAddresses peer;  // under the runtime's mutex
  std::shared_ptr<mirror::Sender> sender;
  std::shared_ptr<TlsStream> stream;  // of the present session; under the runtime's mutex
  std::string path;
  std::string good_address;  // dialer's thread: where it was connected last
  Epoch connected_in;        // dialer's thread: the last epoch in which it was
  std::string last_error;    // link's thread: one line per new reason, not per attempt
  std::atomic<bool> stopping{false};
  std::thread dialer, copier, verifier;
};

Result<std::unique_ptr<MirrorRuntime>> MirrorRuntime::start(Options options, mirror::NodeLog& log) {
  std::unique_ptr<MirrorRuntime> made(new MirrorRuntime(std::move(options), log));
  HF_ASSIGN([[maybe_unused]] const auto check, TlsContext::load(made->options_.tls_dir, TlsRole::server));
  HF_ASSIGN(made->listener_, TlsListener::open(made->options_.listen_address, made->options_.listen_port));
  made->applier_ = std::thread([m = made.get()] { m->log_.run_applier(); });
  made->spooler_ = std::thread([m = made.get()] { m->log_.run_spooler(); });
  made->acceptor_ = std::thread([m = made.get()] { m->accept_loop(); });
  made->ticker_ = std::thread([m = made.get()] { m->tick_loop(); });
  made->hot_ = std::thread([m = made.get()] { m->log_.run_hot(); });
  return made;
}

struct MirrorRuntime::Incoming {
  News news;  // refused connections, by the name in the certificate, else by host
  std::mutex mutex;
  std::condition_variable left;
  int count = 0;
};

MirrorRuntime::MirrorRuntime(Options options, mirror::NodeLog& log)
    : options_(std::move(options)), log_(log), incoming_(std::make_shared<Incoming>()) {}

MirrorRuntime::~MirrorRuntime() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  if (!acceptor_.joinable()) return;
  listener_->close();
  log_.stop();
  set_peers({});
  acceptor_.join();
  ticker_.join();
  applier_.join();
  spooler_.join();
  hot_.join();
  std::unique_lock lock(incoming_->mutex);
  while (incoming_->count != 0) {  // one that was in its handshake may have become a session after stop()
    lock.unlock();
    log_.receiver().disconnect();
    lock.lock();
    incoming_->left.wait_for(lock, std::chrono::milliseconds(tick_ms), [&] { return incoming_->count == 0; });
  }
}

void MirrorRuntime::tick_loop() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::milliseconds(tick_ms), [&] { return stopping_.load(); })) {
    lock.unlock();
    log_.tick();
    lock.lock();
  }
}

void MirrorRuntime::accept_loop() {
  while (!stopping_) {
    auto socket = listener_->accept();
    if (!socket) {
      if (stopping_ || socket.error().code == ErrorCode::unavailable) return;
      log_warning("data channel: {}", socket.error().message);
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::milliseconds(tick_ms), [&] { return stopping_.load(); });
      continue;
    }
    {
      const std::lock_guard lock(incoming_->mutex);
      if (incoming_->count >= max_incoming) {
        log_warning("data channel: too many connections at once: {} was turned away", socket->peer_address());
        continue;
      }
      ++incoming_->count;
    }
    std::thread([this, incoming = incoming_, s = std::make_shared<TcpSocket>(std::move(*socket))] {
      serve_incoming(std::move(*s));
      const std::lock_guard lock(incoming->mutex);
      --incoming->count;
      incoming->left.notify_all();
    }).detach();
  }
}

namespace {

// A connection of a peer, which is a session as soon as this side acknowledges: only then it was not refused.
class IncomingStream final : public ports::ByteStream {
 public:
  IncomingStream(std::shared_ptr<TlsStream> stream, std::function<void()> accepted)
      : stream_(std::move(stream)), accepted_(std::move(accepted)) {}
  bool accepted() const { return is_session_.load(); }

  Result<std::size_t> read_some(std::span<std::uint8_t> into) override { return stream_->read_some(into); }
  bool readable_now() override { return stream_->readable_now(); }
  Status write_pieces(std::span<const ByteView> pieces) override {
    if (!is_session_.load() && !pieces.empty() && is_ack(pieces.front()) && !is_session_.exchange(true)) accepted_();
    return stream_->write_pieces(pieces);
  }
  void shutdown() override { stream_->shutdown(); }

 private:
  static bool is_ack(ByteView piece) {
    if (piece.size() < mirror::frame_head_bytes) return false;
    const auto head = mirror::decode_frame_head(piece.first(mirror::frame_head_bytes));
    return head && head->type == mirror::FrameType::ack;
  }
  const std::shared_ptr<TlsStream> stream_;
  const std::function<void()> accepted_;
  std::atomic<bool> is_session_{false};
};

// The same words for every attempt of a peer, whatever port it comes from.
std::string steady_words(std::string text, const std::string& from) {
  const std::size_t at = text.find(from);
  return at == std::string::npos ? text : text.replace(at, from.size(), without_port(from));
}

}  // namespace

// Who is refused tries again each second, perhaps for days: one line for each reason.
void MirrorRuntime::serve_incoming(TcpSocket socket) {
  const std::string from = socket.peer_address(), host = without_port(from);
  auto context = TlsContext::load(options_.tls_dir, TlsRole::server);
  if (!context) {
    if (incoming_->news.first("", context.error().message)) log_error("data channel: {}", context.error().message);
    return;
  }
  TlsOptions tls;
  tls.alpn = {data_channel_alpn};
  auto stream = TlsStream::accept(*context, std::move(socket), tls);
  if (!stream) {
    const std::string why = steady_words(stream.error().message, from);
    if (incoming_->news.first(host, why)) log_warning("data channel: {} was refused: {}", host, why);
    return;
  }
  (*stream)->set_idle_timeout(options_.idle_timeout_ms);
  const std::string who = (*stream)->peer_common_name();
  const auto session = std::make_shared<IncomingStream>(std::move(*stream), [incoming = incoming_, from, host, who] {
    incoming->news.forget(host);
    incoming->news.forget(who);
    log_info("data channel: connection from {}", from);
  });
  const Status ended = log_.receiver().serve(session, who);
  if (ended) return;
  if (session->accepted())
    log_info("data channel: the connection from {} ended: {}", from, ended.error().to_string());
  else if (const std::string why = steady_words(ended.error().to_string(), from); incoming_->news.first(who, why))
    log_info("data channel: {} was refused: {}", host, why);
}

void MirrorRuntime::set_peers(const std::vector<PeerAddresses>& peers) {
  std::vector<std::pair<NodeId, std::string>> names;
  for (const auto& p : peers) names.emplace_back(p.node, p.name);
  log_.set_peers(names);
  const auto senders = log_.senders();
  std::vector<std::unique_ptr<Link>> gone;
  {
    const std::lock_guard lock(mutex_);
    std::map<NodeId, std::unique_ptr<Link>> next;
    for (const auto& sender : senders) {
      std::unique_ptr<Link> link;
      if (const auto it = links_.find(sender->peer()); it != links_.end() && it->second->sender == sender) {
        link = std::move(it->second);
        links_.erase(it);
      }
      const bool fresh = !link;
      if (fresh) link = std::make_unique<Link>();
      for (const auto& p : peers)
        if (p.node == sender->peer()) link->peer = p;
      if (fresh) {
        link->sender = sender;
        link->copier = std::thread([s = sender] { s->resync_loop(); });
        link->verifier = std::thread([s = sender] { s->verifier().loop(); });
        link->dialer = std::thread([this, l = link.get()] { link_loop(*l); });
      }
      next[sender->peer()] = std::move(link);
    }
    for (auto& [id, link] : links_) gone.push_back(std::move(link));
    links_ = std::move(next);
  }
  for (auto& link : gone) stop_link(*link);
}

void MirrorRuntime::stop_link(Link& link) {
  link.sender->stop();
  {
    const std::lock_guard lock(mutex_);
    link.stopping = true;
    if (link.stream) link.stream->shutdown();
    wake_.notify_all();
  }
  link.dialer.join();
  link.copier.join();
  link.verifier.join();
}

Result<std::shared_ptr<TlsStream>> MirrorRuntime::dial(Link& link, Epoch epoch) {
  PeerAddresses peer;
  {
    const std::lock_guard lock(mutex_);
    peer = link.peer;
  }
  HF_ASSIGN(auto context, TlsContext::load(options_.tls_dir, TlsRole::client));
  TlsOptions tls;
  tls.alpn = {data_channel_alpn};
  tls.expected_common_name = to_hex(peer.node);
  Result<std::shared_ptr<TlsStream>> last = fail(ErrorCode::invalid, "peer {} has no address", peer.name);
  if (const auto good = std::find(peer.addresses.begin(), peer.addresses.end(), link.good_address);
      good != peer.addresses.end())
    std::rotate(peer.addresses.begin(), good, good + 1);
  for (const auto& address : peer.addresses) {
    auto where = split_address(address);
    if (!where) {
      last = tl::unexpected(where.error());
      continue;
    }
    const bool known = link.connected_in == epoch && address == link.good_address;
    auto stream = TlsStream::connect(context, where->first, where->second, tls,
                                     known ? connect_timeout_known_ms : connect_timeout_ms);
    if (stream) {
      (*stream)->set_idle_timeout(options_.idle_timeout_ms);
      const std::lock_guard lock(mutex_);
      link.path = address;
      return std::shared_ptr<TlsStream>(std::move(*stream));
    }
    last = tl::unexpected(std::move(stream).error());
  }
  return last;
}

Status MirrorRuntime::run_session(Link& link, const std::shared_ptr<TlsStream>& stream, Epoch epoch) {
  {
    const std::lock_guard lock(mutex_);
    if (link.stopping) return fail(ErrorCode::unavailable, "stopping");
    link.stream = stream;
  }
  Status status = link.sender->open(*stream, epoch);
  if (status) {
    link.last_error.clear();
    link.good_address = link.path;
    link.connected_in = epoch;
    std::thread acks([&] {
      if (Status ended = link.sender->serve_acks(*stream); !ended)
        log_info("peer {}: {}", link.peer.name, ended.error().message);
      link.sender->end_session();
      stream->shutdown();
    });
    status = link.sender->serve(*stream);
    stream->shutdown();
    acks.join();
  }
  link.sender->close();
  const std::lock_guard lock(mutex_);
  link.stream = nullptr;
  link.path.clear();
  return status;
}

void MirrorRuntime::link_loop(Link& link) {
  int backoff_ms = least_backoff_ms;
  std::uint64_t seen = 0;
  while (!link.stopping && !stopping_) {
    const Epoch epoch = log_.dial_epoch();
    if (epoch == Epoch(0)) {
      log_.wait_for_change(1000, seen);
      backoff_ms = least_backoff_ms;
      continue;
    }
    auto stream = dial(link, epoch);
    const bool connected = stream.has_value();
    Status status = connected ? run_session(link, *stream, epoch) : Status(tl::unexpected(std::move(stream).error()));
    if (link.stopping || stopping_) return;
    if (!status && status.error().message != link.last_error) {
      log_warning("peer {}: {}", link.peer.name, status.error().to_string());
      link.last_error = status.error().message;
    }
    if (connected && status.error().code != ErrorCode::refused) backoff_ms = least_backoff_ms;
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(backoff_ms),
                   [&] { return stopping_.load() || link.stopping.load(); });
    backoff_ms = std::min(backoff_ms * 2, link.connected_in == epoch ? most_backoff_known_ms : most_backoff_ms);
  }
}

std::string MirrorRuntime::path(NodeId peer) const {
  const std::lock_guard lock(mutex_);
  const auto it = links_.find(peer);
  return it == links_.end() ? std::string() : it->second->path;
}

}  // namespace holdfast::platform
