// SPDX-License-Identifier: Apache-2.0
// What may fail returns Result<T>. An Error is one line for a person, with a code that decides what a program does.
#pragma once

#include <string>
#include <utility>

#include <fmt/core.h>
#include <tl/expected.hpp>

namespace holdfast {

enum class ErrorCode {
  invalid,  // the request itself is wrong; repeating it can't help
  not_found,
  exists,
  denied,       // identity, token or permission
  refused,      // a safety rule vetoes it; the message says what would lift it
  busy,         // someone holds it; try again after they let go
  unavailable,  // a peer, majority or service can't be reached now
  timeout,
  io,       // the operating system said no; sys_errno has it
  corrupt,  // bytes are not what was written: never guessed around (I7)
  no_space,
  stale,  // an epoch or version has moved on
  internal,
};

struct [[nodiscard]] Error {
  ErrorCode code = ErrorCode::internal;
  std::string message;  // one line, no trailing full stop
  std::string hint;     // what to do next; may be empty
  int sys_errno = 0;    // errno when code is io/no_space, else 0

  std::string to_string() const { return hint.empty() ? message : message + ": " + hint; }
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

template <class... A>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<A...> f, A&&... a) {
  return tl::unexpected<Error>(Error{code, fmt::format(f, std::forward<A>(a)...), {}, 0});
}

// "cannot open /x: No such file or directory", with the errno kept for those who must decide by it.
Error errno_error(int sys_errno, std::string what);

template <class... A>
tl::unexpected<Error> fail_errno(int sys_errno, fmt::format_string<A...> f, A&&... a) {
  return tl::unexpected<Error>(errno_error(sys_errno, fmt::format(f, std::forward<A>(a)...)));
}

inline Error with_hint(Error e, std::string hint) {
  e.hint = std::move(hint);
  return e;
}

const char* to_string(ErrorCode code);

}  // namespace holdfast

#define HF_CONCAT_INNER(a, b) a##b
#define HF_CONCAT(a, b) HF_CONCAT_INNER(a, b)
// Returns the error of `expr` from the calling function, or goes on. A name of its own for each: `expr` may hold a lambda in which there are others.
#define HF_TRY(expr) HF_TRY_INNER(HF_CONCAT(hf_try_, __COUNTER__), expr)
#define HF_TRY_INNER(tmp, expr)                              \
  do {                                                       \
    auto tmp = (expr);                                       \
    if (!tmp) return tl::unexpected(std::move(tmp).error()); \
  } while (0)

// HF_ASSIGN(auto x, f()): the value of f(), or returns its error.
#define HF_ASSIGN(decl, expr) HF_ASSIGN_INNER(HF_CONCAT(hf_assign_, __LINE__), decl, expr)
#define HF_ASSIGN_INNER(tmp, decl, expr)                   \
  auto tmp = (expr);                                       \
  if (!tmp) return tl::unexpected(std::move(tmp).error()); \
  decl = std::move(*tmp)
