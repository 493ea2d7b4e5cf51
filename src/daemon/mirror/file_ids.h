// SPDX-License-Identifier: Apache-2.0
// Capture's view of the durable id index: capture and platform don't know each other, this is where they meet.
#pragma once

#include "capture/file_ids.h"
#include "mirror/hot_gate.h"
#include "platform/file_index.h"
#include "platform/graveyard.h"

namespace holdfast::mirror_process {

class IndexedFileIds final : public capture::FileIds {
 public:
  // All outlive this. `root_fd`: the set's root. `names_gone`: as Graveyard takes it.
  IndexedFileIds(platform::FileIndex& index, int root_fd, const std::atomic<std::uint64_t>& names_gone)
      : index_(index), root_fd_(root_fd), graveyard_(root_fd, &names_gone) {}

  // Where new ids come from while the set is captured; null: from nowhere in particular.
  void use(mirror::HotGate* gate, SetNumber set) {
    gate_ = gate;
    set_ = set;
    graveyard_.look_again();
  }

  Result<FileId> identify(int fd, SetNumber set) override { return index_.identify(fd, set); }
  Result<FileId> fresh() override {
    if (gate_) return gate_->fresh(set_);
    return index_.fresh();
  }
  Status bind(int fd, SetNumber set, const FileId& id) override { return index_.bind(fd, set, id); }
  void gone(SetNumber, const FileId& id) override { index_.forget(id); }
  Result<int> open_by_prefix(SetNumber, std::uint64_t prefix) override {
    HF_ASSIGN(platform::UniqueFd fd, index_.open_by_prefix(root_fd_, prefix));
    if (!fd) return fail(ErrorCode::not_found, "no file with id prefix {:x}", prefix);
    HF_ASSIGN(const bool dead, graveyard_.holds(fd.get()));
    if (dead) return fail(ErrorCode::not_found, "the file with id prefix {:x} was deleted", prefix);
    return fd.release();
  }

 private:
  platform::FileIndex& index_;
  const int root_fd_;
  platform::Graveyard graveyard_;
  mirror::HotGate* gate_ = nullptr;
  SetNumber set_ = 0;
};

}  // namespace holdfast::mirror_process
