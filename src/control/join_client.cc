// SPDX-License-Identifier: Apache-2.0
#include "control/join_client.h"

#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>

#include "control/api_routes.h"
#include "control/api_server.h"
#include "control/tls_bridge.h"
#include "control/tokens.h"
#include "platform/local_address.h"

namespace holdfast::control {
namespace {

std::int64_t wall_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Error explain_connect(Error error, const std::string& address) {
  if (error.code == ErrorCode::denied) {
    error.message = fmt::format("{} is not a member of the token's cluster ({})", address, error.message);
    error.hint = "check the address, and that the token was made on that node";
  } else {
    error.message = fmt::format("cannot reach {}: {}", address, error.message);
    error.hint = fmt::format("check the address, that holdfastd runs there, and that TCP port {} is open", api_port);
  }
  return error;
}

// What the member answered must hold together before anything is stored.
Status check_answer(const AdmitReply& reply, const JoinToken& token, const JoinOptions& options) {
  HF_ASSIGN(const std::string fingerprint, fingerprint_of(reply.ca_certificate));
  if (fingerprint != token.ca_fingerprint)
    return fail(ErrorCode::denied, "the member sent another CA than the token names");
  HF_TRY(verify_certificate(reply.ca_certificate, reply.certificate, wall_s()));
  HF_ASSIGN(const CertificateInfo info, inspect_certificate(reply.certificate));
  const bool same = info.subject.cluster_id == token.cluster_id && info.subject.node_id == reply.node_id &&
                    info.subject.kind == options.kind && reply.cluster_id == token.cluster_id;
  if (!same) return fail(ErrorCode::denied, "the member issued a certificate for somebody else");
  return {};
}

// One member, pinned by the token. A stranger gets one answer a connection.
class Door {
 public:
  Door(const JoinOptions& options, HostPort where, std::shared_ptr<platform::TlsContext> context)
      : options_(options), where_(std::move(where)), context_(std::move(context)) {}

  std::string local_address;  // that reached the member

  Status connect() {
    auto socket = platform::tcp_connect(where_.host, where_.port, options_.timeout_ms);
    if (!socket) return tl::unexpected(explain_connect(socket.error(), options_.address));
    HF_ASSIGN(local_address, platform::local_address_of(socket->fd()));
    platform::TlsOptions tls;
    tls.alpn = {"http/1.1"};
    tls.handshake_timeout_ms = options_.timeout_ms;
    auto stream = platform::TlsStream::connect(context_, std::move(*socket), tls);
    if (!stream) return tl::unexpected(explain_connect(stream.error(), options_.address));
    stream_ = std::move(*stream);
    return {};
  }

  Result<nlohmann::json> ask(const char* path, const nlohmann::json& body, int timeout_ms) {
    TlsTimedStream timed(*stream_);
    HttpConnection http(timed, HttpLimits{});
    HF_TRY(http.write_request({"POST", path, {}, dump(body), false}));
    auto answer = http.read_response(timeout_ms);
    stream_.reset();
    if (!answer)
      return tl::unexpected(
          Error{answer.error().code == ErrorCode::timeout ? ErrorCode::timeout : ErrorCode::unavailable,
                fmt::format("{} did not answer: {}", options_.address, answer.error().message),
                "look at `holdfast status` there; the token may be used up, then make a new one", 0});
    if (answer->status != 200) return tl::unexpected(error_from_response(*answer));
    auto json = nlohmann::json::parse(answer->body, nullptr, false);
    if (json.is_discarded())
      return fail(ErrorCode::corrupt, "{} answered something that is not JSON", options_.address);
    return json;
  }

 private:
  const JoinOptions& options_;
  const HostPort where_;
  const std::shared_ptr<platform::TlsContext> context_;
  std::unique_ptr<platform::TlsStream> stream_;
};

// What this machine has, for the cluster to judge; empty when it asks nothing.
Result<std::string> facts_for(Door& door, const JoinOptions& options) {
  if (!options.answer) return std::string();
  HF_TRY(door.connect());
  HF_ASSIGN(
      const nlohmann::json json,
      door.ask("/v1/join/asks", to_json(JoinAsksRequest{options.token, to_string(options.kind)}), options.timeout_ms));
  HF_ASSIGN(const JoinAsksReply reply, join_asks_reply_from_json(json));
  return reply.asks.empty() ? Result<std::string>(std::string()) : options.answer(reply.asks);
}

}  // namespace

Result<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port) {
  HostPort out{std::string(text), default_port};
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return fail(ErrorCode::invalid, "{} is not an address: the ] is missing", text);
    out.host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && port.front() != ':') return fail(ErrorCode::invalid, "{} is not an address", text);
  } else if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos && text.find(':') == colon) {
    out.host = text.substr(0, colon);  // more than one colon is a bare IPv6 address
    port = text.substr(colon);
  }
  if (!port.empty()) {
    port.remove_prefix(1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (error != std::errc{} || end != port.data() + port.size() || out.port == 0)
      return fail(ErrorCode::invalid, "{} is not a port", port);
  }
  const bool odd = out.host.find_first_of(" \t\r\n/@") != std::string::npos;
  if (out.host.empty() || odd) return fail(ErrorCode::invalid, "{} is not an address: give HOST or HOST:PORT", text);
  return out;
}

