// SPDX-License-Identifier: Apache-2.0
#include "mirror/scratch_data.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::array<std::uint8_t, scratch_page> zeros{};

std::uint64_t page_of(std::uint64_t offset) { return offset / scratch_page; }
std::uint64_t pages_to(std::uint64_t end) { return end / scratch_page + (end % scratch_page != 0 ? 1 : 0); }

}  // namespace

ScratchData::Runs::const_iterator ScratchData::at(std::uint64_t page) const {
  auto it = runs_.upper_bound(page);
  if (it != runs_.begin() && std::prev(it)->second.end > page) --it;
  return it;
}

bool ScratchData::stored(std::uint64_t page, std::uint64_t& in_store) const {
  const auto it = at(page);
  if (it == runs_.end() || it->first > page || it->second.hole) return false;
  in_store = it->second.store + (page - it->first);
  return true;
}

std::uint64_t ScratchData::stored_pages() const {
  std::uint64_t sum = 0;
  for (const auto& [first, run] : runs_) sum += run.hole ? 0 : run.end - first;
  return sum;
}

bool ScratchData::shows_past(std::uint64_t begin, std::uint64_t end) const {
  end = std::min(end, past_end_);
  if (begin >= end) return false;
  std::uint64_t page = page_of(begin);
  for (auto it = at(page); page < pages_to(end); page = it->second.end, ++it)
    if (it == runs_.end() || it->first > page) return true;
  return false;
}

std::vector<std::uint64_t> ScratchData::partial(std::uint64_t begin, std::uint64_t end) const {
  std::vector<std::uint64_t> pages;
  if (begin >= end) return pages;
  const std::uint64_t first = page_of(begin), last = page_of(end - 1);
  const auto add = [&](std::uint64_t page) {
    if (shows_past(page * scratch_page, (page + 1) * scratch_page)) pages.push_back(page);
  };
  if (begin % scratch_page != 0 || (first == last && end % scratch_page != 0)) add(first);
  if (last != first && end % scratch_page != 0) add(last);
  return pages;
}

std::uint64_t ScratchData::pages_to_take(std::uint64_t begin, std::uint64_t end) const {
  const std::uint64_t first = page_of(begin), last = pages_to(end);
  std::uint64_t stored = 0;
  for (auto it = at(first); it != runs_.end() && it->first < last; ++it)
    if (!it->second.hole) stored += std::min(it->second.end, last) - std::max(it->first, first);
  return last - first - stored;
}

Status ScratchData::lay_over(ports::ScratchStore& store, std::uint64_t offset, std::span<std::uint8_t> into) const {
  const std::uint64_t end = offset + into.size();
  if (end > past_end_)
    std::fill(into.begin() + static_cast<std::ptrdiff_t>(std::max(offset, past_end_) - offset), into.end(),
              std::uint8_t{0});
  for (auto it = at(page_of(offset)); it != runs_.end() && it->first * scratch_page < end; ++it) {
    const std::uint64_t from = std::max(offset, it->first * scratch_page),
                        to = std::min(end, it->second.end * scratch_page);
    const auto part = into.subspan(from - offset, to - from);
    if (it->second.hole)
      std::fill(part.begin(), part.end(), std::uint8_t{0});
    else
      HF_TRY(store.read(it->second.store * scratch_page + (from - it->first * scratch_page), part));
  }
  return {};
}

void ScratchData::cut(std::uint64_t from, std::uint64_t to, std::vector<PageRun>& freed) {
  if (from >= to) return;
  auto it = runs_.upper_bound(from);
  if (it != runs_.begin() && std::prev(it)->second.end > from) --it;
  while (it != runs_.end() && it->first < to) {
    const std::uint64_t first = it->first;
    const Run run = it->second;
    it = runs_.erase(it);
    const std::uint64_t b = std::max(first, from), e = std::min(run.end, to);
    if (!run.hole) freed.push_back({run.store + (b - first), e - b});
    if (first < b) runs_[first] = {b, run.store, run.hole};
    if (e < run.end) runs_[e] = {run.end, run.hole ? 0 : run.store + (e - first), run.hole};
  }
}

