// SPDX-License-Identifier: Apache-2.0
// Hints about what a resynchronization compares next: while one record is applied, the digests of those behind it are begun.
#pragma once

#include <functional>
#include <span>

#include "log/record.h"

namespace holdfast::mirror {

// How much is asked for ahead of what is compared.
constexpr std::uint64_t read_ahead_bytes = 4 << 20;
constexpr std::size_t read_ahead_pieces = 128;

// Over the records of one batch, in order. Not thread-safe.
class ReadAhead {
 public:
  using Ask = std::function<void(const log::Record& ship_hash)>;
  ReadAhead(std::span<const log::Record> batch, Ask ask) : batch_(batch), ask_(std::move(ask)) {}

  // Before the record at `index` is applied; called for each, in order. Nothing is asked past a listing that was not applied: what it names may be
  // known only then.
  void before(std::size_t index) {
    if (batch_[index].kind == log::Kind::ship_hash && index < next_) {
      asked_bytes_ -= batch_[index].length;
      --asked_;
    }
    if (next_ < index) next_ = index;
    if (next_ == index && batch_[index].kind != log::Kind::ship_dir) ++next_;
    for (; next_ < batch_.size() && asked_bytes_ < read_ahead_bytes && asked_ < read_ahead_pieces; ++next_) {
      if (batch_[next_].kind == log::Kind::ship_dir) return;
      if (batch_[next_].kind != log::Kind::ship_hash) continue;
      ask_(batch_[next_]);
      asked_bytes_ += batch_[next_].length;
      ++asked_;
    }
  }

 private:
  std::span<const log::Record> batch_;
  Ask ask_;
  std::size_t next_ = 0;
  std::uint64_t asked_bytes_ = 0;  // and not compared yet
  std::size_t asked_ = 0;
};

}  // namespace holdfast::mirror
