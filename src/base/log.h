// SPDX-License-Identifier: Apache-2.0
// Log lines go to stderr; under systemd each carries its priority prefix (sd-daemon(3)) so the journal keeps the level.
// Never log a secret: tokens, keys and file contents stay out. Any thread.
#pragma once

#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace holdfast {

enum class LogLevel { debug, info, warning, error, critical };

void set_log_level(LogLevel least);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view text);

template <class... A>
void log_debug(fmt::format_string<A...> f, A&&... a) {
  if (log_enabled(LogLevel::debug)) log_line(LogLevel::debug, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void log_info(fmt::format_string<A...> f, A&&... a) {
  if (log_enabled(LogLevel::info)) log_line(LogLevel::info, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void log_warning(fmt::format_string<A...> f, A&&... a) {
  log_line(LogLevel::warning, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void log_error(fmt::format_string<A...> f, A&&... a) {
  log_line(LogLevel::error, fmt::format(f, std::forward<A>(a)...));
}

}  // namespace holdfast