// Nothing is there. Joined with its neighbours where the store's pages follow each other too.
void ScratchData::put(std::uint64_t first, std::uint64_t end, std::uint64_t store, bool hole) {
  auto next = runs_.lower_bound(first);
  if (next != runs_.begin()) {
    const auto before = std::prev(next);
    const Run& run = before->second;
    if (run.end == first && run.hole == hole && (hole || run.store + (first - before->first) == store)) {
      first = before->first;
      store = run.store;
      runs_.erase(before);
    }
  }
  if (next != runs_.end() && next->first == end && next->second.hole == hole &&
      (hole || store + (end - first) == next->second.store)) {
    end = next->second.end;
    runs_.erase(next);
  }
  runs_[first] = {end, hole ? 0 : store, hole};
}

// A page that could not be discarded is not zero, so it stays taken.
void ScratchData::give(Where where, const std::vector<PageRun>& pages) {
  for (const PageRun& run : pages)
    if (const Status gone = where.store.discard(run.first * scratch_page, run.count * scratch_page); gone)
      where.space.give(run);
    else
      log_warning("a view of the past can't give room back: {}", gone.error().to_string());
}

// Pages that were just taken, for the file's pages from `first` on.
Status ScratchData::write_fresh(Where where, std::uint64_t first, PageRun run, std::uint64_t offset, ByteView bytes,
                                const PastPages& past) const {
  for (const auto& [page, old] : past) {
    if (page < first || page >= first + run.count) continue;
    if (!shows_past(page * scratch_page, (page + 1) * scratch_page)) continue;  // not any more
    const std::size_t n = std::min<std::uint64_t>(old.size(), past_end_ - page * scratch_page);
    HF_TRY(where.store.write((run.first + (page - first)) * scratch_page, ByteView(old).first(n)));
  }
  const std::uint64_t from = std::max(offset, first * scratch_page);
  const std::uint64_t to = std::min(offset + bytes.size(), (first + run.count) * scratch_page);
  return where.store.write(run.first * scratch_page + (from - first * scratch_page),
                           bytes.subspan(from - offset, to - from));
}

Status ScratchData::write(Where where, std::uint64_t offset, ByteView bytes, const PastPages& past) {
  if (bytes.empty()) return {};
  const std::uint64_t end = offset + bytes.size(), last = pages_to(end);
  for (const std::uint64_t page : partial(offset, end))
    if (!past.contains(page)) return fail(ErrorCode::internal, "page {} is written in part without its past", page);
  const auto taken = where.space.take(pages_to_take(offset, end));
  if (!taken) return fail(ErrorCode::no_space, "the view of the past has no room left");
  struct Fresh {
    std::uint64_t first;
    PageRun run;
  };
  std::vector<Fresh> fresh;
  std::size_t next_run = 0;
  std::uint64_t used_of_run = 0;
  Status done;
  for (std::uint64_t page = page_of(offset); page < last && done;) {
    const auto it = at(page);
    const bool here = it != runs_.end() && it->first <= page;
    if (here && !it->second.hole) {
      const std::uint64_t stop = std::min(it->second.end, last);
      const std::uint64_t from = std::max(offset, page * scratch_page), to = std::min(end, stop * scratch_page);
      done = where.store.write(it->second.store * scratch_page + (from - it->first * scratch_page),
                               bytes.subspan(from - offset, to - from));
      page = stop;
      continue;
    }
    const std::uint64_t stop = here ? it->second.end : it == runs_.end() ? last : it->first;
    const PageRun& source = (*taken)[next_run];
    const PageRun run{source.first + used_of_run, std::min({stop, last}) - page < source.count - used_of_run
                                                      ? std::min(stop, last) - page
                                                      : source.count - used_of_run};
    fresh.push_back({page, run});
    done = write_fresh(where, page, run, offset, bytes, past);
    page += run.count;
    used_of_run += run.count;
    if (used_of_run == source.count) ++next_run, used_of_run = 0;
  }
  if (!done) {
    give(where, *taken);
    return done;
  }
  std::vector<PageRun> none;  // there were only holes
  for (const Fresh& f : fresh) {
    cut(f.first, f.first + f.run.count, none);
    put(f.first, f.first + f.run.count, f.run.first, false);
  }
  return {};
}

