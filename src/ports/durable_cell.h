// SPDX-License-Identifier: Apache-2.0
// A small value that is replaced as a whole and durable when store() returns. The real one is a file (platform/durable_slots.h).
#pragma once

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::ports {

class DurableCell {
 public:
  virtual ~DurableCell() = default;
  virtual Result<Bytes> load() = 0;  // empty when never stored
  virtual Status store(ByteView value) = 0;
};

}  // namespace holdfast::ports
