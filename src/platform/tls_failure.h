// SPDX-License-Identifier: Apache-2.0
// Why a TLS handshake failed, in words for an administrator: one line, with what to do where that is known.
#pragma once

#include <string>

struct ssl_st;  // SSL

namespace holdfast::platform {

// Of the handshake that has just failed on this thread: takes OpenSSL's errors away. `otherwise`: nothing is known.
std::string tls_failure(ssl_st* ssl, const std::string& otherwise);

}  // namespace holdfast::platform
