// SPDX-License-Identifier: Apache-2.0
// Hints about what a resynchronization compares next: while one hash is computed, the disk is asked for the bytes of those behind it.
#pragma once

#include <functional>
#include <span>

#include "log/record.h"

namespace holdfast::mirror {

// How much is asked for ahead of what is compared.
constexpr std::uint64_t read_ahead_bytes = 4 << 20;

// Over the records of one batch, in order. Not thread-safe.
class ReadAhead {
 public:
  using Ask = std::function<void(const log::Record& ship_hash)>;
  ReadAhead(std::span<const log::Record> batch, Ask ask) : batch_(batch), ask_(std::move(ask)) {}

  // Before the record at `index` is applied; called for each, in order.
  void before(std::size_t index) {
    if (batch_[index].kind == log::Kind::ship_hash && index < next_) asked_bytes_ -= batch_[index].length;
    if (next_ <= index) next_ = index + 1;
    for (; next_ < batch_.size() && asked_bytes_ < read_ahead_bytes; ++next_) {
      if (batch_[next_].kind != log::Kind::ship_hash) continue;
      ask_(batch_[next_]);
      asked_bytes_ += batch_[next_].length;
    }
  }

 private:
  std::span<const log::Record> batch_;
  Ask ask_;
  std::size_t next_ = 0;
  std::uint64_t asked_bytes_ = 0;  // and not compared yet
};

}  // namespace holdfast::mirror
