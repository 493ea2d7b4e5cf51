// SPDX-License-Identifier: Apache-2.0
// Numbered files of one size in which a log is kept. The real ones: platform/segment_store.h. One user at a time a file; list/create/remove
// from one thread at a time. A failed sync is final: what was written before may be lost although a later sync succeeds (I7).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::ports {

class SegmentFile {
 public:
  virtual ~SegmentFile() = default;
  virtual std::uint64_t size() const = 0;
  virtual Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) = 0;  // short only at the end
  virtual Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) = 0;
  virtual Status sync() = 0;
};

class SegmentStore {
 public:
  virtual ~SegmentStore() = default;
  virtual Result<std::vector<std::uint64_t>> list() = 0;  // ascending
  // May hold bytes of an earlier life (recycled, so that overwriting it costs no journal commit); its name is durable.
  virtual Result<std::unique_ptr<SegmentFile>> create(std::uint64_t number, std::uint64_t bytes) = 0;
  virtual Result<std::unique_ptr<SegmentFile>> open(std::uint64_t number) = 0;
  virtual Status remove(std::uint64_t number) = 0;  // may be kept aside for a later create()
  virtual Status remove_all() = 0;                  // nothing of any earlier life is left
};

}  // namespace holdfast::ports
