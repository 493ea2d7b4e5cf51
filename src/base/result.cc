// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace holdfast {

Error errno_error(int sys_errno, std::string what) {
  Error e;
  e.code = sys_errno == ENOSPC || sys_errno == EDQUOT ? ErrorCode::no_space
           : sys_errno == ENOENT                      ? ErrorCode::not_found
           : sys_errno == EEXIST                      ? ErrorCode::exists
           : sys_errno == EBUSY                       ? ErrorCode::busy
                                                      : ErrorCode::io;
  e.message = std::move(what) + ": " + std::strerror(sys_errno);
  e.sys_errno = sys_errno;
  return e;
}

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid:
      return "invalid";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::exists:
      return "exists";
    case ErrorCode::denied:
      return "denied";
    case ErrorCode::refused:
      return "refused";
    case ErrorCode::busy:
      return "busy";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::timeout:
      return "timeout";
    case ErrorCode::io:
      return "io";
    case ErrorCode::corrupt:
      return "corrupt";
    case ErrorCode::no_space:
      return "no_space";
    case ErrorCode::stale:
      return "stale";
    case ErrorCode::internal:
      return "internal";
  }
  return "internal";
}

}  // namespace holdfast
