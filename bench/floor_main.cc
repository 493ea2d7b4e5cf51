// SPDX-License-Identifier: Apache-2.0
// holdfast-floor SRC MNT: the product's capture with nothing behind it, as the floor that benchmarks compare with.
// --hot DIR: with the notes of what changes (R5) kept in that folder, a new generation every --turn seconds (default 120): what they cost.
// Runs until SIGTERM or SIGINT, then unmounts; a mount that is still busy is aborted.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "capture/null_log.h"
#include "capture/session.h"
#include "capture/simple_file_ids.h"
#include "mirror/hot_set.h"
#include "platform/segment_store.h"

namespace {

using namespace holdfast;
using namespace holdfast::capture;

int usage() {
  std::fputs(
      "usage: holdfast-floor SRC MNT [--dev|--uring] [--threads N] [--write-through] [--max-dirty BYTES] "
      "[--hot DIR] [--turn SECONDS]\n",
      stderr);
  return 2;
}

class HotLog : public NullLog {
 public:
  mirror::HotGate* hot() override { return gate.get(); }
  std::unique_ptr<mirror::HotSet> gate;
};

// Takes ids as the product does, and then makes do with inode numbers, so that both ways of running differ in the notes only.
class HotIds : public InodeNumberIds {
 public:
  explicit HotIds(HotLog& log) : log_(log) {}
  Result<FileId> fresh() override {
    if (log_.gate) HF_TRY(log_.gate->fresh(1));
    return FileId{};
  }

 private:
  HotLog& log_;
};

struct Notes {
  platform::SystemTimes times;
  std::unique_ptr<ports::SegmentFile> file;
  std::mutex mutex;
  std::condition_variable stop_asked;
  bool stop = false;
  std::thread turning;

  Status begin(const std::string& folder, HotLog& log) {
    const auto bytes = mirror::hot_file_bytes(mirror::HotSetOptions{}.slots);
    HF_ASSIGN(const auto store, platform::FolderSegmentStore::open(folder, bytes));
    HF_ASSIGN(const auto there, store->list());
    HF_ASSIGN(file, there.empty() ? store->create(1, bytes) : store->open(1));
    const auto block = []() -> Result<FileId> {
      HF_ASSIGN(FileId id, AttributeFileIds().fresh());
      id.bytes[6] = id.bytes[7] = 0;
      return id;
    };
    HF_ASSIGN(log.gate, mirror::HotSet::open({*file, times, block}));
    return log.gate->begin({Epoch(1), 1, 0}, {});
  }

  void turn(mirror::HotSet& hot, int root, int every_s) {
    turning = std::thread([this, &hot, root, every_s] {
      std::unique_lock lock(mutex);
      while (!stop_asked.wait_for(lock, std::chrono::seconds(every_s), [&] { return stop; })) {
        const auto turn = hot.open_next(Epoch(1));
        if (!turn || !hot.wait_left_behind(*turn, [] { return false; }) || syncfs(root) != 0 || !hot.drop(*turn, {}))
          return (void)std::fputs("holdfast-floor: the notes failed\n", stderr);
      }
    });
  }
  void end(mirror::HotSet& hot) {
    {
      const std::lock_guard lock(mutex);
      stop = true;
      stop_asked.notify_all();
    }
    turning.join();
    fmt::print("{} notes in {} writes\n", hot.status().notes, hot.status().commits);
  }
};

}  // namespace

int main(int argc, char** argv) {
  SessionOptions options;
  std::string source, hot_folder;
  int turn_s = 120;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--dev")
      options.transport = TransportKind::dev;
    else if (arg == "--uring")
      options.transport = TransportKind::uring;
    else if (arg == "--write-through")
      options.write_policy = WritePolicy::write_through;
    else if (arg == "--threads" && i + 1 < argc)
      options.threads = static_cast<unsigned>(std::atoi(argv[++i]));
    else if (arg == "--hot" && i + 1 < argc)
      hot_folder = argv[++i];
    else if (arg == "--turn" && i + 1 < argc)
      turn_s = std::atoi(argv[++i]);
    else if (arg == "--max-dirty" && i + 1 < argc)
      options.max_dirty_bytes = std::strtoull(argv[++i], nullptr, 10);
    else if (arg.starts_with("-"))
      return usage();
    else if (source.empty())
      source = arg;
    else if (options.path.empty())
      options.path = arg;
    else
      return usage();
  }
  if (source.empty() || options.path.empty()) return usage();
  const int root = open(source.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) {
    std::fprintf(stderr, "holdfast-floor: cannot open %s: %s\n", source.c_str(), std::strerror(errno));
    return 1;
  }
  options.root_fd = root;
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);

  HotLog log;
  AlwaysValid lease;
  HotIds ids(log);
  Notes notes;
  if (!hot_folder.empty()) {
    options.set = 1;
    if (const Status begun = notes.begin(hot_folder, log); !begun) {
      fmt::print(stderr, "holdfast-floor: {}\n", begun.error().to_string());
      return 1;
    }
    notes.turn(*log.gate, root, turn_s);
  }
  auto session = Session::mount(options, log, lease, ids,
                                [](const Error& error) { fmt::print(stderr, "holdfast-floor: {}\n", error.message); });
  if (!session) {
    fmt::print(stderr, "holdfast-floor: {}\n", session.error().to_string());
    return 1;
  }
  fmt::print("mounted {} over {}, abort with {}\n", options.path,
             (*session)->transport() == TransportKind::uring ? "io_uring" : "/dev/fuse", (*session)->abort_path());
  std::fflush(stdout);
  int signal_number;
  sigwait(&stop, &signal_number);
  if (log.gate) notes.end(*log.gate);
  if (auto ended = (*session)->unmount_and_wait(std::chrono::seconds(10), nullptr); !ended) {
    fmt::print(stderr, "holdfast-floor: {}; aborting\n", ended.error().to_string());
    (*session)->abort();
    return 1;
  }
  return 0;
}
