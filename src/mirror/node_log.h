// SPDX-License-Identifier: Apache-2.0
// The data plane of one node, as its process wires it: the log as active (ring, peers) and as passive (receive log, apply), and the passage
// between the two. Nothing here touches the operating system: platform/mirror_runtime.h has the threads, the connections and the timer.
//
//             follow(e, a)                    promote(e')                     end_epoch + step_down
//   idle ------------------> passive ---------------------------> active ---------------------------> passive (clean)
//                               ^                                    | abort, seal(higher), death
//                               +---------- follow(e', a) ------- fenced (unclean: its tree may hold what nobody else has)
//
// An unclean tree is resynchronized when it returns as passive. A fenced node that wins again is promoted from where it stands.
// Threads: every method from any thread, unless it says otherwise. Errors of the node's own disk are final: `fault` is called once, then
// everything refuses (I7).
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "log/segment_log.h"
#include "mirror/active_log.h"
#include "mirror/applier.h"
#include "mirror/hot_set.h"
#include "mirror/member_limits.h"
#include "mirror/node_state.h"
#include "mirror/past_view.h"
#include "mirror/receiver.h"
#include "mirror/rewind.h"
#include "mirror/sender.h"
#include "mirror/shadows.h"
#include "mirror/undo.h"
#include "mirror/undo_journal.h"
#include "ports/durable_cell.h"
#include "ports/live_tree.h"
#include "ports/segments.h"
#include "ports/times.h"

