// SPDX-License-Identifier: Apache-2.0
#include "mirror/changed_walk.h"

#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::size_t keys_at_once = 512;

}  // namespace

// All that was folded, up to and beyond resync_begin, is looked at from here on.
Result<std::uint64_t> ChangedWalk::begin() {
  HF_TRY(map_.flush());
  if (map_.overflowed()) return fail(ErrorCode::unavailable, "too much has changed to be named");
  return map_.size();
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
  const ChangeKind kind = phase_ == Phase::objects ? ChangeKind::object : ChangeKind::name;
  HF_ASSIGN(const auto entries, map_.scan(kind, set_, after_, keys_at_once));
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

// Noted first: should this resynchronization be broken off, the next one ships it again.
Status ChangedWalk::again(const Nak& nak) {
  HF_ASSIGN(const bool named, map_.names(set_, nak.file));
  if (!named)
    log_warning("peer {}: set {}: it lacks the object {}, which is not among those that changed", peer_, set_,
                nak.file.to_hex());
  HF_ASSIGN(const auto planned, map_.flushed(set_, nak.file));
  const bool comes_whole =
      planned && !gone_.contains(nak.file) && planned->extents == std::vector<Extent>{{0, end_of_file}};
  if (comes_whole && nak.offset == nak_contents) return {};
  map_.note_object(set_, nak.file);
  ShipJob job;
  job.id = nak.file;
  job.listing = true;
  job.unless_file = comes_whole;
  job.extents = {{0, end_of_file}};
  asked_.push_back(job);
  if (nak.offset != nak_with_parent) return {};
  map_.note_place(set_, nak.file);
  job.what = ShipJob::What::parent;
  asked_.push_back(std::move(job));
  return {};
}

}  // namespace holdfast::mirror
