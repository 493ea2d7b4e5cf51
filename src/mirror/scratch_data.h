// SPDX-License-Identifier: Apache-2.0
// The content of one file of a scratch view: what the past says, with pages that were written laid over it.
//
//   run of pages     in the store (written), or a hole (zeros, whatever the past says)
//   no run           below past_end: the past's byte; above: zero
//
// Pages are written whole: what a write does not fill is the past's, and whoever writes brings those bytes along, read before any lock was taken.
// That is right because a page that shows the past can stop to do so and never begins to. A page of the store is zero beyond the file's size.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "mirror/scratch_space.h"
#include "ports/scratch_store.h"

namespace holdfast::mirror {

// The past's bytes of pages that are written in part, short where the past ended.
using PastPages = std::map<std::uint64_t, Bytes>;

class ScratchData {
 public:
  struct Where {
    ScratchSpace& space;
    ports::ScratchStore& store;
  };
  explicit ScratchData(std::uint64_t past_end = 0) : past_end_(past_end) {}

  std::uint64_t past_end() const { return past_end_; }
  std::size_t runs() const { return runs_.size(); }
  std::uint64_t stored_pages() const;
  bool shows_past(std::uint64_t begin, std::uint64_t end) const;
  // The pages that a change of [begin, end) fills only in part and that show the past.
  std::vector<std::uint64_t> partial(std::uint64_t begin, std::uint64_t end) const;
  // How many pages a write there would take.
  std::uint64_t pages_to_take(std::uint64_t begin, std::uint64_t end) const;

  // `into` holds what the past says there, from `offset` on; anything at and beyond past_end().
  Status lay_over(ports::ScratchStore& store, std::uint64_t offset, std::span<std::uint8_t> into) const;
  // ErrorCode::no_space: nothing was written.
  Status write(Where where, std::uint64_t offset, ByteView bytes, const PastPages& past);
  // Zeros. Pages that are filled become holes, `end` may be beyond the file.
  Status clear(Where where, std::uint64_t begin, std::uint64_t end, const PastPages& past);
  Status truncate(Where where, std::uint64_t size);
  void drop(Where where);
  std::uint64_t next_data(std::uint64_t offset, std::uint64_t size) const;
  std::uint64_t next_hole(std::uint64_t offset, std::uint64_t size) const;

 private:
  struct Run {
    std::uint64_t end = 0, store = 0;  // page after the last; first page in the store
    bool hole = false;
  };
  using Runs = std::map<std::uint64_t, Run>;
  Runs::const_iterator at(std::uint64_t page) const;  // the run that holds it, or the next one
  bool stored(std::uint64_t page, std::uint64_t& in_store) const;
  void cut(std::uint64_t from, std::uint64_t to, std::vector<PageRun>& freed);
  void put(std::uint64_t first, std::uint64_t end, std::uint64_t store, bool hole);
  static void give(Where where, const std::vector<PageRun>& pages);
  Status clear_part(Where where, std::uint64_t begin, std::uint64_t end, const PastPages& past);
  Status write_fresh(Where where, std::uint64_t first, PageRun run, std::uint64_t offset, ByteView bytes,
                     const PastPages& past) const;

  std::uint64_t past_end_;
  Runs runs_;
};

}  // namespace holdfast::mirror
