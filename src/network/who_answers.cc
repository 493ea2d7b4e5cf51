// SPDX-License-Identifier: Apache-2.0
#include "network/who_answers.h"

#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>

namespace holdfast::network {

Result<CertificateIdentity> who_answers(const std::string& address, const std::string& cluster,
                                        const std::string& tls_dir, int timeout_ms) {
  const SteadyTime until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  HF_ASSIGN(const SslContextPtr context, control_context(tls_dir, false));
  HF_ASSIGN(const std::unique_ptr<LinkConnection> connection, LinkConnection::dial(address, context.get(), cluster));
  std::vector<Frame> frames;
  while (!connection->secured()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    const bool writes = (connection->wanted_events() & EPOLLOUT) != 0;
    pollfd wait{connection->fd(), static_cast<short>(writes ? POLLIN | POLLOUT : POLLIN), 0};
    const int ready = left.count() <= 0 ? 0 : ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "{}", address);
    if (ready == 0) return fail(ErrorCode::timeout, "nobody answers at {}", address);
    if (ready > 0) HF_TRY(connection->drive(frames));
  }
  HF_ASSIGN(const CertificateIdentity identity, peer_certificate(connection->ssl()));
  if (identity.cluster != cluster) return fail(ErrorCode::denied, "{} is of another cluster", address);
  return identity;
}

}  // namespace holdfast::network