namespace holdfast::mirror {

enum class Role { idle, passive, active, fenced };
const char* to_string(Role role);

constexpr std::uint64_t default_send_limit_bytes = std::uint64_t{4} << 30;

struct NodeLogConfig {
  std::string cluster_id;
  NodeId node;
  std::string node_name;  // for names of automatic shadows
  std::size_t ring_bytes = default_ring_bytes;
  std::uint64_t segment_bytes = log::default_segment_bytes;
  std::uint64_t receive_limit_bytes = default_receive_limit_bytes;
  int linger_ms = 2;  // how long a small batch waits for company when nobody waits for it
  std::int64_t checkpoint_ms = 5000;
  std::uint64_t life = 0;                                     // random, anew with each process
  std::uint64_t send_limit_bytes = default_send_limit_bytes;  // of each peer's queue on disk; 0: none
  HotSetOptions hot;
  std::int64_t hot_generation_ns = 120'000'000'000;
  std::uint32_t features = 0;  // of the channel, that this node names to its peers
};

struct NodeLogPorts {
  ports::SegmentStore& segments;
  ports::DurableCell& state;
  ports::Times& times;
  ports::LiveTree& live;
  ports::IdBarrier& ids;
  UndoWriter& undo;
  UndoJournal* journal = nullptr;  // the same as `undo`, where there is a history; null: NoUndo
  std::function<Result<std::unique_ptr<ports::SegmentStore>>(NodeId)>
      open_spill;                         // a peer's queue on disk, empty; null: none
  ports::DurableCell* shadows = nullptr;  // null: they end with the process
  ports::SegmentFile* hot = nullptr;  // of hot_file_bytes(); null: nothing is noted, and who led is compared as a whole
  std::function<Result<FileId>()> unused_block;  // as HotSetPorts; needed with `hot`
  IdsOfBlock ids_of_block;                       // needed with feature_hot_return
  ports::DurableCell* compared =
      nullptr;  // where the scrub stands (mirror/verify_store.h); null: forgotten with the process
  ports::ChangeStores* changes = nullptr;  // what changed while a peer's queue was given up; null: it is not noted
  // That this node is the active and has changed something: noted about once a second, outlives the process, need not be durable at once. Asked:
  // when that was noted last (wall clock; its last change came then, or a little later); 0: not known. Null: never known.
  std::function<void()> note_active;
  std::function<std::int64_t()> last_active_ns;
  ports::DurableCell* limits = nullptr;  // what other nodes' file systems can hold; null: forgotten with the process
};

// A disk that is full: the node waits for room and goes on by itself. Or, in `send`, a peer's queue that was given up, for want of room or for a bound.
struct Shortage {
  enum class Where { receive, folder, history, send } where = Where::receive;
  NodeId peer;       // send: whose
  std::string text;  // what the disk said, or which bound it was; may be empty
  bool operator==(const Shortage& other) const { return where == other.where && peer == other.peer; }
};
const char* to_string(Shortage::Where where);

struct NodeLogEvents {  // from any thread; must only hand over
  std::function<void(const Error&)> fault;
  std::function<void(NodeId, PeerState)> peer_state;
  std::function<void(const Shadow&, const std::string& why)> shadow_dropped;
  std::function<bool()>
      may_hold_dirty;  // asked, not told: may the kernel hold writes that have not reached the mirror (files open for write)?
  std::function<void(const Shortage&, bool full)> space;  // from tick(): once when it begins, and when it ends
  std::function<void(const VerifyStatus&)> verified;      // a comparison ended
  std::function<void(const Returned&)> returned;          // a peer that led and did not hand over came back
  // Something else stands in the set's folder than was remembered (mirror/tree_marks.h).
  std::function<void(SetNumber, const std::string& why)> doubted;
  // Older points were given up, for a reason that is neither their age nor the history's size: from tick(), not twice within an hour for the same.
  std::function<void(const std::string& why, std::int64_t oldest_time_ns)> history_shortened;
};

struct SealReply {
  Position position;
  bool complete = false;  // every set is whole
  bool clean = true;
  // Where it was asked for: not complete, and the way back to the last consistent point was looked through and is open.
  bool fallback = false;
  std::string no_fallback;  // why it is not
};
struct PromoteOptions {
  // This node's trees are declared the truth as they are: the first active of a new cluster, an administrator's word.
  bool as_origin = false;
  // In mid-resync the node goes back to where the resynchronization began, its last consistent point; sets of which it never had a copy are
  // empty. What others were acknowledged since is given up: an administrator's word too.
  bool allow_older = false;
  // Goes back to the start of this batch of the undo history first. `plan`: who asked; the same may go on with what it began.
  std::uint64_t to_batch = 0;
  std::string plan;
  // Asked before anything is touched, and before the epoch opens: does nobody want it any more?
  std::function<bool()> given_up;
  // Peers stay as they are until let_peers_in(): while the cluster still counts on their copies, none of them may be begun anew for this epoch.
  bool hold_peers = false;
};
struct Promotion {
  Position base;                       // the last record of the history that was taken over
  std::int64_t recovered_time_ns = 0;  // when the active made that record (its wall clock); 0: not known
  std::optional<WentBack> went_back;
};
struct ReceiveStatus {
  NodeId from;  // 0: not connected
  Sequence logged, applied;
  std::uint64_t queue_bytes = 0;  // logged, not yet applied
  std::uint64_t limit_bytes = 0;  // of that: then the active is held up
  std::int64_t queue_age_ns = 0;  // upper bound of the age of the oldest
  bool complete = false, clean = true, resyncing = false;
  // In mid-resync: where this node can be promoted by force.
  std::optional<PastState> point;
  std::int64_t point_time_ns = 0;
  // All other sets are whole, and of these it never had a copy: promoted by force, they are empty.
  std::set<SetNumber> first_copies;
  // Promoted by force, these are what stands in their folders, whatever that is (mirror/tree_marks.h).
  std::set<SetNumber> doubted;
  bool leads_as_it_is = false;  // without a point: by force it can be promoted where it stands
  bool rewinding = false;       // the trees are on their way back; nothing else is done before they have arrived
  bool waits_for_space = false;
  std::uint64_t grave_bytes = 0;  // deleted objects that the history keeps
  std::size_t doomed_graves = 0;  // and that it does not need any more: they go by and by, in any role
  std::size_t graves_aside = 0;   // of these could not go, and are tried again in minutes
  std::string why_aside;          // one of them
};
struct NodeLogStatus {
  Role role = Role::idle;
  Epoch epoch, sealed;
  Position position;
  std::vector<SetNumber> sets;
  std::size_t ring_bytes = 0, ring_used_bytes = 0;
  std::vector<PeerStatus> peers;  // as active
  ReceiveStatus receive;          // as passive
  std::optional<WentBack> went_back;
  std::optional<HotStatus> hot;  // none: nothing is noted here
  std::string fault;             // empty: none
  std::vector<Shortage> shortages;
};

class NodeLog {
 public:
  // Recovers. ErrorCode::corrupt: the log is damaged; the message says where and what to do.
  static Result<std::unique_ptr<NodeLog>> open(NodeLogConfig config, NodeLogPorts ports, NodeLogEvents events);
  ~NodeLog();

