// SPDX-License-Identifier: Apache-2.0
// Segments as files "seg-<number>" of one folder. Given-up segments wait as "spare-<n>" for their next
// life: overwriting written blocks makes fdatasync cheap (no journal commit), which is the passive's part of every fsync.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ports/segments.h"
#include "ports/times.h"

namespace holdfast::platform {

class FolderSegmentStore final : public ports::SegmentStore {
 public:
  // `dir` is made when missing. Two spares, zero-filled, are made when there is nothing at all, so that the first minutes are fast too.
  static Result<std::unique_ptr<FolderSegmentStore>> open(const std::string& dir, std::uint64_t segment_bytes);
  // Segments that nobody needs after a crash: made empty; nothing is kept aside or made durable. create() answers no_space when less than
  // `keep_free_bytes` would stay free.
  static Result<std::unique_ptr<FolderSegmentStore>> open_scratch(const std::string& dir,
                                                                  std::function<std::uint64_t()> keep_free_bytes);
  // What earlier lives left in the folders below `dir`. Absent is fine.
  static Status clear_scratch(const std::string& dir);
  Result<std::vector<std::uint64_t>> list() override;
  Result<std::unique_ptr<ports::SegmentFile>> create(std::uint64_t number, std::uint64_t bytes) override;
  Result<std::unique_ptr<ports::SegmentFile>> open(std::uint64_t number) override;
  Status remove(std::uint64_t number) override;
  Status remove_all() override;

 private:
  explicit FolderSegmentStore(std::string dir) : dir_(std::move(dir)) {}
  Status make_spare(std::uint64_t bytes);
  Result<std::vector<std::uint64_t>> numbers(const char* prefix);
  Status keep_free(std::uint64_t bytes);
  std::string dir_;
  std::function<std::uint64_t()> keep_free_bytes_;  // null: not scratch
};

class SystemTimes final : public ports::Times {
 public:
  std::int64_t realtime_ns() override;
  std::int64_t steady_ns() override;  // CLOCK_BOOTTIME
};

}  // namespace holdfast::platform
