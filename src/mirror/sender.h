// SPDX-License-Identifier: Apache-2.0
// The active's side of one peer: where the peer stands, what it still needs, and the loops that feed it. One object a peer and process; a
// connection is a session in it. Batching is natural: what came while the last batch was being sent is the next one; a small batch lingers
// a moment unless somebody waits for it.
// Threads: of one session, serve() in one and serve_acks() in another; resync_loop() in a third, for as long as the sender lives;
// everything else from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "mirror/active_log.h"
#include "mirror/change_map.h"
#include "mirror/channel.h"
#include "mirror/hot_return.h"
#include "mirror/peer_queue.h"
#include "mirror/resync.h"
#include "mirror/verifier.h"
#include "ports/live_tree.h"
#include "ports/stream.h"
#include "ports/times.h"

namespace holdfast::mirror {

constexpr int heartbeat_ms = 500;  // a peer that hears nothing for some seconds gives the connection up

enum class PeerState { lost, connecting, resync, streaming, synchronized };
const char* to_string(PeerState state);

struct PeerStatus {
  NodeId node;
  std::string name;
  PeerState state = PeerState::lost;
  bool complete = false;  // it holds a whole copy of every set of ours
  Sequence sent, acked, applied;
  std::int64_t recovery_point_ns =
      -1;  // upper bound of the age of the oldest change it does not hold durably; -1: it holds no whole copy
  PeerQueue::Status queue;
  std::int64_t oldest_ns = 0;         // age of the oldest change that it has not acknowledged; 0: none
  ResyncProgress resync;              // the one that runs; else all together that made it whole last
  std::uint64_t resyncs = 0;          // how many were begun, sets counted one by one
  std::uint64_t changed_objects = 0;  // that the map names, about
  std::uint64_t sent_bytes = 0;       // in batches, since this process began
};

class Sender {
 public:
  struct Shared {
    ActiveLog& log;
    ports::LiveTree& live;
    ports::IdBarrier& ids;
    ports::Times& times;
    std::string cluster_id;
    NodeId self;
    std::function<std::set<SetNumber>()> sets;             // protected here
    std::function<void(NodeId, PeerState)> state_changed;  // any thread: must only hand over
    std::function<bool()> may_hold_dirty;                  // does the kernel perhaps hold writes that never reached us?
    std::function<void()> progress;                        // an acknowledgement came
    std::function<void(const Error&)> fault;               // our own disk failed
    int linger_ms = 2;
    std::function<Result<std::unique_ptr<ports::SegmentStore>>(NodeId)> open_spill;  // null: nothing is put aside
    std::uint64_t spill_segment_bytes = log::default_segment_bytes;
    VerifyStore* compared = nullptr;  // what is remembered of comparisons; null: of this process only
    std::function<void(const VerifyStatus&)> verified;
    // Null, or gives null: none; who is given up is resynchronized as a whole.
    std::function<std::shared_ptr<ChangeMap>(NodeId)> change_map;
    std::uint32_t features = 0;                        // of the channel, that this node names
    std::function<Epoch()> dial_epoch;                 // for which peers may be begun anew now; null: for any
    std::function<std::optional<LedFrom>()> led_from;  // of this node, in the present epoch; null: not known
    IdsOfBlock ids_of_block;                           // needed with feature_hot_return
    std::function<void(const Returned&)> returned;     // may be null; must only hand over
    MemberLimits* limits = nullptr;                    // null: nothing is said of them, nor heard
  };
  Sender(Shared shared, NodeId peer, std::string name);

  // Hello, welcome, start. ErrorCode::refused: the peer says no (text), or it is not who it should be.
  Status open(ports::ByteStream& stream, Epoch epoch);
  Status serve(ports::ByteStream& stream);       // until an error or end_session()
  Status serve_acks(ports::ByteStream& stream);  // until an error
  void close();                                  // after both have returned
  void end_session();                            // wakes serve()
  void
  end_epoch();  // what is kept and shipped for the peer is of no use any more; waits for nothing (see cancel_resync)

  void resync_loop();                         // returns after stop()
  Verifier& verifier() { return verifier_; }  // its loop() has a thread of its own, which ends after stop()
  void stop();
  void set_added(SetNumber set);  // newly protected: the peer needs a first copy of it
  // No longer protected: nothing more is said of it to the peer when it returns.
  void set_removed(SetNumber set);
  void hurry(Sequence to);  // ships what is not on its way yet, up to there and what came after
  void moved(SetNumber set, const FileId& id);
  void cancel_resync();                               // and no new one begins in this epoch; returns when none runs
  void pushed(Sequence mark, std::int64_t began_ns);  // a push round is complete in the log at `mark` (R10)
  // Nothing acknowledged in it yet. `left`: the epoch that this node led before ended uncleanly, and this is what may differ since.
  void epoch_began(std::shared_ptr<const HotLeft> left = nullptr);
  void begin_queue(Position base);  // of the epoch that has been opened there
  PeerQueue& queue() { return queue_; }
  PeerStatus status() const;
  NodeId peer() const { return peer_; }
  std::uint64_t epochs() const { return epochs_; }  // how often one began or ended here
  // The peer has made durable, and applied, everything up to `sequence`.
  bool holds(Sequence sequence) const;
  // Whatever becomes of this node, what it did up to `sequence` is not missed at the peer: it holds a whole copy, and that durably.
  bool covers(Sequence sequence) const;
  bool is_away() const;  // not connected

