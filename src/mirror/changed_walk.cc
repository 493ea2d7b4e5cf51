// SPDX-License-Identifier: Apache-2.0
#include "mirror/changed_walk.h"

#include <algorithm>

#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::size_t keys_at_once = 512;

}  // namespace

// A set that can't be read is none: the peer is compared as a whole, by the next resynchronization.
Status ChangedWalk::given_up(const Error& why) {
  map_.give_up(why);
  return fail(ErrorCode::unavailable, "what changed can't be named any more");
}

// All that was folded, up to and beyond resync_begin, is looked at from here on.
Result<std::uint64_t> ChangedWalk::begin() {
  if (Status flushed = map_.flush(); !flushed) return tl::unexpected(given_up(flushed.error()).error());
  const auto size = map_.size();
  if (!size) return tl::unexpected(given_up(size.error()).error());
  if (map_.overflowed()) return fail(ErrorCode::unavailable, "too much has changed to be named");
  return *size;
}

Result<std::optional<ShipJob>> ChangedWalk::next() {
  for (;;) {
    std::deque<ShipJob>& from = asked_.empty() ? ready_ : asked_;
    if (!from.empty()) {
      ShipJob job = std::move(from.front());
      from.pop_front();
      return std::optional(std::move(job));
    }
    if (phase_ == Phase::done) return std::optional<ShipJob>{};
    HF_TRY(fill());
  }
}

// The next jobs of the phase, or the next phase.
Status ChangedWalk::fill() {
  if (phase_ == Phase::listings) {
    for (const FileId& id : listings_) {
      ShipJob job;
      job.id = id;
      job.listing = true;
      ready_.push_back(std::move(job));
    }
    for (const FileId& id : places_) {
      ShipJob job;
      job.what = ShipJob::What::parent;
      job.id = id;
      ready_.push_back(std::move(job));
    }
    phase_ = Phase::done;
    return {};
  }
  Status read = read_keys(phase_ == Phase::objects ? ChangeKind::object : ChangeKind::name);
  return read ? read : given_up(read.error());
}

Status ChangedWalk::read_keys(ChangeKind kind) {
  HF_ASSIGN(const auto entries, map_.scan(kind, set_, after_, keys_at_once));
  // Asked after the scan: one that overflows forgets its keys, and only then they go from the disk.
  if (map_.overflowed()) return fail(ErrorCode::unavailable, "too much has changed to be named");
  if (entries.empty()) {
    phase_ = static_cast<Phase>(static_cast<int>(phase_) + 1);
    after_.clear();
    return {};
  }
  after_ = entries.back().key;
  for (const ChangeEntry& e : entries) {
    HF_ASSIGN(ChangeKey key, decode_change_key(e.key));
    ShipJob job;
    job.id = key.id;
    if (kind == ChangeKind::object) {
      HF_ASSIGN(ObjectChange change, decode_object_change(e.value));
      job.content = change.by_hash ? ShipJob::Content::hashes : ShipJob::Content::bytes;
      job.extents = std::move(change.extents);
      // One that was made since has no names but those that are changes too.
      job.names_follow = change.listing || job.extents == std::vector<Extent>{{0, end_of_file}};
      if (change.listing) listings_.push_back(key.id);
      if (change.place) places_.push_back(key.id);
    } else {
      job.what = phase_ == Phase::names_gone ? ShipJob::What::name_gone : ShipJob::What::name_there;
      job.name = std::move(key.name);
    }
    ready_.push_back(std::move(job));
  }
  return {};
}

// Its job was not begun yet. One that was may have shipped, before the question, bytes that the question is about: a range that was collapsed since.
bool ChangedWalk::turn_is_to_come(const FileId& id) const {
  if (phase_ != Phase::objects) return false;
  return change_object_key(set_, id) > after_ ||
         std::any_of(ready_.begin(), ready_.end(), [&](const ShipJob& job) { return job.id == id; });
}

// Is the whole object in the plan, and has it still to be shipped?
Result<bool> ChangedWalk::comes_whole(const FileId& id) {
  HF_ASSIGN(const bool named, map_.names(set_, id));
  if (!named && !map_.may_lack_anything())
    log_warning("peer {}: set {}: it lacks the object {}, which is not among those that changed", peer_, set_,
                id.to_hex());
  HF_ASSIGN(const auto planned, map_.flushed(set_, id));
  return planned && turn_is_to_come(id) && !gone_.contains(id) &&
         planned->extents == std::vector<Extent>{{0, end_of_file}};
}

// Noted first: should this resynchronization be broken off, the next one ships it again.
Status ChangedWalk::again(const Nak& nak) {
  const auto whole = comes_whole(nak.file);
  if (!whole) return given_up(whole.error());
  if (*whole && nak.offset == nak_contents) return {};
  map_.note_object(set_, nak.file);
  ShipJob job;
  job.id = nak.file;
  job.listing = true;
  job.unless_file = *whole;
  job.extents = {{0, end_of_file}};
  asked_.push_back(job);
  if (nak.offset != nak_with_parent) return {};
  map_.note_place(set_, nak.file);
  job.what = ShipJob::What::parent;
  asked_.push_back(std::move(job));
  return {};
}

}  // namespace holdfast::mirror