  // --- configuration, live
  // `protected_in`: the epoch whose active was told to protect it; 0: not known. Should this node have led that epoch, and not handed over, it is
  // here that the set's content is, even if it was not taken any more before this node's end.
  Status add_set(std::shared_ptr<ports::Tree> tree, Epoch protected_in = Epoch(0));
  // For good: what the log holds of it is skipped. Also for a set that was never here: this node may have been down, or no member yet, while it
  // was protected, and the log waits for a set that it does not know.
  Status remove_set(SetNumber set);
  void set_peers(const std::vector<std::pair<NodeId, std::string>>& peers);
  // Of each peer's queue on disk (0: none), and of the receive log.
  void set_queue_limits(std::uint64_t send_bytes, std::uint64_t receive_bytes);

  // Undo history from now on, or none: at once, or by tick() as soon as nobody needs what there is to go back.
  void set_history(bool on);

  // --- role changes
  // R1; an active is fenced by it. `look_back`: somebody may want to promote this node at its consistent point: can it be reached? Reads the
  // history from there on.
  Result<SealReply> seal(Epoch epoch, bool look_back = false);
  Status follow(Epoch epoch, NodeId active);
  // Drains the receive log, then opens the epoch. Refused, before anything is touched, while a set is not complete, unless the options say
  // otherwise. An error after the way back began leaves the node at its end, not complete, with a consistent point there.
  Result<Promotion> promote(Epoch epoch, const PromoteOptions& options);
  Result<Promotion> promote(Epoch epoch, bool as_origin = false, bool allow_older = false) {
    return promote(epoch, PromoteOptions{as_origin, allow_older, 0, {}, {}, false});
  }
  // As passive: the trees become what they were at the start of this batch of the undo history, and the log begins anew there. Refused, before
  // anything is touched, when the history does not reach so far or the reversal can't be written. `irreversible`: without a way back.
  Result<Position> rewind(std::uint64_t batch, bool irreversible);
  // What rewind() would refuse, without touching anything.
  Result<RewindPlan> look_back(std::uint64_t batch);
  // The trees as they were then, to be read while everything goes on. Gone before this is.
  Result<std::unique_ptr<PastView>> look(std::uint64_t batch);
  // Nothing from the batch on is given up until then (steady_ns); 0: it is not held any more.
  void hold_for_plan(std::uint64_t batch, std::int64_t until_ns);
  // --- shadows
  struct Mark {
    Position position;
    std::int64_t time_ns = 0;
  };
  Result<Mark> mark_shadow(const Shadow& shadow);  // as active: every passive enters it where it stands in the log
  Result<Shadow> shadow_here(Shadow shadow);       // as anything else: where the trees stand now
  Result<Shadow> keep_shadow(std::string_view name, bool keep);
  Status delete_shadow(std::string_view name);
  const Shadows& shadows() const { return shadows_; }
  // Nothing may be appended after it: unmount first. From here on seal, follow and promote step down by themselves.
  Result<Position> end_epoch();
  // False: not within `timeout_ms`.
  Result<bool> wait_handed_over(NodeId successor, Position end, int timeout_ms);
  Status step_down(Position end);  // after the hand-over: a clean passive
  void abort();                    // fence: active -> fenced

  // --- this process ends, and the next one on this machine goes on with the epoch (node_resume.cc)
  struct Handed {
    Epoch epoch;
    Position end;
    std::set<NodeId> waits;  // the wait set
  };
  // As active, when nothing is captured any more: every connected peer, and all of the wait set, hold everything. From then on nothing is kept of
  // what is appended. Nothing durable changes: a next process that does not resume finds an epoch that ended uncleanly. Busy: not in that time, and
  // nothing happened but that no copy goes on in this epoch.
  Result<Handed> hand_on(int timeout_ms);
  // In that next process, with all sets there and all peers set, before anything is captured. The trees are as hand_on() left them. Who is away is
  // compared as a whole when it returns.
  Status resume(const Handed& handed);
  // What this node as active must refuse of the set, for the others can't hold it. The same object while the set is here.
  std::shared_ptr<const LiveLimits> limits_of(SetNumber set) { return limits_.of(set); }

  // --- as active
  CaptureLog& capture_log() { return active_; }
  void set_wait_set(std::set<NodeId> peers) { active_.set_wait_set(std::move(peers)); }
  // A majority has recorded that in this epoch only this node counts (PromoteOptions::hold_peers).
  void let_peers_in(Epoch epoch);
  // Mode fsync: fsyncs wait for the wait set; mode async: nothing of the application does.
  void set_application_waits(bool waits) { active_.set_application_waits(waits); }
  // `done` when every peer of the wait set holds everything up to `sequence`, in both modes.
  void when_held(Sequence sequence, std::function<void()> done) { active_.when_held(sequence, std::move(done)); }
  std::set<NodeId> wait_set() const { return active_.wait_set(); }
  // A push round that began at `began_ns` (Times::steady_ns) is complete: everything written before it is in the log (R10). Before the first
  // one recovery points are those of the log alone.
  void mark_consistent(std::int64_t began_ns);