 private:
  struct Need {
    SetNumber set;
    bool empty;
    bool partial = false;  // it was whole when it fell behind: what changed is enough
  };
  // A session in its beginning. `epochs`: the count of them when it said hello.
  struct Visit {
    const Welcome& welcome;
    ports::ByteStream& stream;
    std::uint64_t epochs;
  };
  Result<std::optional<Returned>> find_place(const Visit& visit, Start& start);
  void trust_only_whole(const Welcome& welcome);
  Result<bool> find_in_map(const Visit& visit, Start& start, PeerQueue::Source source);
  std::optional<Position> find_base(const Welcome& welcome, PeerQueue::Source source,
                                    std::optional<Position> asked = {});
  void begin_partial(const Welcome& welcome, Position base, const std::set<SetNumber>* sets, bool after_death);
  // sender_return.cc
  Status read_listed(FrameReader& reader, Welcome& welcome);
  Result<tl::expected<Reconciled, std::string>> note_for(const Visit& visit,
                                                         const std::vector<ports::ChangeEntry>& entries);
  Result<bool> find_by_list(const Visit& visit, Start& start, Returned& returned);
  Result<bool> note_own_left(const Visit& visit, const std::shared_ptr<const HotLeft>& left);
  void say_returned(const Returned& returned);
  void find_needs(const Welcome& welcome, const Start& start);
  void drop_resync();
  bool map_suffices(const Need& need);
  std::shared_ptr<Resync> next_resync();
  bool wait_for_need(Need& need, std::uint64_t& asked);
  void add_up(const ResyncProgress& progress);
  void keep_doubts(const Resync& resync);
  void partial_ends();
  Status send_batch(ports::ByteStream& stream, Bytes& records);
  void on_ack(const Ack& ack);
  Status say_limits(ports::ByteStream& stream, std::uint64_t& said);
  void update_state();
  std::int64_t recovery_point() const;

  Shared shared_;
  const NodeId peer_;
  const std::string name_;
  const std::shared_ptr<ChangeMap> map_;  // or none
  PeerQueue queue_;

  // Held while a session finds its place: what is said and noted then is of one epoch. Taken before mutex_.
  std::mutex place_mutex_;
  std::atomic<std::uint64_t> epochs_{0};  // counts where they begin and end here

  mutable std::mutex mutex_;
  std::condition_variable resync_work_;
  Sequence sent_, acked_, applied_;
  Sequence caught_up_at_;  // what it must have acknowledged and applied to be synchronized
  Sequence
      counts_from_;  // what it must have applied before its acknowledgements protect anything: the end of its resync
  std::deque<std::pair<Sequence, std::int64_t>> rounds_;  // push rounds not acknowledged yet: mark, begin (steady)
  std::int64_t last_round_ns_ = 0;
  bool rounds_used_ = false;
  bool connected_ = false, connecting_ = false, ending_ = false, stopped_ = false, resync_barred_ = false;
  std::deque<Need> needs_;
  std::uint64_t needs_found_ = 0;   // counts how often they were, or were dropped
  std::shared_ptr<Resync> resync_;  // of needs_.front(), whether the peer is connected or not
  bool resync_counts_ = false;      // false: the peer is another one by now, or the epoch is over: it comes to nothing
  // From the moment the peer is told to restart with what the map names (start 2), until it is whole. While it lasts, all that is taken from the
  // queue is noted too: whatever comes between, the map goes on naming all that may differ.
  struct Partial {
    std::set<SetNumber> sets;  // that were whole until then; the others are compared as a whole
    std::set<SetNumber>
        whole;            // those that it said so of when it was told; the others are behind since an earlier start 2
    Position from, base;  // where the peer stood, and where its log begins anew
    bool after_death =
        false;  // of the peer, or of this node: what else may be wrong with the disk then, the scrub is to see soon
  };
  std::optional<Partial> partial_;
  std::shared_ptr<const HotLeft> left_;  // not in the map yet
  bool flush_failed_ = false;            // said once
  std::uint64_t resyncs_ = 0, sent_bytes_ = 0;
  ResyncProgress last_resync_;  // all of them since it was whole last
  bool whole_since_ = true;     // the next one begins a new sum
  // What was shipped to the end in this life of the peer: it is whole when it has applied that.
  std::map<SetNumber, Sequence> shipped_;
  std::uint64_t life_ = 0;  // of the peer's process, in the last session
  PeerState reported_ = PeerState::lost;
  bool complete_ = false;
  std::uint8_t highest_kind_ = 0;  // that the peer knows
  VerifyStore forgetful_{nullptr};
  Verifier verifier_;          // called without mutex_
  std::uint64_t session_ = 0;  // counts connections
};

}  // namespace holdfast::mirror
