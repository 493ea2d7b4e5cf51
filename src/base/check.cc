// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"

#include <cstdlib>

#include "base/log.h"

namespace holdfast {

void check_failed(const char* file, int line, const char* condition, const std::string& detail) {
  log_line(LogLevel::critical, fmt::format("stopped: {} ({} at {}:{}); the peer takes over; keep this line for support",
                                           detail, condition, file, line));
  std::abort();
}

}  // namespace holdfast
