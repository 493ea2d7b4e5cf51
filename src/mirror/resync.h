// SPDX-License-Identifier: Apache-2.0
// The active's side of a first copy or resynchronization of one set for one peer: what its plan names (resync_plan.h) is read object by object
// under the object's lock, and shipped as records of the same log, addressed to the peer, while the application goes on.
// It outlives a connection: what it shipped waits in the peer's queue, and it waits for acknowledgements; the peer repeats NAKs that were not answered.
// Threads: run() (or step()) in one; moved(), nak(), acked(), cancel() and progress() from any.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "mirror/active_log.h"
#include "mirror/channel.h"
#include "mirror/resync_plan.h"
#include "ports/live_tree.h"

namespace holdfast::mirror {

constexpr std::size_t hash_chunk_bytes = 256 * 1024;
constexpr std::size_t data_chunk_bytes = 512 * 1024;
constexpr std::size_t listing_bytes = 64 * 1024;
constexpr std::size_t resync_window_bytes =
    std::size_t{16} << 20;  // shipped and not yet acknowledged; also at most a quarter of the ring

// Contents of a file, a record.
struct ResyncChunks {
  std::size_t hash = hash_chunk_bytes, data = data_chunk_bytes;  // at most these
};

struct ResyncProgress {
  std::uint64_t done = 0, total = 0;  // objects and names; total grows as folders are read
  std::uint64_t bytes = 0;            // of content, shipped or compared
  std::uint64_t sent_bytes = 0;       // in records
  std::uint64_t opened = 0;           // objects of ours that were opened for it, listings' entries among them
  bool partial = false;               // only what changed
};

class Resync {
 public:
  Resync(ActiveLog& log, ports::LiveTree& tree, NodeId peer, SetNumber set, std::unique_ptr<ResyncPlan> plan,
         ResyncChunks chunks = {});
  ~Resync();
  // ErrorCode::unavailable when cancelled. Returns when resync_end was appended.
  Status run();
  // What run() repeats: at most a few records about one object. `waits`: nothing to do before the peer says something.
  enum class Turn { more, waits, ended };
  Result<Turn> step();
  void moved(const FileId& id);
  void nak(const Nak& nak);
  void acked(const Ack& ack);
  void cancel();
  ResyncProgress progress() const;
  SetNumber set() const { return set_; }
  bool is_partial() const { return partial_; }
  Sequence end() const { return last_; }  // of resync_end, once run() has succeeded
  // Partial, and cancelled: objects of which the peer may lack more than the change set says. Those that were named to it, or shipped in part, and
  // that it had not confirmed to know; and those that it asked for.
  struct Doubt {
    FileId id, folder;  // the folder: perhaps it was taken from its place for the object's sake; or none
  };
  std::vector<Doubt> unsettled() const;

 private:
  // A job under way.
  struct Work {
    ShipJob job;
    enum class At { node, content, listing } at = At::node;
    std::size_t node_piece = 0;
    std::uint64_t offset = 0;  // of content
    std::size_t extent = 0;    // of the job's, in which offset lies
    std::uint64_t cookie = 0;
    bool first = true;
  };
  Result<bool> find_work();
  Result<bool> start_next();
  Status begin_plan();
  Status take_asked(const Nak& nak);
  Status advance();
  Status ship_object();
  Status ship_content();
  Status ship_names();
  Status ship_name();
  Status ship_parent();
  Status append_node(ports::LiveObject& object, const Work& work, const ports::NodeAttributes& attributes,
                     ByteView xattrs);
  // `xattrs` if they are known already.
  Status append_extent(ports::LiveObject& object, Work& work, const ports::NodeAttributes& attributes,
                       const Bytes* xattrs);
  Status append_bytes(ports::LiveObject& object, const FileId& id, const ports::NodeAttributes& attributes,
                      std::uint64_t offset, std::uint64_t length);
  Status append_hash(ports::LiveObject& object, const FileId& id, std::uint64_t offset, std::uint64_t length);
  Status append_capability(ports::LiveObject& object, const FileId& id, const Bytes* xattrs);
  Status append_mark(log::Kind kind, std::uint32_t flags = 0);
  void append_name(const Work& work, const ports::TreeEntry* there, std::int64_t parent_mtime_ns);
  void finished();
  void ask_ahead();
  void count_opened(std::uint64_t objects);
  bool may_begin() const;
  bool has_news() const;
  // Space for one step, before any lock (R22): what append_* use comes out of it; the rest is given back when the step ends.
  Status reserve(std::vector<std::size_t> pieces);
  void wait_until(std::unique_lock<std::mutex>& lock, const std::function<bool()>& condition);
  void append(log::Record& record, std::size_t piece);
  void give_back_rest();

  ActiveLog& log_;
  ports::LiveTree& tree_;
  const NodeId peer_;
  const SetNumber set_;
  const std::unique_ptr<ResyncPlan> plan_;
  const bool partial_;
  const ResyncChunks chunks_;

  std::vector<std::size_t> pieces_;  // reserved, not used yet
  Bytes buffer_;
  std::vector<Work> work_;              // the last one is being done; the others wait for it
  Sequence begin_, last_;               // resync_begin; the last record of ours
  bool begun_ = false, ended_ = false;  // the plan is at work; resync_end is appended

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;
  std::deque<FileId> moved_;
  std::unordered_set<FileId> moved_once_;  // what is in moved_: a peer may be away for long
  std::deque<Nak> naks_;
  Ack ack_;
  std::uint64_t acks_ = 0;
  std::deque<std::pair<Sequence, std::size_t>> outstanding_;
  std::size_t outstanding_bytes_ = 0;
  std::deque<std::pair<Sequence, Doubt>> unsettled_;
  ResyncProgress progress_;
};

}  // namespace holdfast::mirror