Result<Joined> join_cluster(const JoinOptions& options) {
  HF_ASSIGN(const JoinToken token, join_token_from_text(options.token));
  if (token.kind != options.kind)
    return tl::unexpected(
        Error{ErrorCode::denied,
              fmt::format("the token admits a {}, not a {}", to_string(token.kind), to_string(options.kind)),
              options.kind == CertificateKind::witness ? "make one on a member with: holdfast token --witness"
                                                       : "make one on a member with: holdfast token",
              0});
  HF_ASSIGN(const HostPort where, parse_host_port(options.address, api_port));
  HF_ASSIGN(auto context, platform::TlsContext::pinned_client(token.ca_fingerprint));
  Door door(options, where, context);
  HF_ASSIGN(std::string facts, facts_for(door, options));
  HF_TRY(door.connect());
  Joined joined;
  joined.local_address = door.local_address;
  joined.member_address = where.host.find(':') == std::string::npos ? fmt::format("{}:{}", where.host, where.port)
                                                                    : fmt::format("[{}]:{}", where.host, where.port);
  HF_ASSIGN(const SigningRequest request, make_signing_request());
  // Admitting takes a majority's word on the member's side.
  const int patience_ms = facts.empty() ? options.timeout_ms : options.judge_timeout_ms;
  const AdmitRequest ask{options.token,
                         to_string(options.kind),
                         options.node,
                         options.node_id,
                         options.site,
                         request.csr_pem,
                         options.channel.empty() ? std::vector<std::string>{joined.local_address} : options.channel,
                         options.public_addresses,
                         options.version,
                         options.incarnation,
                         std::move(facts)};
  HF_ASSIGN(const nlohmann::json json, door.ask("/v1/join", to_json(ask), patience_ms));
  HF_ASSIGN(joined.reply, admit_reply_from_json(json));
  HF_TRY(check_answer(joined.reply, token, options));
  joined.material = {joined.reply.ca_certificate, joined.reply.ca_key, {request.key_pem, joined.reply.certificate}};
  joined.reply.ca_key.clear();  // one place only
  HF_TRY(check_key_matches(joined.material.own.certificate_pem, joined.material.own.key_pem));
  return joined;
}

Status renew_through_member(const TlsFolder& folder, const std::string& address, int timeout_ms) {
  HF_ASSIGN(TlsMaterial material, load_tls(folder, wall_s()));
  HF_ASSIGN(const CertificateInfo present, inspect_certificate(material.own.certificate_pem));
  HF_ASSIGN(const HostPort where, parse_host_port(address, api_port));
  HF_ASSIGN(auto context, platform::TlsContext::load(folder.dir, platform::TlsRole::client));
  platform::TlsOptions tls;
  tls.alpn = {"http/1.1"};
  tls.handshake_timeout_ms = timeout_ms;
  HF_ASSIGN(auto stream, platform::TlsStream::connect(context, where.host, where.port, tls, timeout_ms));
  HF_ASSIGN(const SigningRequest request, make_signing_request());
  nlohmann::json body = to_json(RenewRequest{request.csr_pem});
  body["actor"] = present.subject.node_id;
  TlsTimedStream timed(*stream);
  HttpConnection http(timed, HttpLimits{});
  HF_TRY(http.write_request({"POST", "/v1/renew", {}, dump(body), false}));
  HF_ASSIGN(const HttpResponse answer, http.read_response(timeout_ms));
  if (answer.status != 200) return tl::unexpected(error_from_response(answer));
  const auto json = nlohmann::json::parse(answer.body, nullptr, false);
  if (json.is_discarded()) return fail(ErrorCode::corrupt, "{} answered something that is not JSON", address);
  HF_ASSIGN(const RenewReply reply, renew_reply_from_json(json));
  HF_TRY(verify_certificate(material.ca_certificate_pem, reply.certificate, wall_s()));
  HF_ASSIGN(const CertificateInfo next, inspect_certificate(reply.certificate));
  if (next.subject.node_id != present.subject.node_id || next.subject.kind != present.subject.kind)
    return fail(ErrorCode::denied, "{} issued a certificate for somebody else", address);
  material.own = {request.key_pem, reply.certificate};
  return store_tls(folder, material);
}

}  // namespace holdfast::control
