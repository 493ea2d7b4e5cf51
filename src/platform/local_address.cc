// SPDX-License-Identifier: Apache-2.0
#include "platform/local_address.h"

#include <cerrno>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace holdfast::platform {

Result<std::string> local_address_of(int socket_fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    return fail_errno(errno, "cannot tell a connection's own address");
  char text[INET6_ADDRSTRLEN] = "";
  const void* raw = &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr;
  int family = address.ss_family;
  if (family == AF_INET6) {
    const auto* six = &reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr;
    raw = six;
    if (IN6_IS_ADDR_V4MAPPED(six)) {  // a dual-stack socket that talks IPv4
      raw = six->s6_addr + 12;
      family = AF_INET;
    }
  }
  if (::inet_ntop(family, raw, text, sizeof text) == nullptr) return fail_errno(errno, "cannot print an address");
  return std::string(text);
}

}  // namespace holdfast::platform
