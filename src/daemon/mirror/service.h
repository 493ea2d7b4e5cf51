// SPDX-License-Identifier: Apache-2.0
// The mirror's operations as holdfastd asks for them (docs/formats/mirror-control.md): folders, captures, log and fences put together.
// Role changes are serialized; status, wait sets and the fence are not held up by them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "capture/look_mount.h"
#include "daemon/mirror/covers.h"
#include "daemon/mirror/lease_gate.h"
#include "daemon/mirror/mirror_config.h"
#include "daemon/mirror/protected_set.h"
#include "daemon/mirror/pusher.h"
#include "daemon/mirror/succession.h"
#include "daemon/mirror/unmarker.h"
#include "mirror/node_log.h"
#include "mirror/scratch_view.h"
#include "mirror/undo.h"
#include "platform/change_store.h"
#include "platform/control_socket.h"
#include "platform/durable_slots.h"
#include "platform/live_tree.h"
#include "platform/mirror_runtime.h"
#include "platform/segment_store.h"
#include "platform/watchdog.h"

namespace holdfast::mirror_process {

struct ServicePaths {
  std::string state_dir;   // /var/lib/holdfast/mirror
  std::string lease_path;  // /run/holdfast/lease
};

// What was said last.
class Told {
 public:
  std::string exchange(std::string said) {
    const std::lock_guard lock(mutex_);
    return std::exchange(said_, std::move(said));
  }

 private:
  std::mutex mutex_;
  std::string said_;
};

class Service {
 public:
  // `push` sends an event to holdfastd; it must not block.
  Service(ServicePaths paths, platform::LeaseWord lease, platform::Watchdog watchdog,
          std::function<void(const nlohmann::json&)> push);
  ~Service();

  // At the start of the process, first: the captures that the process before it left. Guarded by the watchdog from here on; served when holdfastd
  // has said what is protected.
  void inherit(Succession from);
  // At the end: what is captured goes on in the next process, which systemd is about to start; this one must end at once, without running anything
  // else. False: it does not, and an ordinary end is due.
  bool leave_to_successor();
  // At the start of the process: what was protected in its last life is covered before anybody can reach it.
  void cover_known_paths();
  platform::ControlSocket::Answer handle(const nlohmann::json& request);
  // A clean end of the process: what is mounted is aborted (the daemon has moved the role away before, or wants the fence).
  void shut_down();

 private:
  using Json = nlohmann::json;
  using Sets = std::map<SetNumber, std::shared_ptr<ProtectedSet>>;

  Result<Json> configure(const Json& request);
  Result<Json> seal(const Json& request);
  Result<Json> activate(const Json& request);
  Result<Json> release_capture(const Json& request);
  Result<Json> abort(const Json& request);
  Result<Json> follow(const Json& request);
  Result<Json> status();
  Result<Json> timeline(const Json& request);
  Result<Json> resolve(const Json& request);
  Result<Json> rewind(const Json& request);
  // --- service_look.cc
  Result<Json> look(const Json& request);
  Result<Json> look_writable(const Json& request);
  Result<Json> look_end(const Json& request);
  Result<Json> looks(const Json& request);
  Json status_of_looks();
  void end_looks();
  void drop_ended_looks();
  Result<Json> shadow_mark(const Json& request);
  Result<Json> shadow_here(const Json& request);
  Result<Json> shadow_keep(const Json& request);
  Result<Json> shadow_delete(const Json& request);
  Result<std::optional<mirror::UndoBatch>> wanted_point(const Json& request) const;
  Json shadow_json(const mirror::Shadow& shadow) const;
  Json promotion_json(const mirror::Promotion& promotion) const;
  mirror::PromoteOptions promote_options(Epoch epoch, const Json& request) const;
  // --- service_verify.cc
  Result<Json> verify(const Json& request);
  Result<Json> verify_stop(const Json& request);
  Json status_of_verify() const;
  void on_verified(const mirror::VerifyStatus& s);
  platform::ControlSocket::Answer wait_set(const Json& request);
  // --- service_restart.cc
  Result<Json> restart_agreed(const Json& request);
  Status hand_all_over();
  void go_on(const MirrorConfig& config);
  Status take_all_over(const MirrorConfig& config, Succession& from);
  bool inherits(const std::string& path) const;

