// SPDX-License-Identifier: Apache-2.0
// For tests only: a passive node whole, its log, state, history and trees in simulated memory; a script plays its active.
#pragma once

#include <gtest/gtest.h>

#include <thread>

#include "log/record_codec.h"
#include "log/record_fields.h"
#include "mirror/node_log.h"
#include "mirror/test_machine.h"
#include "mirror/test_tree.h"

namespace holdfast::mirror::testing {

constexpr SetNumber set = 1;
constexpr NodeId self{2}, active{1};

struct TestTimes final : ports::Times {
  std::atomic<std::int64_t> now{1'000'000'000'000};
  std::int64_t realtime_ns() override { return now += 1000; }
  std::int64_t steady_ns() override { return now += 1000; }
};
struct NoLiveTree final : ports::LiveTree {
  Status with_object(SetNumber, const FileId&, const std::function<Status(ports::LiveObject&)>&) override {
    return fail(ErrorCode::not_found, "nothing lives here");
  }
};
struct NoIds final : ports::IdBarrier {
  Status make_ids_durable() override { return {}; }
};

// Plays the active: hello, start and records; then heartbeats until the passive says that it has applied everything, or hangs up.
class Script final : public ports::ByteStream {
 public:
  Script(Bytes frames, Sequence until) : frames_(std::move(frames)), until_(until) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    if (ended_) return std::size_t{0};
    if (at_ == frames_.size()) {
      if (applied_ >= until_) return std::size_t{0};
      std::this_thread::yield();
      frames_ = encode_frame(Heartbeat{});
      at_ = 0;
    }
    const std::size_t n = std::min(into.size(), frames_.size() - at_);
    std::copy_n(frames_.begin() + static_cast<long>(at_), n, into.begin());
    at_ += n;
    return n;
  }
  bool readable_now() override { return false; }
  Status write_pieces(std::span<const ByteView> pieces) override {
    for (const ByteView p : pieces) answers_.insert(answers_.end(), p.begin(), p.end());
    while (answers_.size() >= frame_head_bytes) {
      const auto head = decode_frame_head(ByteView(answers_).first(frame_head_bytes));
      if (!head || answers_.size() < frame_head_bytes + head->length) break;
      const ByteView payload = ByteView(answers_).subspan(frame_head_bytes, head->length);
      if (head->type == FrameType::ack) applied_ = decode_ack(payload)->applied;
      if (head->type == FrameType::start) started = true;
      if (head->type == FrameType::refuse) refused = decode_refuse(payload)->reason;
      answers_.erase(answers_.begin(), answers_.begin() + static_cast<long>(frame_head_bytes + head->length));
    }
    return {};
  }
  void shutdown() override { ended_ = true; }
  std::string refused;
  bool started = false;

 private:
  Bytes frames_, answers_;
  std::size_t at_ = 0;
  Sequence applied_, until_;
  std::atomic<bool> ended_{false};
};

inline FileId id(std::uint8_t n) {
  FileId i;
  i.bytes[0] = n;
  return i;
}

class Node {
 public:
  Node()
      : segments(fuse),
        undo_segments(fuse),
        cell(fuse),
        shadow_cell(fuse),
        tree(std::make_shared<MemoryTree>(set, fuse)) {
    NodeState state;
    state.complete = {set};
    EXPECT_TRUE(cell.store(encode(state)));
  }
  ~Node() { stop(); }

  Status start() {
    HF_ASSIGN(journal, UndoJournal::open(undo_segments, times, {1ULL << 30, 0, default_undo_age_ns}));
    NodeLogConfig config;
    config.cluster_id = "c";
    config.node = self;
    config.node_name = "n2";
    config.checkpoint_ms = 1'000'000;
    NodeLogPorts ports{segments, cell, times, live, ids, *journal, journal.get(), {}, &shadow_cell};
    ports.last_active_ns = [this] { return last_active_ns; };
    NodeLogEvents events;
    events.fault = [](const Error&) {};
    events.history_shortened = [this](const std::string& why, std::int64_t) { shortened.push_back(why); };
    HF_ASSIGN(log, NodeLog::open(config, ports, std::move(events)));
    HF_TRY(log->add_set(tree));
    if (second) HF_TRY(log->add_set(second));
    if (applies) applier = std::thread([this] { log->run_applier(); });
    return {};
  }
  void stop() {
    if (log) log->stop();
    if (applier.joinable()) applier.join();
    log.reset();
    journal.reset();
  }
  void crash(unsigned seed) {
    stop();
    std::mt19937 random(seed);
    tree->crash(random);
    if (second) second->crash(random);
    segments.crash(random);
    undo_segments.crash(random);
    fuse = {};
  }

