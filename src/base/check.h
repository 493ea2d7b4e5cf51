// SPDX-License-Identifier: Apache-2.0
// CHECK stays on in release: a broken invariant stops the process with a line a support engineer can use (I7).
#pragma once

#include <string>

#include <fmt/core.h>

namespace holdfast {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& detail);
}

#define CHECK(condition, ...)                                                               \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::holdfast::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (0)
