// SPDX-License-Identifier: Apache-2.0
// OpenSSL's SSL object is not thread-safe, and a blocking SSL_read would hold a lock for ever. So the SSL works on two memory BIOs under
// ssl_mutex, which is never held over a system call; bytes move between the BIOs and the socket outside of it:
//   reader: recv -> [lock: BIO_write(in), SSL_read]          writer (one at a time, send_mutex): [lock: SSL_write, BIO_read(out)] -> send
// What a read makes OpenSSL want to say (a key update's answer) stays in the out BIO and leaves, in order, with the next write: a reader that
// would send could wait for a peer that waits for it.
#include "platform/tls_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"
#include "platform/tls_failure.h"

namespace holdfast::platform {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::size_t encrypt_chunk_bytes = 128 * 1024;  // how long a writer keeps a reader from the SSL object
constexpr const char* broke = "the connection broke";
constexpr std::size_t receive_bytes = 256 * 1024;
constexpr std::uint64_t key_update_bytes = 64ULL << 30;  // well below AES-GCM's limit of 2^24.5 records a key

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now().time_since_epoch()).count();
}

void set_socket_options(int fd, int user_timeout_ms) {
  const int on = 1, idle_s = 5, interval_s = 2, probes = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

std::string alpn_wire(const std::vector<std::string>& protocols) {
  std::string wire;
  for (const auto& p : protocols) {
    wire.push_back(static_cast<char>(p.size()));
    wire += p;
  }
  return wire;
}

// Each stream has its own list (the context is shared): it hangs at the SSL object. No list: the extension is ignored.
int choose_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
                unsigned in_length, void*) {
  const auto* list = static_cast<const std::string*>(SSL_get_app_data(ssl));
  if (!list || list->empty()) return SSL_TLSEXT_ERR_NOACK;
  const std::string& wire = *list;
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_length, reinterpret_cast<const unsigned char*>(wire.data()),
                            static_cast<unsigned>(wire.size()), in, in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

void collect_names(X509* certificate, std::string& common_name, std::vector<std::string>& names) {
  char name[256];
  const int n = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
  if (n > 0) common_name.assign(name, static_cast<std::size_t>(n));
  auto* list = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; list && i < sk_GENERAL_NAME_num(list); ++i) {
    const GENERAL_NAME* entry = sk_GENERAL_NAME_value(list, i);
    const ASN1_IA5STRING* text = entry->type == GEN_DNS   ? entry->d.dNSName
                                 : entry->type == GEN_URI ? entry->d.uniformResourceIdentifier
                                                          : nullptr;
    if (text)
      names.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                         static_cast<std::size_t>(ASN1_STRING_length(text)));
  }
  GENERAL_NAMES_free(list);
}

}  // namespace

void install_alpn_chooser(void* context) {
  SSL_CTX_set_alpn_select_cb(static_cast<SSL_CTX*>(context), choose_alpn, nullptr);
}

struct TlsStream::State {
  std::shared_ptr<TlsContext> context;
  TcpSocket socket;
  SSL* ssl = nullptr;
  BIO* in = nullptr;   // owned by ssl
  BIO* out = nullptr;  // owned by ssl
  std::string alpn;
  std::mutex ssl_mutex;
  std::mutex writer_mutex;            // one write_pieces at a time; taken first
  std::mutex send_mutex;              // serializes what leaves; taken before ssl_mutex
  Bytes receive_buffer, send_buffer;  // reader's; under send_mutex
  std::uint64_t sent_with_key = 0;    // under ssl_mutex
  bool broken = false;                // under ssl_mutex: a fatal error; SSL must not be used any more
  std::atomic<bool> closed{false};
  std::atomic<std::int64_t> deadline_ms{-1};
  std::atomic<int> idle_timeout_ms{-1};

  ~State() { SSL_free(ssl); }

  // Waits for the socket; an error when the time is over or the stream was shut down.
  Status wait(short events) {
    const std::int64_t deadline = deadline_ms.load(), idle = idle_timeout_ms.load();
    const std::int64_t until =
        deadline < 0 ? (idle < 0 ? -1 : now_ms() + idle) : (idle < 0 ? deadline : std::min(deadline, now_ms() + idle));
    for (;;) {
      if (closed) return fail(ErrorCode::unavailable, "the connection was closed");
      const std::int64_t left = until < 0 ? -1 : until - now_ms();
      if (until >= 0 && left <= 0) return fail(ErrorCode::timeout, "no answer from {} in time", socket.peer_address());
      pollfd waiting{socket.fd(), events, 0};
      const int ready = ::poll(&waiting, 1, static_cast<int>(std::min<std::int64_t>(left, 1 << 30)));
      if (ready > 0) return {};
      if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the connection");
    }
  }
};

