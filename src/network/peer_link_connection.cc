// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link_connection.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "platform/tls_failure.h"

namespace holdfast::network {
namespace {

constexpr std::size_t max_queued_bytes = 32u << 20;  // a peer that reads nothing is closed, not buffered for

std::string ssl_reason(SSL* ssl, int code) {
  const int saved = errno;
  if (ssl != nullptr)
    if (std::string known = platform::tls_failure(ssl, ""); !known.empty()) return known;
  const unsigned long e = ERR_get_error();
  ERR_clear_error();
  if (e != 0) {
    const char* text = ERR_reason_error_string(e);
    return text != nullptr ? text : "TLS error";
  }
  if (code == SSL_ERROR_ZERO_RETURN) return "closed by the peer";
  if (code == SSL_ERROR_SYSCALL && saved != 0) return errno_error(saved, "connection").message;
  return "connection closed";
}

std::string subject_entry(X509_NAME* name, int nid) {
  const int at = X509_NAME_get_index_by_NID(name, nid, -1);
  if (at < 0) return {};
  unsigned char* utf8 = nullptr;
  const int length = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  if (length < 0) return {};
  std::string text(reinterpret_cast<char*>(utf8), static_cast<std::size_t>(length));
  OPENSSL_free(utf8);
  return text;
}

// The first URI among the subject's alternative names that is ours.
std::string identity_uri(X509* certificate) {
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  std::string found;
  for (int i = 0; found.empty() && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    std::string text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                     static_cast<std::size_t>(ASN1_STRING_length(uri)));
    if (text.rfind("holdfast:", 0) == 0) found = std::move(text);
  }
  GENERAL_NAMES_free(names);
  return found;
}

// Who joins knows only the fingerprint of the cluster's authority, so its certificate must come with the chain.
Status send_authority_along(SSL_CTX* context, const std::string& file) {
  BIO* in = BIO_new_file(file.c_str(), "r");
  X509* authority = in != nullptr ? PEM_read_bio_X509(in, nullptr, nullptr, nullptr) : nullptr;
  BIO_free(in);
  if (authority == nullptr || SSL_CTX_add0_chain_cert(context, authority) != 1) {
    X509_free(authority);
    return fail(ErrorCode::denied, "cannot load {}", file);
  }
  return {};
}

int choose_control_alpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
                        unsigned in_length, void*) {
  static const std::string wanted =
      std::string(1, static_cast<char>(std::char_traits<char>::length(control_alpn))) + control_alpn;
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, reinterpret_cast<const unsigned char*>(wanted.data()),
                            static_cast<unsigned>(wanted.size()), in, in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

std::string remote_address(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return "unknown";
  char host[64] = "", port[16] = "";
  if (getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "unknown";
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<CertificateIdentity> peer_certificate(SSL* ssl) {
  X509* certificate = SSL_get0_peer_certificate(ssl);
  if (certificate == nullptr) return fail(ErrorCode::denied, "peer showed no certificate");
  CertificateIdentity identity;
  const std::string uri = identity_uri(certificate);
  const std::string kind = subject_entry(X509_get_subject_name(certificate), NID_organizationalUnitName);
  const std::string_view head = "holdfast:cluster/", middle = "/node/";
  const std::size_t at = uri.find(middle);
  if (uri.rfind(head, 0) != 0 || at == std::string::npos || (kind != "node" && kind != "witness"))
    return fail(ErrorCode::denied, "peer's certificate is not one of a node or witness");
  identity.cluster = uri.substr(head.size(), at - head.size());
  HF_ASSIGN(identity.id, node_id_from_hex(uri.substr(at + middle.size())));
  identity.kind = kind == "witness" ? PeerKind::witness : PeerKind::node;
  return identity;
}

Result<SslContextPtr> control_context(const std::string& dir, bool server) {
  SslContextPtr context(SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()));
  SSL_CTX* c = context.get();
  CHECK(c != nullptr, "SSL_CTX_new failed");
  SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION);
  SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | (server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  if (server) SSL_CTX_set_num_tickets(c, 0);
  const std::string ca = dir + "/ca.crt", cert = dir + "/node.crt", key = dir + "/node.key";
  if (SSL_CTX_load_verify_locations(c, ca.c_str(), nullptr) != 1)
    return fail(ErrorCode::denied, "cannot load {}: {}", ca, ssl_reason(nullptr, 0));
  if (SSL_CTX_use_certificate_chain_file(c, cert.c_str()) != 1)
    return fail(ErrorCode::denied, "cannot load {}: {}", cert, ssl_reason(nullptr, 0));
  if (SSL_CTX_use_PrivateKey_file(c, key.c_str(), SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(c) != 1)
    return fail(ErrorCode::denied, "cannot load {}: {}", key, ssl_reason(nullptr, 0));
  if (server) HF_TRY(send_authority_along(c, ca));
  const std::string alpn =
      std::string(1, static_cast<char>(std::char_traits<char>::length(control_alpn))) + control_alpn;
  if (server) {
    SSL_CTX_set_alpn_select_cb(c, choose_control_alpn, nullptr);
  } else {
    SSL_CTX_set_alpn_protos(c, reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
  }
  return context;
}

Result<SocketAddress> parse_socket_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return fail(ErrorCode::invalid, "address '{}' has no port", text);
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.empty() ? nullptr : host.c_str(), text.c_str() + colon + 1, &hints, &found) != 0 ||
      found == nullptr)
    return fail(ErrorCode::invalid, "'{}' is not a numeric address with a port", text);
  SocketAddress address;
  const auto* raw = reinterpret_cast<const std::uint8_t*>(found->ai_addr);
  address.bytes.assign(raw, raw + found->ai_addrlen);
  freeaddrinfo(found);
  return address;
}

LinkConnection::LinkConnection(int fd, SslPtr ssl, State state) : fd_(fd), ssl_(std::move(ssl)), state_(state) {
  const int on = 1, silence_ms = 5000;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd_, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
}

LinkConnection::~LinkConnection() {
  ssl_.reset();
  if (fd_ >= 0) close(fd_);
}

Result<std::unique_ptr<LinkConnection>> LinkConnection::dial(const std::string& address, SSL_CTX* context,
                                                             const std::string& sni) {
  HF_ASSIGN(const SocketAddress to, parse_socket_address(address));
  const auto* raw = reinterpret_cast<const sockaddr*>(to.bytes.data());
  const int fd = socket(raw->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno(errno, "socket");
  SslPtr ssl(SSL_new(context));
  SSL_set_fd(ssl.get(), fd);
  SSL_set_connect_state(ssl.get());
  SSL_ctrl(ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(sni.c_str()));
  std::unique_ptr<LinkConnection> connection(new LinkConnection(fd, std::move(ssl), State::connecting));
  connection->dialled = true;
  connection->remote_ = address;
  connection->address = address;
  if (connect(fd, raw, static_cast<socklen_t>(to.bytes.size())) != 0 && errno != EINPROGRESS)
    return fail_errno(errno, "{}", address);
  return connection;
}

std::unique_ptr<LinkConnection> LinkConnection::accepted(int fd, SslPtr ssl, bool handshake_done) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  SSL_set_mode(ssl.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  std::unique_ptr<LinkConnection> connection(
      new LinkConnection(fd, std::move(ssl), handshake_done ? State::secured : State::handshaking));
  connection->remote_ = remote_address(fd);
  return connection;
}

std::uint32_t LinkConnection::wanted_events() const {
  if (state_ == State::connecting) return EPOLLOUT;
  const bool write = want_write_ || (state_ == State::secured && queued_bytes() > 0);
  return EPOLLIN | (write ? static_cast<std::uint32_t>(EPOLLOUT) : 0u);
}

Status LinkConnection::finish_connect() {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error != 0) return fail_errno(error, "{}", remote_);
  sockaddr_storage peer{};
  socklen_t peer_length = sizeof peer;
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&peer), &peer_length) != 0)
    return {};  // not connected yet: a spurious wake-up
  state_ = State::handshaking;
  return {};
}

