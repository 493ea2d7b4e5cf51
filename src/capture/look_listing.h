// SPDX-License-Identifier: Apache-2.0
// The names of a folder of the past, packed, for as long as somebody has it open. They are kept in locked memory, and anybody who may read the folder
// can open it as often as he likes: so all of a view's together are bounded. Any thread; one listing is filled by one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::capture {

constexpr std::uint64_t most_listing_bytes = std::uint64_t{256} << 20;  // a million names of 240 bytes, of one view

class LookListing {
 public:
  struct Entry {
    std::string_view name;
    std::uint64_t ino;
    std::uint32_t type;
  };
  ~LookListing() {
    if (in_use_) in_use_->fetch_sub(bytes());
  }
  LookListing() = default;
  LookListing(const LookListing&) = delete;
  LookListing& operator=(const LookListing&) = delete;

  void reserve(std::size_t entries) { heads_.reserve(entries); }
  void add(std::string_view name, std::uint64_t ino, std::uint32_t type) {
    heads_.push_back({ino, names_.size(), type, static_cast<std::uint32_t>(name.size())});
    names_ += name;
  }
  // Nothing is added any more. False: there is no room for it beside the others that `in_use` counts, which outlives it.
  bool count_in(std::atomic<std::uint64_t>& in_use, std::uint64_t most) {
    heads_.shrink_to_fit();
    names_.shrink_to_fit();
    if (in_use.fetch_add(bytes()) + bytes() > most) {
      in_use.fetch_sub(bytes());
      return false;
    }
    in_use_ = &in_use;
    return true;
  }
  std::size_t size() const { return heads_.size(); }
  Entry at(std::size_t i) const {
    const Head& h = heads_[i];
    return {std::string_view(names_).substr(h.begin, h.length), h.ino, h.type};
  }
  std::uint64_t bytes() const { return heads_.capacity() * sizeof(Head) + names_.capacity(); }

 private:
  struct Head {
    std::uint64_t ino, begin;
    std::uint32_t type, length;
  };
  std::vector<Head> heads_;
  std::string names_;
  std::atomic<std::uint64_t>* in_use_ = nullptr;
};

}  // namespace holdfast::capture
