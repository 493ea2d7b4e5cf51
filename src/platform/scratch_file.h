// SPDX-License-Identifier: Apache-2.0
// A sparse file without a name, so that nothing of it outlives the process. What is written goes to the disk a little later, and who writes faster
// than that waits: its file system is that of the log, whose syncs would else wait for all of it.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "platform/unique_fd.h"
#include "ports/scratch_store.h"

namespace holdfast::platform {

class ScratchFile final : public ports::ScratchStore {
 public:
  // In this folder. Writes are refused while its file system has less than `keep_free_bytes` left; it is asked now and then.
  static Result<std::unique_ptr<ScratchFile>> open(const std::string& dir, std::uint64_t keep_free_bytes);
  Status read(std::uint64_t offset, std::span<std::uint8_t> into) override;
  Status write(std::uint64_t offset, ByteView bytes) override;
  Status discard(std::uint64_t offset, std::uint64_t length) override;

 private:
  ScratchFile(UniqueFd fd, std::uint64_t keep_free_bytes) : fd_(std::move(fd)), keep_free_bytes_(keep_free_bytes) {}
  Status check_room(std::uint64_t bytes);
  Status push(std::uint64_t bytes);

  const UniqueFd fd_;
  const std::uint64_t keep_free_bytes_;
  std::atomic<std::uint64_t> unchecked_bytes_{~std::uint64_t{0}};  // written since its file system was asked
  std::atomic<std::uint64_t> unpushed_bytes_{0};  // the same, of what may not be on its way to the disk
};

}  // namespace holdfast::platform
