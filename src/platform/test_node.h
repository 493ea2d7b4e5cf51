// SPDX-License-Identifier: Apache-2.0
// For tests only: a node's whole data plane over a temporary folder.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>

#include "base/log.h"
#include "mirror/node_log.h"
#include "platform/change_store.h"
#include "platform/durable_slots.h"
#include "platform/file_index.h"
#include "platform/live_tree.h"
#include "platform/mirror_runtime.h"
#include "platform/posix_tree.h"
#include "platform/segment_store.h"
#include "platform/test_certificates.h"
#include "platform/test_tree_digest.h"

namespace holdfast::platform::testing {

class TestNode {
 public:
  TestNode(const TestAuthority& authority, const std::string& dir, NodeId id) : dir_(dir), id_(id) {
    authority.issue(dir_ + "/tls", to_hex(id));
    std::filesystem::create_directories(tree_path());
  }
  ~TestNode() { stop(); }

  std::string tree_path() const { return dir_ + "/tree"; }
  std::string log_path() const { return dir_ + "/log"; }
  std::string send_path(NodeId peer) const { return dir_ + "/send-" + to_hex(peer); }
  NodeId id() const { return id_; }
  std::uint16_t port() const { return runtime->port(); }
  std::string address() const { return fmt::format("127.0.0.1:{}", port()); }

  Status start(bool with_set = true, std::int64_t checkpoint_ms = 300) {
    HF_ASSIGN(index, FileIndex::open(dir_ + "/index"));
    HF_ASSIGN(segments, FolderSegmentStore::open(log_path(), segment_bytes));
    state = std::make_unique<DurableSlots>(dir_ + "/state");
    compared = std::make_unique<DurableSlots>(dir_ + "/compared");
    limits = std::make_unique<DurableSlots>(dir_ + "/limits");
    live = std::make_unique<PosixLiveTree>(*index, [this](SetNumber, const FileId&, const std::function<void()>& body) {
      const std::lock_guard lock(object_mutex);
      body();
    });
    mirror::NodeLogConfig config;
    config.cluster_id = "c1";
    config.node = id_;
    config.ring_bytes = ring_bytes;
    config.segment_bytes = segment_bytes;
    config.checkpoint_ms = checkpoint_ms;
    config.send_limit_bytes = send_limit_bytes;
    config.features = features;
    config.life = std::random_device{}();
    mirror::NodeLogEvents events;
    events.fault = [this](const Error& why) {
      const std::lock_guard lock(fault_mutex);
      fault = why.to_string();
    };
    events.peer_state = [this](NodeId, mirror::PeerState now) {
      const std::lock_guard lock(fault_mutex);
      peer_states.insert(now);
    };
    events.returned = [this](const mirror::Returned& returned) {
      const std::lock_guard lock(fault_mutex);
      returns.push_back(returned);
    };
    HF_ASSIGN(changes, LmdbChangeStores::open(dir_ + "/changes"));
    HF_ASSIGN(undo_segments, FolderSegmentStore::open(dir_ + "/undo", segment_bytes));
    HF_ASSIGN(undo, mirror::UndoJournal::open(*undo_segments, times, {undo_bytes, 0, mirror::default_undo_age_ns},
                                              segment_bytes));
    const auto open_spill = [this](NodeId peer) -> Result<std::unique_ptr<ports::SegmentStore>> {
      HF_ASSIGN(auto store,
                FolderSegmentStore::open_scratch(send_path(peer), [this] { return send_keep_free_bytes.load(); }));
      return store;
    };
    HF_TRY(open_hot());
    config.hot_generation_ns = hot_generation_ns;
    config.hot.slots = 4096;
    config.hot.kept_slots = 256;
    config.hot.coarse_after = 1'000'000;  // generations are short here
    HF_ASSIGN(log, mirror::NodeLog::open(config,
                                         {*segments, *state, times, *live, *index, *undo, undo.get(), open_spill,
                                          nullptr, hot_file.get(), [this] { return index->unused_block(); },
                                          [this](const mirror::IdBlock& block, const auto& found) {
                                            return index->ids_of_block(block.base(), found);
                                          },
                                          compared.get(), changes.get(), nullptr, nullptr, limits.get()},
                                         events));
    index->around_identify(
        [gate = log->capture_log().hot()](SetNumber set, const auto& body) { return gate->with_whole_set(set, body); });
    if (with_set) HF_TRY(add_set());
    MirrorRuntime::Options options;
    options.listen_address = "127.0.0.1";
    options.listen_port = listen_port;
    options.tls_dir = dir_ + "/tls";
    HF_ASSIGN(runtime, MirrorRuntime::start(options, *log));
    listen_port = runtime->port();
    return {};
  }