  Status start_log(const MirrorConfig& config);
  Status open_hot(mirror::NodeLogPorts& ports);
  Status open_history(const MirrorConfig& config);
  mirror::UndoJournal* history() const;  // null: none is kept now
  mirror::UndoSettings undo_settings(const MirrorConfig& config) const;
  Json status_of_undo(const mirror::NodeLogStatus& s);
  Status start_runtime(const MirrorConfig& config);
  Status remember_paths(const MirrorConfig& config);
  std::string covers_file() const { return paths_.state_dir + "/covers.json"; }
  std::optional<std::vector<Cover>> known_covers() const;  // nothing: the file is damaged
  Status let_go(CoversNow& now);
  Result<platform::StillProtected> still_protected() const;
  Status take_sets(const MirrorConfig& config);
  Status add_set(const SetConfig& config);
  Status remove_set(SetNumber set);
  Status mount_all(Epoch epoch);
  Status mount_one(ProtectedSet& set, EpochLeaseGate& gate);
  Status unmount_all(std::vector<capture::Holder>* holders);
  Result<Json> finish_epoch(Epoch epoch, NodeId successor);
  void end_sessions();
  Status reap_sessions();
  bool mounted() const;
  std::vector<Pusher::Mount> captured_mounts() const;
  void with_object_locked(SetNumber set, const FileId& id, const std::function<void()>& body);
  void on_fault(const Error& why);
  Json status_of_sets() const;
  Json json_of(const mirror::Shortage& shortage) const;
  std::vector<std::shared_ptr<ProtectedSet>> sets() const;  // fences and status look at them while one is removed

  std::atomic<std::uint64_t> verify_runs_{0};
  const ServicePaths paths_;
  platform::LeaseWord lease_;
  platform::Watchdog watchdog_;
  const std::function<void(const Json&)> push_;
  Unmarker unmarker_;

  std::mutex transition_mutex_;  // one role change or configuration at a time; taken first
  mutable std::mutex mutex_;     // config_, sets_, gate_
  std::optional<MirrorConfig> config_;
  Sets sets_;
  std::shared_ptr<EpochLeaseGate> gate_;                      // of the epoch whose captures are mounted
  std::vector<std::shared_ptr<EpochLeaseGate>> ended_gates_;  // threads of an aborted capture may still stand in them
  std::atomic<std::uint64_t> fenced_epoch_{
      0};  // the highest that was aborted: a role change under way captures nothing for it any more
  Told told_undo_state_;
  std::optional<Succession> inherited_;  // until the first configure; under transition_mutex_
  std::mutex agreed_mutex_;
  std::condition_variable agreed_cv_;
  Epoch agreed_;                               // holdfastd bears a restart in this epoch
  std::atomic<std::uint64_t> ended_epoch_{0};  // the last epoch that this process ended in order

  // Made by the first `configure`; they live as long as the process. In the order of their dependence.
  mutable platform::SystemTimes times_;
  std::unique_ptr<platform::FileIndex> index_;
  std::unique_ptr<platform::LmdbChangeStores> changes_;
  std::unique_ptr<platform::FolderSegmentStore> segments_;
  std::unique_ptr<platform::DurableSlots> state_;
  std::unique_ptr<ports::SegmentFile> hot_;
  std::unique_ptr<platform::DurableSlots> compared_, limits_;
  std::unique_ptr<platform::PosixLiveTree> live_;
  std::unique_ptr<platform::FolderSegmentStore> undo_segments_;
  std::unique_ptr<platform::DurableSlots> shadow_file_;
  std::unique_ptr<mirror::UndoJournal> undo_;
  std::atomic<std::uint64_t> send_keep_free_bytes_{0};
  std::unique_ptr<mirror::NodeLog> log_;
  std::unique_ptr<platform::MirrorRuntime> runtime_;
  std::unique_ptr<Pusher> pusher_;
  struct Look {
    std::unique_ptr<capture::LookMount> mount;
    std::uint64_t batch = 0;
    std::int64_t time_ns = 0;
    std::shared_ptr<mirror::ScratchView> scratch;  // null: read-only
  };
  Result<std::uint64_t> scratch_limit(const Json& request) const;
  // What a request to look asks for: the past, and where in the mount each folder of it stands.
  struct AskedFor {
    std::string dir;
    Look look;
    std::unique_ptr<mirror::PastView> view;
    std::vector<capture::LookMount::Root> roots;
  };
  Result<AskedFor> asked_for(const Json& request);
  void remember_look(const std::string& dir, Look look);
  std::mutex looks_mutex_;
  std::map<std::string, Look> looks_;  // by folder
};

}  // namespace holdfast::mirror_process
