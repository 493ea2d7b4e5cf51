// SPDX-License-Identifier: Apache-2.0
// Verify on the active: a walk over one set, each object read under its lock and said, as it is at that sequence, to one complete peer, which
// compares it at the same sequence (mirror/apply_verify.h). What differs is asked twice, counted, repaired by addressed records of the same log
// and asked again.
//
//   check --differs--> confirm --differs--> found --repairable--> repair, check after --equal--> repaired
//                      `-equal: nothing     `-not: open, undecided                `-differs: again, at most three times; then open
//
// Who is right? The active is what the log says, so its attributes and names are shipped. Bytes that differ in a file whose size and time are
// the same on both nodes were changed by neither the log nor anybody's system call: one of the two copies has rotted, and nothing here tells
// which. Those are `undecided` and stay, unless the administrator trusts the active (VerifyPlan::trust_active).
//
// Never blocks: step() does one step. One thread at a time. Errors: those of the log's and tree's ports; a disk that can't be read is a finding.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "mirror/capture_log.h"
#include "mirror/channel.h"
#include "ports/live_tree.h"
#include "ports/times.h"

namespace holdfast::mirror {

constexpr std::size_t verify_block_bytes = 256 * 1024;  // of one hash, at most; a sample takes blocks of it

enum class VerifyKind : std::uint8_t { full = 0, sample, scrub };
const char* to_string(VerifyKind kind);

struct VerifyPlan {
  NodeId peer;
  SetNumber set = 0;
  VerifyKind kind = VerifyKind::full;
  bool repair = true;
  bool trust_active = false;
  std::uint64_t seed = 0;  // which blocks a sample takes: one of a hundred
};

// Where a walk stands: the folders from the root down, and what was being read.
struct VerifyPlace {
  struct Level {
    FileId id;
    std::string name;
    std::uint64_t cookie = 0;  // of the chunk that is being gone through
    std::uint32_t index = 0;   // next entry of it
  };
  std::vector<Level> levels;  // empty: at the beginning
  FileId file;                // half read; none: none
  std::string file_name;
  std::uint64_t offset = 0;
};

struct VerifyExample {
  std::string path, what;  // path: any bytes
  const char* state = "";  // open, undecided, repaired
};
struct VerifyCounts {
  std::uint64_t objects = 0, bytes = 0;  // compared
  std::uint64_t differences = 0;         // objects that differed, confirmed
  std::uint64_t repaired = 0, open = 0;  // open: not repaired (yet); undecided ones are among them
  std::uint64_t undecided = 0;
};

class VerifyWalk {
 public:
  VerifyWalk(CaptureLog& log, ports::LiveTree& tree, ports::Times& times, VerifyPlan plan,
             const VerifyPlace& from = {});

  enum class Step { worked, waits_for_space, waits_for_peer, done };
  Result<Step> step();
  void differs(const Differs& differs);
  void acked(const Ack& ack);
  void moved(const FileId& id);  // got another name or place: looked at again
  void session_began();          // what was not answered is asked again

  const VerifyPlan& plan() const { return plan_; }
  VerifyCounts counts() const;
  std::vector<VerifyExample> examples() const;  // open ones first
  // Nothing was asked that is not answered, and nothing is to be repaired: where a later life can go on.
  std::optional<VerifyPlace> place() const;
  bool too_many() const { return findings_.size() > max_findings; }  // it needs a resynchronization, not repairs
  std::uint64_t vanished() const { return vanished_; }               // differences that were not confirmed
  // Bytes read since the last call, and something for each object: what a rate is counted in.
  std::uint64_t take_cost() { return std::exchange(cost_, 0); }

 private:
  static constexpr std::size_t max_findings = 10'000, max_asked = 2048, max_examples = 16;
  static constexpr int max_tries = 3;
  enum class Task { check, check_range, check_listing, fix, fix_range, fix_listing };
  enum class Phase { first, confirm, after };
  enum class Stage { node, data, listing, finished };
  struct Op {
    Task task = Task::check;
    FileId id;
    std::string path;
    Phase phase = Phase::first;
    std::uint64_t offset = 0, end = ports::to_end;  // ranges; `offset` moves on
    bool contents = true;                           // check: what is in it, too
    bool all = false;                               // in a sample too
    Stage stage = Stage::node;
    std::uint64_t cookie = 0;
    bool begun = false;  // a listing's first chunk was said
  };
  struct Asked {
    Op op;             // as it would be asked again
    bool last = true;  // of a listing's chunks: what they all say counts when this one is answered
    std::uint32_t what = 0;
  };
  struct Finding {
    std::string path;
    std::uint32_t what = 0;
    int pending = 0;  // questions of Phase::after: to be asked, or asked and not answered
    int tries = 0;
    bool explained = false, undecided = false, failed = false;
  };
  struct Frame {
    FileId id;
    std::string name;
    std::uint64_t cookie = 0, next_cookie = 0;
    std::size_t index = 0;
    std::vector<ports::TreeEntry> entries;
    bool checked = false, loaded = false, end = false;
  };

  // --- verify_walk.cc
  Result<bool> next_op();
  std::string path_of(const std::string& leaf) const;
  Result<bool> run(Op& op);
  Result<bool> check_node(Op& op);
  Result<bool> check_data(Op& op);
  Result<bool> check_listing(Op& op);
  Status ask_extent(ports::LiveObject& object, Op& op, bool& appended);
  bool sampled(const FileId& id, std::uint64_t offset) const;
  // False: there is no space. What is not used is given back.
  Result<bool> with_object(const FileId& id, std::size_t room, const std::function<Status(ports::LiveObject&)>& body);
  Sequence append(log::Record& record);
  void ask(log::Record& record, const Op& again, bool last = true);

  // --- verify_repair.cc
  void settle();  // what the peer has applied
  void answered(Asked&& asked);
  void found(const Op& op, std::uint32_t what);
  void repair(const Op& op, std::uint32_t what, Finding& finding);
  void no_more_pending(const Op& op) {
    if (op.phase == Phase::after) --findings_[op.id].pending;
  }
  void gone(const Op& op);
  void unreadable_here(const Op& op, const std::string& why);
  void queue(Task task, const Op& like, Phase phase);
  Result<bool> fix_node(const FileId& id);
  Result<bool> fix_range(Op& op);
  Result<bool> fix_listing(Op& op);

  CaptureLog& log_;
  ports::LiveTree& tree_;
  ports::Times& times_;
  const VerifyPlan plan_;
  Bytes buffer_;
  std::vector<Frame> frames_;
  std::vector<Op> ops_;    // the last one is being done
  std::deque<Op> urgent_;  // done before the walk goes on
  std::map<Sequence, Asked> asked_;
  Sequence applied_;
  std::size_t room_ = 0;  // reserved and not used yet
  std::size_t node_room_ = 0;
  std::unordered_map<FileId, Finding> findings_;
  std::unordered_map<FileId, std::uint32_t> listing_what_;
  std::unordered_set<FileId> full_folders_, moved_, specials_said_;
  std::uint64_t objects_ = 0, bytes_ = 0, cost_ = 0, vanished_ = 0, not_compared_ = 0;
};

std::string describe_differences(std::uint32_t what);

}  // namespace holdfast::mirror