  Status open_hot() {
    constexpr std::uint64_t bytes = mirror::hot_file_bytes(4096);
    HF_ASSIGN(hot_segments, FolderSegmentStore::open(dir_ + "/hot", bytes));
    HF_ASSIGN(const auto there, hot_segments->list());
    HF_ASSIGN(hot_file, there.empty() ? hot_segments->create(1, bytes) : hot_segments->open(1));
    const std::lock_guard lock(cells_mutex);
    cells.clear();
    return {};
  }

  // As capture does before a change; `guard` is kept until the record is appended.
  // False: the epoch is over, nothing may be changed.
  bool enter_hot(mirror::HotGate::Guard& guard, SetNumber set, const std::vector<std::pair<FileId, bool>>& objects) {
    std::vector<mirror::HotGate::Object> about;
    {
      const std::lock_guard lock(cells_mutex);
      for (const auto& [id, folder] : objects) about.push_back({id, cells[id], folder});
    }
    const Status entered = log->capture_log().hot()->enter(guard, set, about);
    CHECK(entered || entered.error().code == ErrorCode::stale, "{}", entered.error().message);
    return entered.has_value();
  }

  Status add_set(SetNumber set = 1, Epoch protected_in = Epoch(0)) {
    const auto root = [&] { return UniqueFd(::open(tree_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); };
    HF_ASSIGN(auto tree, PosixTree::open(root(), set, *index));
    live->add(set, root());
    return log->add_set(std::move(tree), protected_in);
  }

  // Waits for space in the log, as capture does.
  void reserve(std::size_t bytes) {
    auto& capture_log = log->capture_log();
    struct Waiter {
      std::mutex mutex;
      std::condition_variable cv;
      bool freed = false;
    };
    for (;;) {
      auto w = std::make_shared<Waiter>();
      capture_log.when_space([w] {
        const std::lock_guard lock(w->mutex);
        w->freed = true;
        w->cv.notify_all();
      });
      if (capture_log.try_reserve(bytes)) return;
      std::unique_lock lock(w->mutex);
      w->cv.wait(lock, [&] { return w->freed; });
    }
  }

  // The process is gone: nothing is flushed, checkpointed or said goodbye to.
  void stop() {
    runtime.reset();
    log.reset();
    changes.reset();
    undo.reset();
    undo_segments.reset();
    live.reset();
    state.reset();
    segments.reset();
    hot_file.reset();
    hot_segments.reset();
    index.reset();
  }

  // Which states its peers have been in since the last call.
  std::vector<mirror::Returned> take_returns() {
    const std::lock_guard lock(fault_mutex);
    return std::exchange(returns, {});
  }
  std::set<mirror::PeerState> take_peer_states() {
    const std::lock_guard lock(fault_mutex);
    return std::exchange(peer_states, {});
  }

  std::string fault_text() {
    const std::lock_guard lock(fault_mutex);
    return fault;
  }

  std::uint64_t segment_bytes = 5U << 20;
  std::size_t ring_bytes = 32U << 20;
  std::uint32_t features = 0;
  std::unique_ptr<LmdbChangeStores> changes;
  std::uint16_t listen_port = 0;
  std::mutex object_mutex;  // stands for capture's object locks
  std::mutex fault_mutex;
  std::string fault;
  std::set<mirror::PeerState> peer_states;
  std::vector<mirror::Returned> returns;
  std::uint64_t send_limit_bytes = 1ULL << 30;
  std::atomic<std::uint64_t> send_keep_free_bytes{0};
  SystemTimes times;
  std::unique_ptr<FolderSegmentStore> hot_segments;
  std::unique_ptr<ports::SegmentFile> hot_file;
  std::int64_t hot_generation_ns = 200'000'000;
  std::mutex cells_mutex;
  std::unordered_map<FileId, mirror::HotGate::Cell> cells;  // stands for capture's inodes
  std::unique_ptr<FolderSegmentStore> undo_segments;
  std::unique_ptr<mirror::UndoJournal> undo;
  std::uint64_t undo_bytes = 1ULL << 30;
  std::unique_ptr<FileIndex> index;
  std::unique_ptr<FolderSegmentStore> segments;
  std::unique_ptr<DurableSlots> state;
  std::unique_ptr<DurableSlots> compared, limits;
  std::unique_ptr<PosixLiveTree> live;
  std::unique_ptr<mirror::NodeLog> log;
  std::unique_ptr<MirrorRuntime> runtime;

 private:
  std::string dir_;
  NodeId id_;
};

}  // namespace holdfast::platform::testing
