// SPDX-License-Identifier: Apache-2.0
#include "log/hash.h"

#include <xxhash.h>

namespace holdfast::log {
ContentHash content_hash(ByteView bytes) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
  ContentHash out;
  std::memcpy(out.data(), canonical.digest, out.size());
  return out;
}
}  // namespace holdfast::log
