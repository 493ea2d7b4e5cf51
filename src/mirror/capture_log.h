// SPDX-License-Identifier: Apache-2.0
// What capture needs of the log: space first, then append, then (for fsync) durability on the peers. Implemented by the mirror core's
// LogRing/PeerSet; tests and the do-nothing floor use a null one. All calls from any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "base/types.h"
#include "log/record.h"
#include "mirror/hot_gate.h"

namespace holdfast::mirror {

class CaptureLog {
 public:
  virtual ~CaptureLog() = default;

  // R5: what every change passes before anything else. Null: nothing is noted here.
  virtual HotGate* hot() { return nullptr; }

  // R22: space is taken before any inode lock. True: `bytes` (payload + names; overhead is added inside) are yours until append() or
  // give_back(). False: nothing was taken; park the request and try again from `when_space`'s callback.
  bool try_reserve(std::size_t bytes) { return try_reserve_all({&bytes, 1}); }
  // The pieces of one request, for one append each: together or not at all.
  virtual bool try_reserve_all(std::span<const std::size_t> pieces) = 0;
  virtual void give_back(std::size_t bytes) = 0;
  // Calls `retry` once, soon after space was freed; may be called from the thread that frees space, so it must only hand over.
  virtual void when_space(std::function<void()> retry) = 0;

  // Takes the next sequence and copies the record into the ring. Never blocks, never fails; consumes the reservation of `reserved_bytes`.
  // Called under the locks of the inodes the record is about, after the local operation has been done. Epoch, sequence and time are set here.
  virtual Sequence append(const log::Record& record, std::size_t reserved_bytes) = 0;
  virtual Sequence last_sequence() const = 0;
  // The last one that an fdatasync must wait for: all but pure changes of time stamps, which the kernel sends by itself after the data.
  virtual Sequence last_but_times() const = 0;

  // fsync mode: `done` is called (any thread, possibly inline) when every peer of the wait set has everything up to `sequence` durable;
  // at once when there is nothing to wait for, or in mode async. Never called while the wait can't be satisfied (a lost peer must first be removed).
  // What is still here is shipped without lingering.
  virtual void when_durable(Sequence sequence, std::function<void()> done) = 0;
  // A hint: someone will soon wait for what was appended; ship without lingering.
  virtual void hurry() = 0;

  // Resync bookkeeping: an object got another name or place during a resync (rename, link): it must be looked at again.
  virtual void moved(SetNumber set, const FileId& file) = 0;
};

// The lease word as capture sees it. Past the deadline requests block here until the same epoch's lease is extended or the epoch is aborted.
class LeaseGate {
 public:
  virtual ~LeaseGate() = default;
  // True: the lease holds now, answer. False: the epoch is over, answer nothing that says success (EIO).
  virtual bool wait_valid() = 0;
};

}  // namespace holdfast::mirror
