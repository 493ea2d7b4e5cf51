// SPDX-License-Identifier: Apache-2.0
// For tests: a log that keeps its records and can be full or slow, a tree below, a mount, and a watchdog that aborts a hung mount.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "capture/lower.h"
#include "capture/session.h"
#include "capture/simple_file_ids.h"

namespace holdfast::capture {

struct KeptRecord {
  log::Record fields;  // views below point into this object
  std::string name, name2;
  Bytes payload;
};

class KeepingLog : public mirror::CaptureLog {
 public:
  bool try_reserve_all(std::span<const std::size_t> pieces) override;
  void give_back(std::size_t bytes) override;
  void when_space(std::function<void()> retry) override;
  Sequence append(const log::Record& record, std::size_t reserved_bytes) override;
  Sequence last_sequence() const override;
  Sequence last_but_times() const override { return last_sequence(); }
  void when_durable(Sequence sequence, std::function<void()> done) override;
  void hurry() override { ++hurries; }
  mirror::HotGate* hot() override { return gate; }
  void moved(SetNumber, const FileId&) override { ++moves; }

  void set_full(bool full);      // no space from now on / space again
  void hold_durable(bool hold);  // fsyncs wait / all that wait are released
  std::size_t reserved() const;  // bytes taken and neither appended nor given back
  std::size_t durable_waits() const;
  std::deque<std::unique_ptr<KeptRecord>> take();
  std::atomic<unsigned> hurries{0}, moves{0};
  mirror::HotGate* gate = nullptr;                          // set before anything is mounted
  std::function<void(const log::Record& record)> appended;  // in the thread of the request

 private:
  mutable std::mutex mutex_;
  std::deque<std::unique_ptr<KeptRecord>> records_;
  std::vector<std::function<void()>> want_space_, want_durable_;
  std::uint64_t sequence_ = 0;
  std::size_t reserved_ = 0;
  bool full_ = false, hold_ = false;
};

class SwitchedLease : public mirror::LeaseGate {
 public:
  bool wait_valid() override { return valid; }
  std::atomic<bool> valid{true};
};

struct Flavour {
  TransportKind transport;
  WritePolicy policy;
  std::string name() const {
    return std::string(transport == TransportKind::uring ? "uring" : "dev") +
           (policy == WritePolicy::write_back ? "_back" : "_through");
  }
};
std::vector<Flavour> flavours();  // those this kernel offers

// Temporary folders `below` (the real tree) and `mount`, mounted on construction.
class TestMount {
 public:
  // `prepare` may put something at the path of the real tree first. `on`: a folder for all of it; empty: the one for temporary files.
  explicit TestMount(Flavour flavour, unsigned threads = 0,
                     const std::function<void(const std::string& below)>& prepare = {}, mirror::HotGate* gate = nullptr,
                     const std::string& on = {}, std::shared_ptr<const mirror::LiveLimits> limits = nullptr);
  ~TestMount();
  std::string at(const std::string& name) const { return mount + "/" + name; }
  void unmount();  // expects success

  std::string base, below, mount;
  KeepingLog log;
  SwitchedLease lease;
  AttributeFileIds ids;
  std::atomic<unsigned> faults{0};
  std::unique_ptr<Session> session;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  std::thread watchdog_;
};

// Not root, or no /dev/fuse: mounting can't be tested here.
bool can_mount();

// Everything a user can see of a tree, one line an object, sorted: type, mode, owner, links, size, content hash, xattrs; with mtimes if asked.
std::vector<std::string> describe_tree(const std::string& root, bool with_mtime);

// Replays records onto an empty folder, as a passive would. Returns the first problem, or nothing.
std::string replay(const std::deque<std::unique_ptr<KeptRecord>>& records, const std::string& root, SetNumber set);

}  // namespace holdfast::capture