// Inside of one page. One that shows nothing of the past and is not in the store is zero as it is.
Status ScratchData::clear_part(Where where, std::uint64_t begin, std::uint64_t end, const PastPages& past) {
  const std::uint64_t page = page_of(begin);
  std::uint64_t in_store = 0;
  if (!stored(page, in_store) && !shows_past(page * scratch_page, (page + 1) * scratch_page)) return {};
  return write(where, begin, ByteView(zeros).first(end - begin), past);
}

Status ScratchData::clear(Where where, std::uint64_t begin, std::uint64_t end, const PastPages& past) {
  if (begin >= end) return {};
  std::uint64_t in_store = 0, needed = 0;
  for (const std::uint64_t page : partial(begin, end)) needed += stored(page, in_store) ? 0 : 1;
  if (needed > where.space.left()) return fail(ErrorCode::no_space, "the view of the past has no room left");
  const std::uint64_t first = pages_to(begin), last = page_of(end);
  if (first > last) return clear_part(where, begin, end, past);
  if (begin < first * scratch_page) HF_TRY(clear_part(where, begin, first * scratch_page, past));
  if (last * scratch_page < end) HF_TRY(clear_part(where, last * scratch_page, end, past));
  std::vector<PageRun> freed;
  cut(first, last, freed);
  give(where, freed);
  if (const std::uint64_t hidden = std::min(last, pages_to(past_end_)); first < hidden) put(first, hidden, 0, true);
  return {};
}

Status ScratchData::truncate(Where where, std::uint64_t size) {
  std::uint64_t in_store = 0;
  if (const std::uint64_t in = size % scratch_page; in != 0 && stored(page_of(size), in_store))
    HF_TRY(where.store.write(in_store * scratch_page + in, ByteView(zeros).first(scratch_page - in)));
  past_end_ = std::min(past_end_, size);
  std::vector<PageRun> freed;
  cut(pages_to(size), std::numeric_limits<std::uint64_t>::max(), freed);
  give(where, freed);
  return {};
}

void ScratchData::drop(Where where) {
  std::vector<PageRun> freed;
  cut(0, std::numeric_limits<std::uint64_t>::max(), freed);
  give(where, freed);
  past_end_ = 0;
}

// The page in which the past ended is all data, as on a disk.
std::uint64_t ScratchData::next_data(std::uint64_t offset, std::uint64_t size) const {
  const std::uint64_t past = pages_to(past_end_) * scratch_page;
  while (offset < size) {
    const auto it = at(page_of(offset));
    const bool here = it != runs_.end() && it->first <= page_of(offset);
    if (here ? !it->second.hole : offset < past) return offset;
    if (it == runs_.end()) return size;
    offset = (here ? it->second.end : it->first) * scratch_page;
  }
  return size;
}

std::uint64_t ScratchData::next_hole(std::uint64_t offset, std::uint64_t size) const {
  const std::uint64_t past = pages_to(past_end_) * scratch_page;
  while (offset < size) {
    const auto it = at(page_of(offset));
    const bool here = it != runs_.end() && it->first <= page_of(offset);
    if (here ? it->second.hole : offset >= past) return offset;
    offset = here ? it->second.end * scratch_page : it == runs_.end() ? past : std::min(past, it->first * scratch_page);
  }
  return size;
}

}  // namespace holdfast::mirror