TlsStream::TlsStream(std::shared_ptr<TlsContext> context, TcpSocket socket) : state_(std::make_unique<State>()) {
  state_->context = std::move(context);
  state_->socket = std::move(socket);
  state_->receive_buffer.resize(receive_bytes);
  state_->ssl = SSL_new(static_cast<SSL_CTX*>(state_->context->native()));
  state_->in = BIO_new(BIO_s_mem());
  state_->out = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(state_->in, -1);
  BIO_set_mem_eof_return(state_->out, -1);
  SSL_set_bio(state_->ssl, state_->in, state_->out);
  SSL_set_app_data(state_->ssl, &state_->alpn);
}

TlsStream::~TlsStream() {
  if (!state_->closed) {  // an orderly end when nobody tore it down: the peer reads 0, not an error
    {
      const std::lock_guard lock(state_->ssl_mutex);
      if (!state_->broken) SSL_shutdown(state_->ssl);
    }
    ERR_clear_error();
    (void)flush(false);
  }
}

// Sends what OpenSSL wants to say. wait = false gives up when the socket takes no more (used where the stream ends anyway).
Status TlsStream::flush(bool wait) {
  const std::lock_guard sending(state_->send_mutex);
  for (;;) {
    auto& buffer = state_->send_buffer;
    {
      const std::lock_guard lock(state_->ssl_mutex);
      const std::size_t pending = BIO_ctrl_pending(state_->out);
      if (pending == 0) return {};
      buffer.resize(pending);
      BIO_read(state_->out, buffer.data(), static_cast<int>(pending));
    }
    for (std::size_t done = 0; done < buffer.size();) {
      const ssize_t n = ::send(state_->socket.fd(), buffer.data() + done, buffer.size() - done, MSG_NOSIGNAL);
      if (n > 0)
        done += static_cast<std::size_t>(n);
      else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (!wait) return fail(ErrorCode::unavailable, "the connection takes no more");
        HF_TRY(state_->wait(POLLOUT));
      } else if (n < 0 && errno != EINTR) {
        return tl::unexpected(
            Error{ErrorCode::unavailable, errno_error(errno, "connection to " + peer_address_).message, {}, errno});
      }
    }
  }
}

// Takes what the socket has, waiting if it has nothing, and gives it to OpenSSL.
Status TlsStream::pump_in() {
  auto& buffer = state_->receive_buffer;
  for (;;) {
    const ssize_t n = ::recv(state_->socket.fd(), buffer.data(), buffer.size(), 0);
    if (n > 0) {
      const std::lock_guard lock(state_->ssl_mutex);
      BIO_write(state_->in, buffer.data(), static_cast<int>(n));
      return {};
    }
    if (n == 0) return fail(ErrorCode::unavailable, "{} closed the connection", peer_address_);
    if (errno == EAGAIN || errno == EWOULDBLOCK)
      HF_TRY(state_->wait(POLLIN));
    else if (errno != EINTR)
      return tl::unexpected(
          Error{ErrorCode::unavailable, errno_error(errno, "connection to " + peer_address_).message, {}, errno});
  }
}

Status TlsStream::handshake(const TlsOptions& options) {
  State& s = *state_;
  set_socket_options(s.socket.fd(), options.user_timeout_ms);
  peer_address_ = s.socket.peer_address();
  s.alpn = alpn_wire(options.alpn);
  const bool server = s.context->role() == TlsRole::server;
  if (!options.server_name.empty())
    SSL_ctrl(s.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
             const_cast<char*>(options.server_name.c_str()));
  if (server)
    SSL_set_accept_state(s.ssl);
  else
    SSL_set_connect_state(s.ssl);
  if (!s.alpn.empty() && !server)
    SSL_set_alpn_protos(s.ssl, reinterpret_cast<const unsigned char*>(s.alpn.data()),
                        static_cast<unsigned>(s.alpn.size()));
  set_deadline(options.handshake_timeout_ms);
  for (;;) {
    int rc = 0, error = 0;
    {
      const std::lock_guard lock(s.ssl_mutex);
      ERR_clear_error();
      rc = SSL_do_handshake(s.ssl);
      error = SSL_get_error(s.ssl, rc);
    }
    if (rc == 1) break;
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      s.broken = true;
      const std::string why = tls_failure(s.ssl, broke);
      (void)flush(false);  // the alert tells the peer why
      return fail(ErrorCode::denied, "no TLS connection with {}: {}", peer_address_, why);
    }
    HF_TRY(flush(true));
    if (error == SSL_ERROR_WANT_READ) HF_TRY(pump_in());
  }
  HF_TRY(flush(true));
  set_deadline(-1);
  if (X509* certificate = SSL_get1_peer_certificate(s.ssl)) {
    collect_names(certificate, peer_common_name_, peer_names_);
    X509_free(certificate);
  }
  const unsigned char* chosen = nullptr;
  unsigned chosen_length = 0;
  SSL_get0_alpn_selected(s.ssl, &chosen, &chosen_length);
  if (chosen) alpn_.assign(reinterpret_cast<const char*>(chosen), chosen_length);
  if (!options.expected_common_name.empty() && options.expected_common_name != peer_common_name_)
    return fail(ErrorCode::denied, "{} is \"{}\", not \"{}\"", peer_address_, peer_common_name_,
                options.expected_common_name);
  return {};
}

