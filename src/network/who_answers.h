// SPDX-License-Identifier: Apache-2.0
// Which member of the cluster answers at an address: a handshake, as a peer would make, and the certificate that it shows.
#pragma once

#include <string>

#include "base/result.h"
#include "network/peer_link_connection.h"

namespace holdfast::network {

// "192.0.2.10:9727"; `tls_dir` as for the links. Any thread; blocks at most timeout_ms. Errors: `timeout` (nobody answers), `denied` (who
// answers is nobody of this cluster), else why it could not be asked.
Result<CertificateIdentity> who_answers(const std::string& address, const std::string& cluster,
                                        const std::string& tls_dir, int timeout_ms);

}  // namespace holdfast::network
