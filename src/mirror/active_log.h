// SPDX-License-Identifier: Apache-2.0
// The active's side of the log as capture sees it: the ring, and who has what durably. Any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "mirror/capture_log.h"
#include "mirror/log_ring.h"

namespace holdfast::mirror {

class ActiveLog final : public CaptureLog {
 public:
  ActiveLog(std::size_t ring_bytes, ports::Times& times) : ring_(ring_bytes, times) {}
  LogRing& ring() { return ring_; }
  const LogRing& ring() const { return ring_; }

  // --- CaptureLog
  bool try_reserve_all(std::span<const std::size_t> pieces) override { return ring_.try_reserve_all(pieces); }
  void give_back(std::size_t bytes) override { ring_.give_back(bytes); }
  void when_space(std::function<void()> retry) override { ring_.when_space(std::move(retry)); }
  Sequence append(const log::Record& record, std::size_t reserved_bytes) override;
  Sequence last_sequence() const override { return ring_.last_sequence(); }
  Sequence last_but_times() const override { return Sequence(last_but_times_.load(std::memory_order_acquire)); }
  void when_durable(Sequence sequence, std::function<void()> done) override;
  // In mode async nobody waits for a peer, so small batches may gather company: fewer syncs on the passive, less work on both.
  void hurry() override {
    if (application_waits_.load(std::memory_order_relaxed)) hurry_now();
  }
  void hurry_now() { hurry_to(last_sequence()); }  // for who waits in every mode: marks, hand-over, a joiner
  void moved(SetNumber set, const FileId& file) override;
  HotGate* hot() override { return hot_; }
  void set_hot(HotGate* gate) { hot_ = gate; }  // once, before use

  // --- acknowledgements
  // A new epoch: nobody has anything of it yet; waiters of the old one never hear again.
  void begin_epoch();
  // Only of a peer that holds a whole copy: what an incomplete one has durable is no protection.
  void acknowledged(NodeId peer, Sequence durable);
  void incomplete(NodeId peer);  // what it acknowledged before counts no more
  // Who must have an fsync's changes durably. Waits that begin after this returns, and those under way, follow the new set.
  void set_wait_set(std::set<NodeId> peers);
  std::set<NodeId> wait_set() const;
  // False (mode async): when_durable() is done at once, and the waits under way too. The wait set is kept all the same.
  void set_application_waits(bool waits);
  bool application_waits() const { return application_waits_.load(std::memory_order_relaxed); }
  // As when_durable(), in every mode: `done` when every peer of the wait set holds everything up to `sequence`.
  void when_held(Sequence sequence, std::function<void()> done);
  Sequence acked(NodeId peer) const;

  // Hooks of the senders; set once before use.
  // `f` ships everything up to the sequence at once, if it has not left already.
  void on_hurry(std::function<void(Sequence)> f) { on_hurry_ = std::move(f); }
  void on_moved(std::function<void(SetNumber, const FileId&)> f) { on_moved_ = std::move(f); }
  std::atomic<int>& resyncs() { return resyncs_; }  // how many walkers run: moved() is free when none does

 private:
  Sequence durable_everywhere() const;
  struct Waiter {
    std::function<void()> done;
    bool application = true;  // an fsync; else somebody who needs to know in every mode
  };
  std::vector<std::function<void()>> take_done();
  void wait_for(Sequence sequence, Waiter waiter);
  void hurry_to(Sequence sequence);

  LogRing ring_;
  HotGate* hot_ = nullptr;
  mutable std::mutex mutex_;
  std::set<NodeId> wait_set_;
  std::map<NodeId, Sequence> acked_;
  std::multimap<Sequence, Waiter> waiters_;
  std::atomic<bool> application_waits_{true};  // written under mutex_
  std::atomic<std::uint64_t> last_but_times_{0};
  std::function<void(Sequence)> on_hurry_;
  std::function<void(SetNumber, const FileId&)> on_moved_;
  std::atomic<int> resyncs_{0};
};

}  // namespace holdfast::mirror