Result<std::unique_ptr<TlsStream>> TlsStream::connect(std::shared_ptr<TlsContext> context, TcpSocket socket,
                                                      const TlsOptions& options) {
  CHECK(context->role() == TlsRole::client, "a client connects");
  std::unique_ptr<TlsStream> made(new TlsStream(std::move(context), std::move(socket)));
  HF_TRY(made->handshake(options));
  return made;
}

Result<std::unique_ptr<TlsStream>> TlsStream::connect(std::shared_ptr<TlsContext> context, const std::string& host,
                                                      std::uint16_t port, const TlsOptions& options,
                                                      int connect_timeout_ms) {
  HF_ASSIGN(TcpSocket socket, tcp_connect(host, port, connect_timeout_ms));
  return connect(std::move(context), std::move(socket), options);
}

Result<std::unique_ptr<TlsStream>> TlsStream::accept(std::shared_ptr<TlsContext> context, TcpSocket socket,
                                                     const TlsOptions& options) {
  CHECK(context->role() == TlsRole::server, "a server accepts");
  std::unique_ptr<TlsStream> made(new TlsStream(std::move(context), std::move(socket)));
  HF_TRY(made->handshake(options));
  return made;
}

Result<std::size_t> TlsStream::read_some(std::span<std::uint8_t> into) {
  State& s = *state_;
  for (;;) {
    int error = 0;
    std::string why;
    {
      const std::lock_guard lock(s.ssl_mutex);
      if (s.broken) return fail(ErrorCode::unavailable, "the connection to {} broke", peer_address_);
      ERR_clear_error();
      std::size_t got = 0;
      const int rc = SSL_read_ex(s.ssl, into.data(), into.size(), &got);
      if (rc == 1) return got;
      error = SSL_get_error(s.ssl, rc);
      if (error == SSL_ERROR_ZERO_RETURN) return std::size_t{0};
      if (error != SSL_ERROR_WANT_READ) {
        s.broken = true;
        why = tls_failure(s.ssl, broke);
      }
    }
    if (error != SSL_ERROR_WANT_READ) {
      (void)flush(false);
      return fail(ErrorCode::unavailable, "connection to {}: {}", peer_address_, why);
    }
    HF_TRY(pump_in());
  }
}

bool TlsStream::readable_now() {
  {
    const std::lock_guard lock(state_->ssl_mutex);
    if (SSL_pending(state_->ssl) > 0 || BIO_ctrl_pending(state_->in) > 0) return true;
  }
  pollfd now{state_->socket.fd(), POLLIN, 0};
  return ::poll(&now, 1, 0) > 0;
}

Status TlsStream::write_pieces(std::span<const ByteView> pieces) {
  State& s = *state_;
  const std::lock_guard one_writer(s.writer_mutex);
  std::size_t pending = 0;
  for (ByteView piece : pieces) {
    while (!piece.empty()) {
      const ByteView part = piece.first(std::min(piece.size(), encrypt_chunk_bytes));
      std::size_t done = 0;
      {
        const std::lock_guard lock(s.ssl_mutex);
        if (s.broken) return fail(ErrorCode::unavailable, "the connection to {} broke", peer_address_);
        ERR_clear_error();
        while (done <
               part.size()) {  // the out BIO is memory and takes everything; partial writes are OpenSSL's records
          std::size_t n = 0;
          if (SSL_write_ex(s.ssl, part.data() + done, part.size() - done, &n) != 1) {
            s.broken = true;
            return fail(ErrorCode::unavailable, "connection to {}: {}", peer_address_, tls_failure(s.ssl, broke));
          }
          done += n;
        }
        s.sent_with_key += done;
        if (s.sent_with_key >= key_update_bytes) {
          SSL_key_update(s.ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
          s.sent_with_key = 0;
        }
      }
      piece = piece.subspan(done);
      if ((pending += done) >= encrypt_chunk_bytes) {
        HF_TRY(flush(true));
        pending = 0;
      }
    }
  }
  return flush(true);
}

void TlsStream::shutdown() {
  state_->closed = true;
  ::shutdown(state_->socket.fd(), SHUT_RDWR);
}

void TlsStream::set_deadline(int ms) { state_->deadline_ms = ms < 0 ? -1 : now_ms() + ms; }
void TlsStream::set_idle_timeout(int ms) { state_->idle_timeout_ms = ms; }

}  // namespace holdfast::platform
