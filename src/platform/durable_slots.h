// SPDX-License-Identifier: Apache-2.0
// A small durable value that can be replaced when the disk is full: two slots of one file, written in turn over blocks that are there already.
// (On a file system that never overwrites, btrfs, it needs room like anything else.) A torn write leaves the other slot, the value before.
//
//   slot: "HFSLOT01", generation u64, length u32, crc32c u32 of generation, length and value; value; zeros
//
// Threads: one at a time. A failed sync is final (I7).
#pragma once

#include <string>

#include "platform/unique_fd.h"
#include "ports/durable_cell.h"

namespace holdfast::platform {

class DurableSlots final : public ports::DurableCell {
 public:
  // `slot_bytes`: of a new file; more when a value needs it.
  explicit DurableSlots(std::string path, std::size_t slot_bytes = 16 * 1024)
      : path_(std::move(path)), slot_bytes_(slot_bytes) {}
  // A file of another kind is the value itself, as older versions wrote it: the next store() replaces it. ErrorCode::corrupt: no slot is whole.
  Result<Bytes> load() override;
  Status store(ByteView value) override;

 private:
  Status make(ByteView value);
  std::string path_;
  std::size_t slot_bytes_;
  UniqueFd fd_;                                     // of a file in this format
  std::uint64_t generation_ = 0, first_holds_ = 0;  // the present value's; the first slot's
};

}  // namespace holdfast::platform
