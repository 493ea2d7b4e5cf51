// SPDX-License-Identifier: Apache-2.0
// The change set of one peer: filled in memory under the peer's queue (ChangeSink), moved to the disk by somebody who may wait, read by a partial
// resynchronization (changed_walk.h). It holds a union: what was named stays named until the peer has everything.
// More keys, or more memory, than make sense: it overflows, and the peer is compared as a whole.
// Threads: fold and forget under the queue's mutex (memory only); everything else from any, and may wait for the disk.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mirror/change_set.h"
#include "mirror/change_sink.h"
#include "ports/change_store.h"

namespace holdfast::mirror {

constexpr std::size_t change_map_flush_bytes = std::size_t{64} << 20;    // in memory: then to the disk
constexpr std::size_t change_map_memory_bytes = std::size_t{256} << 20;  // in memory: then too much
constexpr std::uint64_t change_map_objects = 4'000'000;                  // keys on disk: then too much

class ChangeMap final : public ChangeSink {
 public:
  ChangeMap(std::unique_ptr<ports::ChangeStore> store, std::string peer)
      : store_(std::move(store)), peer_(std::move(peer)) {}

  void fold(ByteView records) override;
  void forget() override;

  // While the peer is being brought up to date by the map, until forget(): what it is asked to name, it may not have (ChangeSet::fold).
  void begin_partial();

  // What is in memory is on disk, durable, when it returns. ErrorCode::no_space: it stays in memory. In pieces, `between` which it may be ended: then
  // it stays in memory too.
  Status flush(const std::function<Status()>& between = {});
  bool wants_flush() const;
  // Adds these, durably: what the peer may have changed, or lost, by itself.
  Status note(const ChangeSet& changes, const std::function<Status()>& between = {});
  bool may_lack_anything() const;  // since then: it may lack objects that are not named
  // All of the object: the peer asked for it, or may have. In memory.
  void note_object(SetNumber set, const FileId& id);
  void note_place(SetNumber set, const FileId& folder);  // the folder may have been taken from its place
  // Compare the whole set instead: it overflowed, or was noted so. Once asked it is answered from what was flushed.
  Result<bool> is_whole(SetNumber set);
  bool overflowed() const;
  void give_up(const Error& why);  // it can't be kept: compare everything instead
  // Is it known that the object may differ?
  Result<bool> names(SetNumber set, const FileId& id);
  // What is flushed of an object: all that a walk which began after the flush ships of it.
  Result<std::optional<ObjectChange>> flushed(SetNumber set, const FileId& id);
  // Flushed entries of one kind and set with keys after `after` (empty: from the first).
  Result<std::vector<ChangeEntry>> scan(ChangeKind kind, SetNumber set, const Bytes& after, std::size_t count);
  Result<std::uint64_t> size();  // keys, memory and disk; about
  std::uint64_t about() const;   // the same, without waiting for the disk

 private:
  Status clear_held();
  void overflow_locked(std::string_view why);

  const std::unique_ptr<ports::ChangeStore> store_;
  const std::string peer_;
  std::mutex store_mutex_;    // one writer of the store; taken before mutex_
  mutable std::mutex mutex_;  // everything below
  ChangeSet memory_, flushing_;
  std::uint64_t stored_ = 0;  // keys on disk, when last looked
  bool clear_ = true;  // what is on disk is of before the last forget() (or of another life): goes with the next flush
  bool overflowed_ = false, partial_ = false, noted_ = false;
};

}  // namespace holdfast::mirror
