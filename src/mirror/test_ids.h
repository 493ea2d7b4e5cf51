// SPDX-License-Identifier: Apache-2.0
// For tests only: ids that are told apart at a glance.
#pragma once

#include "base/types.h"

namespace holdfast::mirror::testing {

inline FileId id_of(std::uint8_t n) {
  FileId id;
  id.bytes.fill(n);
  return id;
}

}  // namespace holdfast::mirror::testing