Status LinkConnection::handshake() {
  want_write_ = false;
  errno = 0;
  const int r = SSL_do_handshake(ssl_.get());
  if (r == 1) {
    state_ = State::secured;
    return {};
  }
  const int code = SSL_get_error(ssl_.get(), r);
  if (code == SSL_ERROR_WANT_READ) return {};
  if (code == SSL_ERROR_WANT_WRITE) {
    want_write_ = true;
    return {};
  }
  return fail(ErrorCode::denied, "{}", ssl_reason(ssl_.get(), code));
}

Status LinkConnection::read_frames(std::vector<Frame>& frames) {
  std::uint8_t chunk[16384];
  for (;;) {
    errno = 0;
    const int n = SSL_read(ssl_.get(), chunk, sizeof chunk);
    if (n <= 0) {
      const int code = SSL_get_error(ssl_.get(), n);
      if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) return {};
      return fail(ErrorCode::unavailable, "{}", ssl_reason(ssl_.get(), code));
    }
    reader_.feed(ByteView(chunk, static_cast<std::size_t>(n)));
    for (;;) {
      HF_ASSIGN(std::optional<Frame> frame, reader_.next());
      if (!frame) break;
      frames.push_back(std::move(*frame));
    }
  }
}

Status LinkConnection::write_queued() {
  want_write_ = false;
  while (queued_bytes() > 0) {
    errno = 0;
    const int n = SSL_write(ssl_.get(), out_.data() + out_start_,
                            static_cast<int>(std::min<std::size_t>(queued_bytes(), 1u << 20)));
    if (n <= 0) {
      const int code = SSL_get_error(ssl_.get(), n);
      if (code == SSL_ERROR_WANT_READ) return {};
      if (code == SSL_ERROR_WANT_WRITE) {
        want_write_ = true;
        return {};
      }
      return fail(ErrorCode::unavailable, "{}", ssl_reason(ssl_.get(), code));
    }
    out_start_ += static_cast<std::size_t>(n);
  }
  out_.clear();
  out_start_ = 0;
  return {};
}

Status LinkConnection::drive(std::vector<Frame>& frames) {
  if (state_ == State::connecting) HF_TRY(finish_connect());
  if (state_ == State::handshaking) HF_TRY(handshake());
  if (state_ != State::secured) return {};
  const Status read = read_frames(frames);  // frames before an error count: a refusal comes just before the close
  if (!read) return read;
  return write_queued();
}

void LinkConnection::queue(FrameType type, ByteView payload) {
  if (queued_bytes() > max_queued_bytes) return;  // its liveness timer ends it
  append_frame(out_, type, payload);
}

void LinkConnection::flush() {
  if (state_ == State::secured) (void)write_queued();
}

}  // namespace holdfast::network