  // --- comparing (node_verify.cc), as active
  // Every connected peer that holds a whole copy is compared, in the background. ErrorCode::refused: this node is not active, or there is no
  // such peer; busy: one is under way.
  Status verify(const VerifyRequest& request);
  void verify_stop();
  void set_scrub(ScrubSettings settings);  // in any role
  ScrubSettings scrub() const;
  std::vector<VerifyStatus> verify_status() const;

  NodeLogStatus status() const;

  // --- for the threads of the runtime
  std::vector<std::shared_ptr<Sender>> senders() const;
  Receiver& receiver() { return receiver_; }
  Epoch active_epoch() const;                                 // 0: not active
  Epoch dial_epoch() const;                                   // the same, or 0 while peers are held off
  void run_applier();                                         // until stop(); one thread
  void run_spooler();                                         // the same
  void run_hot();                                             // until stop(); one thread
  void tick();                                                // every 100 ms or so
  void stop();                                                // ends run_applier, sessions and resyncs
  void wait_for_change(int timeout_ms, std::uint64_t& seen);  // role, peers or sets changed since `seen`

 private:
  NodeLog(NodeLogConfig config, NodeLogPorts ports, NodeLogEvents events);
  Status recover();
  Status update_state(const std::function<void(NodeState&)>& change);  // what was whole and is not any more is lost
  Status store_state(const std::function<void(NodeState&)>& change);
  // Refused (stale) when an epoch later than `unless_after` was promised: a position that was voted with must not vanish.
  Status restart_log(Position base, const std::function<void(NodeState&)>& change,
                     std::optional<Epoch> unless_after = {});
  Result<Welcome> admit(const Hello& hello);
  Status drain();
  Status check_promotable(Epoch epoch, const PromoteOptions& options) const;
  Status check_way_back(const PromoteOptions& options) const;
  Result<Position> make_base(Epoch epoch, const PromoteOptions& options, Promotion& promotion);
  // How the epoch begins, for who returns: the trees are exactly the log as of there; or this node's own last epoch ended uncleanly.
  struct Before {
    std::optional<Position> exact;
    std::shared_ptr<const HotLeft> left;
  };
  Status open_epoch(Epoch epoch, const Promotion& promotion, const Before& before, bool hold_peers);
  Status restart_log_held(Position base, const std::function<void(NodeState&)>& change);
  void note_point(const NodeState& before, NodeState& next) const;
  Status drain_for_restart(bool must, const Welcome& told);
  void pin_point();
  // --- node_hot.cc
  Status open_hot();
  Result<std::shared_ptr<const HotLeft>> left_by(Epoch led) const;
  Position position_led(const NodeState& state) const;
  Status begin_hot(Epoch epoch, Position base);
  Result<bool> mark_trees(const HotMark& mark);
  Status mark_trees_locked(const HotMark& mark);
  Status end_hot(Position end);
  Status turn_hot(Epoch epoch);
  bool leads(Epoch epoch) const;
  bool everybody_covers(Sequence end, bool but_who_is_away) const;
  // --- node_sets.cc
  Status mark_hot(ports::Tree& tree);
  Status add_tree_while_active(std::shared_ptr<ports::Tree> tree);
  Status add_tree_at_rest(std::shared_ptr<ports::Tree> tree, bool whole);
  bool has_content_of(SetNumber set, Epoch protected_in) const;
  Status doubt_if_not_ours(ports::Tree& tree);
  // --- node_peers.cc
  void look_for_shortages();
  void note_queue_age();
  // --- node_rewind.cc
  Status look_at_point();
  Result<Position> rewind_to_point();
  Result<PastState> past_of(std::uint64_t batch) const;
  // Intention, way forth or gap, way back; the intention stands when it returns, also for want of space.
  struct WayBack {
    PastState past;
    bool irreversible = false;
    bool for_epoch = false;
    std::string plan;
  };
  Status go_back_held(const WayBack& way);
  Status go_on_held();
  Status executed(Status done);
  Status finish_rewind_held();
  Result<Position> go_back_for_epoch(const PromoteOptions& options, Promotion& promotion);
  Status give_up_epoch();
  Status empty_first_copies();
  std::set<SetNumber> first_copies_locked() const;
  bool all_known_are_here_locked() const;
  bool leads_as_it_is_locked() const;
  bool point_has_all_locked() const;
  bool wants_way_back_locked(const PromoteOptions& options) const;
  // --- node_shadows.cc
  Status note_shadow(const log::Record& record, std::uint64_t batch);
  Status name_point(const NodeState& state);
  void keep_shadows();  // what they hold, and what is gone of them
  std::optional<UndoGap> tell_shortened();
  void turn_history();
  // Null: there is none now. It changes only while nobody changes roles and nothing is applied.
  UndoJournal* history() const { return ports_.journal && ports_.journal->on() ? ports_.journal : nullptr; }
  Status resume_rewind();  // of an earlier life, when all its sets are here
  Result<Rewind> make_rewind(const std::set<SetNumber>& sets);
  std::shared_ptr<ChangeMap> open_map(NodeId peer, const std::string& name);
  void fault(const Error& why);
  void changed();
  void wake_applier();
  enum class Swept { all, some, later };
  Result<Swept> sweep();  // node_sweep.cc
  bool complete_locked() const;
  Result<Sequence> append_mark(log::Kind kind, std::int64_t mtime_ns = 0, std::string_view name = {});
  Status step_down_held(Position end);
  Status leave_ended_epoch();
  NodeState snapshot() const;

