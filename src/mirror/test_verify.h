// SPDX-License-Identifier: Apache-2.0
// For tests only: what a VerifyWalk needs of an active, over a ModelTree.
#pragma once

#include <functional>

#include "mirror/test_application.h"
#include "mirror/test_live_tree.h"
#include "mirror/verify_walk.h"

namespace holdfast::mirror::testing {

class ModelCaptureLog final : public CaptureLog {
 public:
  std::function<Sequence(const log::Record&)> sink;
  bool try_reserve_all(std::span<const std::size_t>) override { return true; }
  void give_back(std::size_t) override {}
  void when_space(std::function<void()> retry) override { retry(); }
  Sequence append(const log::Record& record, std::size_t) override { return sink(record); }
  Sequence last_sequence() const override { return {}; }
  Sequence last_but_times() const override { return {}; }
  void when_durable(Sequence, std::function<void()> done) override { done(); }
  void hurry() override {}
  void moved(SetNumber, const FileId&) override {}
};

}  // namespace holdfast::mirror::testing
