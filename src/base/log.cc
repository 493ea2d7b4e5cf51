// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <atomic>
#include <cstdlib>
#include <memory>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace holdfast {
namespace {

std::atomic<LogLevel> least_level{LogLevel::info};

// JOURNAL_STREAM is set by systemd when stderr is the journal: then the prefix tells the level and the time is the journal's.
spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("holdfast", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::trace);
    made->flush_on(spdlog::level::trace);
    made->set_pattern(std::getenv("JOURNAL_STREAM") ? "%v" : "%H:%M:%S.%e %v");
    return made;
  }();
  return *instance;
}

const char* prefix(LogLevel level) {
  const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  switch (level) {
    case LogLevel::debug:
      return journal ? "<7>" : "debug: ";
    case LogLevel::info:
      return journal ? "<6>" : "";
    case LogLevel::warning:
      return journal ? "<4>" : "warning: ";
    case LogLevel::error:
      return journal ? "<3>" : "error: ";
    case LogLevel::critical:
      return journal ? "<2>" : "critical: ";
  }
  return "";
}

}  // namespace

void set_log_level(LogLevel least) { least_level = least; }
bool log_enabled(LogLevel level) { return level >= least_level.load(std::memory_order_relaxed); }
void log_line(LogLevel level, std::string_view text) {
  if (log_enabled(level)) logger().log(spdlog::level::info, "{}{}", prefix(level), text);
}

}  // namespace holdfast
