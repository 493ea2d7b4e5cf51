// SPDX-License-Identifier: Apache-2.0
#include "mirror/change_map.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "log/record_codec.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint8_t header_version = 1;
constexpr std::size_t flushed_at_once = 65536;  // keys: a part of a second on a slow disk

Bytes header(bool overflowed) {
  Bytes out;
  ByteWriter w(out);
  w.u8(header_version);
  w.u8(overflowed ? 1 : 0);
  return out;
}

}  // namespace

void ChangeMap::fold(ByteView records) {
  const std::lock_guard lock(mutex_);
  if (overflowed_) return;
  for (ByteView rest = records; !rest.empty();) {
    const log::RecordHead head = log::head_of(rest.data());
    const auto record = log::decode(rest.first(head.length));
    CHECK(record, "our own log can't be read: {}", record.error().message);
    memory_.fold(*record, partial_);
    rest = rest.subspan(head.length);
  }
  if (memory_.memory_bytes() > change_map_memory_bytes) overflow_locked("more memory than it may take");
}

void ChangeMap::forget() {
  const std::lock_guard lock(mutex_);
  memory_.clear();
  clear_ = true;
  overflowed_ = partial_ = noted_ = false;
}

void ChangeMap::begin_partial() {
  const std::lock_guard lock(mutex_);
  partial_ = true;
}

void ChangeMap::overflow_locked(std::string_view why) {
  log_warning("peer {}: what changed since it was last here is not kept any more ({}): it will be compared as a whole",
              peer_, why);
  memory_.clear();
  clear_ = overflowed_ = true;
}

void ChangeMap::give_up(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (!overflowed_) overflow_locked(why.to_string());
}

bool ChangeMap::wants_flush() const {
  const std::lock_guard lock(mutex_);
  return memory_.memory_bytes() > change_map_flush_bytes;
}

bool ChangeMap::overflowed() const {
  const std::lock_guard lock(mutex_);
  return overflowed_;
}

Status ChangeMap::clear_held() {
  {
    const std::lock_guard lock(mutex_);
    if (!clear_) return {};
  }
  HF_TRY(store_->clear(header(overflowed())));
  const std::lock_guard lock(mutex_);
  clear_ = false;
  return {};
}

Status ChangeMap::flush(const std::function<Status()>& between) {
  const std::lock_guard one(store_mutex_);
  HF_TRY(clear_held());
  std::vector<ChangeEntry> entries;
  {
    const std::lock_guard lock(mutex_);
    if (memory_.empty()) return {};
    std::swap(memory_, flushing_);
    entries = flushing_.encode();
  }
  Status merged;
  for (std::size_t at = 0; merged && at < entries.size();) {
    const auto from = entries.begin() + static_cast<std::ptrdiff_t>(at);
    at = std::min(at + flushed_at_once, entries.size());
    const std::vector<ChangeEntry> piece(std::make_move_iterator(from),
                                         std::make_move_iterator(entries.begin() + static_cast<std::ptrdiff_t>(at)));
    merged = store_->merge(piece, ChangeSet::combine, header(false));
    if (merged && between) merged = between();
  }
  std::uint64_t keys = 0;
  if (merged) {
    HF_ASSIGN(keys, store_->size());
  }
  const std::lock_guard lock(mutex_);
  if (!merged && !clear_) memory_.merge(flushing_);
  flushing_.clear();
  if (merged) stored_ = keys;
  if (keys > change_map_objects) overflow_locked("millions of objects");
  return merged;
}

Status ChangeMap::note(const ChangeSet& changes, const std::function<Status()>& between) {
  {
    const std::lock_guard lock(mutex_);
    noted_ = true;
    memory_.merge(changes);
  }
  return flush(between);
}

bool ChangeMap::may_lack_anything() const {
  const std::lock_guard lock(mutex_);
  return noted_;
}

void ChangeMap::note_object(SetNumber set, const FileId& id) {
  const std::lock_guard lock(mutex_);
  if (overflowed_) return;
  memory_.note_file(set, id);
  memory_.note_folder(set, id);
}

void ChangeMap::note_place(SetNumber set, const FileId& folder) {
  const std::lock_guard lock(mutex_);
  if (!overflowed_) memory_.object(set, folder).place = true;
}

Result<bool> ChangeMap::is_whole(SetNumber set) {
  HF_TRY(flush());
  if (overflowed()) return true;
  return store_->contains(change_key_prefix(ChangeKind::set, set));
}

Result<bool> ChangeMap::names(SetNumber set, const FileId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (memory_.find(set, id) || flushing_.find(set, id)) return true;
    if (clear_) return false;
  }
  return store_->contains(change_object_key(set, id));
}

Result<std::optional<ObjectChange>> ChangeMap::flushed(SetNumber set, const FileId& id) {
  const Bytes key = change_object_key(set, id);
  Bytes before = key;  // scan() begins after a key
  before.pop_back();
  HF_ASSIGN(const auto found, store_->scan(before, 256));
  for (const ChangeEntry& e : found) {
    if (e.key != key) continue;
    HF_ASSIGN(ObjectChange change, decode_object_change(e.value));
    return std::optional(std::move(change));
  }
  return std::optional<ObjectChange>{};
}

Result<std::vector<ChangeEntry>> ChangeMap::scan(ChangeKind kind, SetNumber set, const Bytes& after,
                                                 std::size_t count) {
  const Bytes prefix = change_key_prefix(kind, set);
  HF_ASSIGN(auto found, store_->scan(after.empty() ? prefix : after, count));
  const auto other = std::find_if(found.begin(), found.end(), [&](const ChangeEntry& e) {
    return e.key.size() < prefix.size() || !std::equal(prefix.begin(), prefix.end(), e.key.begin());
  });
  found.erase(other, found.end());
  return found;
}

std::uint64_t ChangeMap::about() const {
  const std::lock_guard lock(mutex_);
  return memory_.size() + flushing_.size() + (clear_ ? 0 : stored_);
}

Result<std::uint64_t> ChangeMap::size() {
  std::uint64_t keys = 0;
  bool stored = false;
  {
    const std::lock_guard lock(mutex_);
    keys = memory_.size() + flushing_.size();
    stored = !clear_;
  }
  if (stored) {
    HF_ASSIGN(const std::uint64_t on_disk, store_->size());
    keys += on_disk;
  }
  return keys;
}

}  // namespace holdfast::mirror