  // What nobody needs any more goes by and by.
  void let_it_sweep() const {
    while (log->status().receive.doomed_graves != 0 && log->status().fault.empty()) std::this_thread::yield();
  }

  // One session of the active in `epoch`, with these records after `base`.
  std::string session(std::uint64_t epoch, bool restart, Position base, std::vector<log::Record> records) {
    return session(epoch, Start{restart, base}, std::move(records));
  }
  std::string session(std::uint64_t epoch, const Start& start, std::vector<log::Record> records) {
    Hello hello;
    hello.cluster_id = "c";
    hello.node = active;
    hello.epoch = Epoch(epoch);
    hello.highest_kind = log::highest_kind;
    Bytes frames = encode_frame(hello), bytes;
    const auto put = [&](const Bytes& more) { frames.insert(frames.end(), more.begin(), more.end()); };
    put(encode_frame(start));
    Sequence last = start.base.sequence;
    for (auto& r : records) {
      r.epoch = Epoch(epoch);
      r.sequence = last = last.next();
      r.time_ns = static_cast<std::int64_t>(last.value) * 1'000'000'000;
      if (r.set == 0 && r.kind != log::Kind::consistent && r.kind != log::Kind::epoch_begin) r.set = set;
      const Bytes encoded = log::encode(r);
      bytes.insert(bytes.end(), encoded.begin(), encoded.end());
    }
    if (!records.empty())
      put(encode_batch_head({static_cast<std::uint32_t>(records.size()), start.base.sequence.next(), last},
                            bytes.size()));
    put(bytes);
    EXPECT_TRUE(log->follow(Epoch(epoch), active));
    const auto script = std::make_shared<Script>(std::move(frames), applies ? last : Sequence(0));
    (void)log->receiver().serve(script, to_hex(active));
    return script->refused;
  }
  std::string content(const FileId& file) {
    const auto* node = tree->look(file);
    if (!node) return "gone";
    Bytes bytes(node->data.size());
    node->data.read(0, bytes);
    return std::string(as_text(bytes));
  }
  std::string names() { return names_of(*tree); }
  static std::string names_of(MemoryTree& of) {
    std::string all;
    for (const auto& [name, ino] : of.look(FileId::root(of.set()))->names) all += name + " ";
    return all;
  }
  std::uint64_t batch_from(Sequence before) {
    for (const auto& b : journal->batches())
      if (b.head.before.sequence == before && b.head.why != BatchWhy::resume) return b.number;
    return 0;
  }

  Fuse fuse;
  ModelSegments segments, undo_segments;
  ModelCell cell, shadow_cell;
  TestTimes times;
  std::int64_t last_active_ns = 0;
  NoLiveTree live;
  NoIds ids;
  std::shared_ptr<MemoryTree> tree, second;  // of set 2: null in most tests
  std::unique_ptr<UndoJournal> journal;
  std::unique_ptr<NodeLog> log;
  std::vector<std::string> shortened;  // why older points were given up
  bool applies = true;                 // false: what it receives stays in its log
  std::thread applier;
};

inline log::Record create(std::uint8_t file, std::string_view name) {
  log::Record r;
  r.kind = log::Kind::create;
  r.file = id(file);
  r.parent = FileId::root(set);
  r.name = name;
  r.mode = type_regular | 0644;
  r.mtime_ns = r.atime_ns = r.parent_mtime_ns = 5;
  return r;
}
inline log::Record write(std::uint8_t file, std::string_view text) {
  log::Record r;
  r.kind = log::Kind::write;
  r.file = id(file);
  r.payload = as_bytes(text);
  r.mtime_ns = 6;
  return r;
}
inline log::Record unlink(std::uint8_t file, std::string_view name) {
  log::Record r;
  r.kind = log::Kind::unlink;
  r.file = id(file);
  r.parent = FileId::root(set);
  r.name = name;
  return r;
}
inline log::Record mark(log::Kind kind) {
  log::Record r;
  r.kind = kind;
  return r;
}

// One epoch followed; then a resynchronization from another past that has come half-way.
inline void bring_to_mid_resync(Node& node) {
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "old a"), create(2, "b"), write(2, "old b")}), "");
  log::Record truncate;
  truncate.kind = log::Kind::truncate;
  truncate.file = id(1);
  truncate.length = 3;
  EXPECT_EQ(node.session(2, true, {Epoch(1), Sequence(900)},
                         {mark(log::Kind::resync_begin), write(1, "NEW and longer"), unlink(2, "b"), create(3, "c"),
                          truncate, write(3, "new")}),
            "");
  EXPECT_EQ(node.names(), "a c ");
  EXPECT_EQ(node.content(id(1)), "NEW");
}

}  // namespace holdfast::mirror::testing
