// SPDX-License-Identifier: Apache-2.0
// What changed since a peer last had everything, kept on disk: sorted keys, each with a value, and one header. What they mean is said in
// mirror/change_set.h. One store a peer; the real ones are tables of one database (platform/change_store.h).
// Threads: any. ErrorCode::no_space: nothing was changed; asked again later. Other errors are of the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::ports {

struct ChangeEntry {
  Bytes key, value;  // the key of at most 300 bytes
  bool operator==(const ChangeEntry&) const = default;
};

class ChangeStore {
 public:
  virtual ~ChangeStore() = default;
  virtual Result<Bytes> header() = 0;  // empty when never stored
  // One step, durable when it returns. `combine` gives the value of a key that was there already: (stored, added).
  using Combine = std::function<Result<Bytes>(ByteView, ByteView)>;
  virtual Status merge(const std::vector<ChangeEntry>& entries, const Combine& combine, ByteView header) = 0;
  // Removes all keys, and replaces the header, in one durable step.
  virtual Status clear(ByteView header) = 0;
  // Up to `count` entries with keys after `key`, ascending.
  virtual Result<std::vector<ChangeEntry>> scan(ByteView key, std::size_t count) = 0;
  virtual Result<bool> contains(ByteView key) = 0;
  virtual Result<std::uint64_t> size() = 0;  // keys
};

class ChangeStores {
 public:
  virtual ~ChangeStores() = default;
  virtual Result<std::unique_ptr<ChangeStore>> of_peer(NodeId peer) = 0;
};

}  // namespace holdfast::ports