  const NodeLogConfig config_;
  NodeLogPorts ports_;
  NodeLogEvents events_;
  ActiveLog active_;
  std::unique_ptr<HotSet> hot_;
  MemberLimits limits_;
  log::SegmentLog log_;
  Applier applier_;
  Receiver receiver_;

  Shadows shadows_;

  std::mutex transition_mutex_;  // one role change at a time; taken first
  std::mutex marks_mutex_;       // which trees an epoch has, and what they carry; taken before mutex_
  mutable std::mutex mutex_;     // everything below; never held over a system call
  std::condition_variable changed_cv_;
  std::uint64_t changes_ = 0;
  Role role_ = Role::idle;
  Epoch epoch_;  // of the role: led, or followed
  NodeId follows_;
  std::string fault_;
  VerifyStore compared_;
  ScrubSettings scrub_;
  std::map<NodeId, std::shared_ptr<Sender>> senders_;
  std::mutex maps_mutex_;                              // of maps_
  std::map<NodeId, std::shared_ptr<ChangeMap>> maps_;  // one a peer and process: each has a table of its own
  std::uint64_t send_limit_bytes_;
  // What the welcome says: it changes when a resynchronization can't be completed here, as it does with a new process.
  std::atomic<std::uint64_t> life_;
  std::set<SetNumber> sets_;
  bool stopped_ = false;
  std::mutex state_mutex_;           // serializes stores; taken before mutex_
  NodeState state_;                  // under mutex_
  mutable Position log_end_seen_;    // by status()
  bool ended_ = false;               // end_epoch was called; the role is active until step_down
  bool hold_peers_ = false;          // in the epoch that is led
  std::optional<LedFrom> led_from_;  // the same
  SetNumber missing_set_ = 0;        // the log is about a set that is not here yet
  std::uint64_t applied_bytes_ = 0;  // compared with the receiver's appended_bytes
  std::condition_variable apply_cv_;
  bool apply_work_ = false, apply_now_ = false;  // something to apply; without waiting for company
  bool applier_idle_ = false;                    // waits for work
  unsigned space_waits_ = 0;                     // tries of the applier that ended for want of space
  std::condition_variable progress_cv_;          // an acknowledgement came
  std::atomic<int> progress_waits_{0};
  std::string receive_full_;         // under mutex_; what the disk said
  std::vector<Shortage> shortages_;  // under mutex_; what was told
  struct ReceivedAt {
    std::uint64_t appended_bytes;
    std::int64_t at_ns;  // not more than that had been appended
  };
  std::deque<ReceivedAt> marks_;  // under mutex_; the first one is applied
  Sequence acked_applied_;        // tick's thread only
  int ticks_ = 0, shadow_ticks_ = 0, active_ticks_ = 0;
  Sequence noted_active_;                                 // tick()'s: up to where note_active() was told
  UndoGap told_shortened_;                                // the same: what history_shortened told
  std::atomic<std::int64_t> hold_until_ns_{0};            // hold_for_plan()
  std::int64_t aside_again_ns_ = 0, sweep_again_ns_ = 0;  // run_applier()'s: not before
  std::atomic<bool> way_back_waits_for_space_{false};
  std::atomic<bool> wants_history_;
};

}  // namespace holdfast::mirror
