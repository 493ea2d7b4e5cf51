// SPDX-License-Identifier: Apache-2.0
// The address of this end of a connected socket: how this machine is reached by the peer it reached.
#pragma once

#include <string>

#include "base/result.h"

namespace holdfast::platform {

Result<std::string> local_address_of(int socket_fd);  // "10.0.0.1" or "fd00::1", without port

}  // namespace holdfast::platform
