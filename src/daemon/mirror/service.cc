// SPDX-License-Identifier: Apache-2.0
// Requests, configuration and status. Role changes are in service_roles.cc.
#include "daemon/mirror/service.h"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "base/log.h"
#include "platform/durable_file.h"
#include "platform/process_setup.h"

namespace holdfast::mirror_process {
namespace {

// For measurements of what it costs, and nothing else.
bool hot_set_is_off() {
  const char* off = std::getenv("HOLDFAST_HOT_SET");
  return off && std::string_view(off) == "off";
}

std::uint32_t channel_features() {
  return mirror::feature_partial_resync | (hot_set_is_off() ? 0 : mirror::feature_hot_return);
}

nlohmann::json to_reply(const Result<nlohmann::json>& result) {
  nlohmann::json reply = {{"ok", result.has_value()}};
  if (result) {
    reply.update(*result);
    return reply;
  }
  reply["code"] = to_string(result.error().code);
  reply["error"] = result.error().to_string();
  return reply;
}

constexpr std::chrono::milliseconds recovery_point_target(1000);

std::uint64_t random_number() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

nlohmann::json to_json(const std::optional<mirror::WentBack>& back) {
  if (!back) return nullptr;
  return {{"plan", back->plan},
          {"position", {{"epoch", back->position.epoch.value}, {"seq", back->position.sequence.value}}},
          {"time_ns", back->time_ns},
          {"epoch", back->epoch.value}};
}

double seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

// Waits for one call of a callback that may come from any thread, also after we stopped waiting.
class Once {
 public:
  void set() {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }
  bool wait(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [this] { return done_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

nlohmann::json status_of_hot(const mirror::HotStatus& hot) {
  return {{"generation", hot.generation}, {"used", hot.used},   {"size", hot.slots},
          {"commits", hot.commits},       {"notes", hot.notes}, {"coarse", hot.whole}};
}

}  // namespace

Service::Service(ServicePaths paths, platform::LeaseWord lease, platform::Watchdog watchdog,
                 std::function<void(const Json&)> push)
    : paths_(std::move(paths)),
      lease_(std::move(lease)),
      watchdog_(std::move(watchdog)),
      push_(std::move(push)),
      unmarker_(paths_.state_dir + "/unmark.json") {}

Service::~Service() { shut_down(); }

platform::ControlSocket::Answer Service::handle(const Json& request) {
  const std::string op = request.at("op").get<std::string>();
  if (op == "wait_set") return wait_set(request);
  using Operation = Result<Json> (Service::*)(const Json&);
  static const std::map<std::string, Operation> operations = {
      {"configure", &Service::configure},
      {"seal", &Service::seal},
      {"activate", &Service::activate},
      {"release_capture", &Service::release_capture},
      {"abort", &Service::abort},
      {"follow", &Service::follow},
      {"restart_agreed", &Service::restart_agreed},
      {"timeline", &Service::timeline},
      {"resolve", &Service::resolve},
      {"rewind", &Service::rewind},
      {"look", &Service::look},
      {"look_writable", &Service::look_writable},
      {"look_end", &Service::look_end},
      {"looks", &Service::looks},
      {"shadow_mark", &Service::shadow_mark},
      {"shadow_here", &Service::shadow_here},
      {"shadow_keep", &Service::shadow_keep},
      {"shadow_delete", &Service::shadow_delete},
      {"verify", &Service::verify},
      {"verify_stop", &Service::verify_stop},
  };
  if (op == "status") return [this] { return to_reply(status()); };
  const auto found = operations.find(op);
  if (found == operations.end()) {
    return [op] { return to_reply(fail(ErrorCode::invalid, "unknown operation {}", op)); };
  }
  return [this, operation = found->second, request] { return to_reply((this->*operation)(request)); };
}

// --- configuration

Result<nlohmann::json> Service::configure(const Json& request) {
  HF_ASSIGN(auto config, MirrorConfig::parse(request));
  const std::lock_guard transition(transition_mutex_);
  if (!log_) HF_TRY(start_log(config));
  if (!runtime_) HF_TRY(start_runtime(config));
  log_->set_application_waits(config.fsync_mode);
  send_keep_free_bytes_ = config.send_keep_free_bytes;
  log_->set_queue_limits(config.send_limit_bytes, config.receive_limit_bytes);
  log_->set_scrub({config.scrub, config.scrub_mib_s << 20});
  unmarker_.stop();
  HF_TRY(take_sets(config));
  undo_->set_settings(undo_settings(config));
  log_->set_history(config.keeps_history());
  std::vector<platform::PeerAddresses> peers;
  for (const auto& peer : config.peers) peers.push_back({peer.id, peer.name, peer.addresses});
  runtime_->set_peers(peers);
  HF_TRY(remember_paths(config));
  std::vector<std::string> paths;
  for (const auto& set : config.sets) paths.push_back(set.path);
  HF_ASSIGN(platform::StillProtected others, still_protected());
  unmarker_.start(paths, std::move(others));
  go_on(config);
  const std::lock_guard lock(mutex_);
  config_ = std::move(config);
  return Json::object();
}

Status Service::start_log(const MirrorConfig& config) {
  HF_TRY(platform::make_private_dir(paths_.state_dir));
  // What an attempt that failed half-way left open is closed first: the index must not be open twice in one process.
  undo_.reset();
  shadow_file_.reset();
  undo_segments_.reset();
  live_.reset();
  state_.reset();
  hot_.reset();
  compared_.reset();
  limits_.reset();
  changes_.reset();
  segments_.reset();
  index_.reset();
  HF_ASSIGN(index_, platform::FileIndex::open(paths_.state_dir + "/index"));
  HF_ASSIGN(segments_, platform::FolderSegmentStore::open(paths_.state_dir + "/receive", log::default_segment_bytes));
  state_ = std::make_unique<platform::DurableSlots>(paths_.state_dir + "/state");
  compared_ = std::make_unique<platform::DurableSlots>(paths_.state_dir + "/compared");
  limits_ = std::make_unique<platform::DurableSlots>(paths_.state_dir + "/limits");
  live_ = std::make_unique<platform::PosixLiveTree>(
      *index_, [this](SetNumber set, const FileId& id, const std::function<void()>& body) {
        with_object_locked(set, id, body);
      });
  HF_TRY(open_history(config));
  mirror::NodeLogConfig log_config;
  log_config.cluster_id = config.cluster;
  log_config.node = config.node;
  log_config.node_name = config.node_name.empty() ? to_hex(config.node) : config.node_name;
  log_config.ring_bytes = config.ring_bytes;
  log_config.life = random_number();
  log_config.features = channel_features();
  log_config.send_limit_bytes = config.send_limit_bytes;
  log_config.receive_limit_bytes = config.receive_limit_bytes;
  mirror::NodeLogEvents events;
  events.fault = [this](const Error& why) { on_fault(why); };
  events.peer_state = [this](NodeId peer, mirror::PeerState state) {
    push_({{"event", "peer"}, {"node_id", to_hex(peer)}, {"state", mirror::to_string(state)}});
  };
  events.shadow_dropped = [this](const mirror::Shadow& shadow, const std::string& why) {
    push_({{"event", "shadow_dropped"}, {"name", shadow.name}, {"why", why}});
  };
  events.history_shortened = [this](const std::string& why, std::int64_t oldest_time_ns) {
    push_({{"event", "history_shortened"}, {"why", why}, {"oldest_time_ns", oldest_time_ns}});
  };
  events.doubted = [this](SetNumber set, const std::string& why) {
    push_({{"event", "doubted"}, {"set", set}, {"why", why}});
  };
  events.space = [this](const mirror::Shortage& s, bool full) {
    Json e = json_of(s);
    e["event"] = "space";
    e["full"] = full;
    push_(e);
  };
  events.verified = [this](const mirror::VerifyStatus& s) { on_verified(s); };
  events.returned = [this](const mirror::Returned& r) {
    push_({{"event", "returned"},
           {"node_id", to_hex(r.peer)},
           {"epoch", r.led.value},
           {"files", r.reconciled.files},
           {"folders", r.reconciled.folders},
           {"whole_sets", r.reconciled.whole},
           {"why_whole", r.why_whole}});
  };
  events.may_hold_dirty = [this] {
    for (const auto& mount : captured_mounts())
      if (!mount.session->open_for_write().empty()) return true;
    return false;
  };
  // Peers that fall behind further than their queue are compared as a whole where this can't be had.
  if (auto changes = platform::LmdbChangeStores::open(paths_.state_dir + "/changes"); changes)
    changes_ = std::move(*changes);
  else
    log_warning("{}", changes.error().to_string());
  const std::string send_dir = paths_.state_dir + "/send";
  HF_TRY(platform::FolderSegmentStore::clear_scratch(send_dir));  // nobody knows what was acknowledged of it
  HF_TRY(platform::make_private_dir(send_dir));
  const auto open_spill = [this, send_dir](NodeId peer) -> Result<std::unique_ptr<ports::SegmentStore>> {
    HF_ASSIGN(auto store, platform::FolderSegmentStore::open_scratch(send_dir + "/" + to_hex(peer),
                                                                     [this] { return send_keep_free_bytes_.load(); }));
    return store;
  };
  mirror::NodeLogPorts ports{*segments_, *state_,           times_, *live_, *index_, *undo_, undo_.get(),
                             open_spill, shadow_file_.get()};
  ports.compared = compared_.get();
  ports.note_active = [file = paths_.state_dir + "/active"] {
    if (std::error_code error; !std::filesystem::exists(file, error)) std::ofstream{file};
    std::error_code ignored;  // a disk that is full or broken says so elsewhere; an older time is a safe answer
    std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now(), ignored);
  };
  ports.last_active_ns = [file = paths_.state_dir + "/active"]() -> std::int64_t {
    std::error_code error;
    const auto time = std::filesystem::last_write_time(file, error);
    if (error) return 0;
    return std::chrono::nanoseconds(std::chrono::file_clock::to_sys(time).time_since_epoch()).count();
  };
  ports.changes = changes_.get();
  ports.limits = limits_.get();
  HF_TRY(open_hot(ports));
  HF_ASSIGN(log_, mirror::NodeLog::open(log_config, ports, std::move(events)));
  if (mirror::HotGate* gate = log_->capture_log().hot()) {
    index_->around_identify([gate](SetNumber set, const auto& body) { return gate->with_whole_set(set, body); });
  }
  return {};
}

Status Service::open_hot(mirror::NodeLogPorts& ports) {
  if (hot_set_is_off()) return {};
  constexpr std::uint64_t number = 1, bytes = mirror::hot_file_bytes(mirror::HotSetOptions{}.slots);
  HF_ASSIGN(const auto store, platform::FolderSegmentStore::open(paths_.state_dir + "/hot", bytes));
  HF_ASSIGN(const auto there, store->list());
  if (!there.empty()) {
    HF_ASSIGN(hot_, store->open(number));
    if (hot_->size() < bytes) {  // a crash came while it was made
      hot_.reset();
      HF_TRY(store->remove(number));
    }
  }
  if (!hot_) {
    HF_ASSIGN(hot_, store->create(number, bytes));
  }
  ports.hot = hot_.get();
  ports.unused_block = [this] { return index_->unused_block(); };
  ports.ids_of_block = [this](const mirror::IdBlock& block, const auto& found) {
    return index_->ids_of_block(block.base(), found);
  };
  return {};
}

Status Service::start_runtime(const MirrorConfig& config) {
  platform::MirrorRuntime::Options options;
  if (!config.listen_address.empty()) options.listen_address = config.listen_address;
  options.listen_port = config.listen_port;
  options.tls_dir = config.tls_dir;
  HF_ASSIGN(runtime_, platform::MirrorRuntime::start(options, *log_));
  pusher_ = std::make_unique<Pusher>(
      recovery_point_target, [this] { return captured_mounts(); }, [this] { return times_.steady_ns(); },
      [this](std::int64_t began_ns) { log_->mark_consistent(began_ns); });
  platform::lock_memory();
  return {};
}

Status Service::take_sets(const MirrorConfig& config) {
  for (const auto& old : sets())
    if (const auto* same = config.find_set(old->config().set); !same || !same->is_same_as(old->config()))
      HF_TRY(remove_set(old->config().set));
  // The log may hold records of what was unprotected while this node was down or no member yet; apply would wait for those sets for ever.
  for (SetNumber number = 1; number < config.next_set; ++number)
    if (!config.find_set(number) && !sets_.contains(number)) HF_TRY(log_->remove_set(number));
  for (const auto& wanted : config.sets)
    if (!sets_.contains(wanted.set)) HF_TRY(add_set(wanted));
  return {};
}

Status Service::add_set(const SetConfig& config) {
  HF_ASSIGN(std::shared_ptr<ProtectedSet> set, ProtectedSet::open(config, *index_, inherits(config.path)));
  HF_ASSIGN(auto root, set->duplicate_root());
  live_->add(config.set, std::move(root));
  // The log first: a capture that mounts finds its set known, and a peer that connects meanwhile is told of it.
  HF_TRY(log_->add_set(set->tree(), config.protected_in));
  std::shared_ptr<EpochLeaseGate> gate;
  {
    const std::lock_guard lock(mutex_);
    sets_[config.set] = set;
    gate = gate_;
  }
  if (gate) {
    // Known but not captured would count as "this node captures nothing": a set that can't be mounted is not protected at all.
    if (auto mounted = mount_one(*set, *gate); !mounted) {
      if (auto undone = remove_set(config.set); !undone) log_warning("{}", undone.error().to_string());
      return mounted;
    }
  }
  log_info("{}: protected as set {}", config.path, config.set);
  return {};
}

Status Service::remove_set(SetNumber number) {
  const std::shared_ptr<ProtectedSet> kept = sets_.at(number);
  ProtectedSet& set = *kept;
  std::vector<capture::Holder> holders;
  end_looks();
  const auto no_push = pusher_->pause();
  HF_TRY(set.unmount(std::chrono::seconds(5), &holders));
  HF_TRY(log_->remove_set(number));
  live_->remove(number);
  HF_TRY(set.release());
  log_info("{}: no longer protected", set.config().path);
  const std::lock_guard lock(mutex_);
  sets_.erase(number);
  return {};
}

std::vector<std::shared_ptr<ProtectedSet>> Service::sets() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ProtectedSet>> all;
  for (const auto& [number, set] : sets_) all.push_back(set);
  return all;
}

void Service::with_object_locked(SetNumber number, const FileId& id, const std::function<void()>& body) {
  std::shared_ptr<capture::Session> session;
  {
    const std::lock_guard lock(mutex_);
    const auto it = sets_.find(number);
    if (it != sets_.end()) session = it->second->session();
  }
  // Without a capture nothing changes the tree, so there is nothing to lock out.
  if (!session) return body();
  const auto guard = session->locks().lock(id);
  body();
}

// --- wait set

platform::ControlSocket::Answer Service::wait_set(const Json& request) {
  std::set<NodeId> peers;
  for (const auto& text : request.at("peers")) {
    const auto id = node_id_from_hex(text.get<std::string>());
    if (!id) return [e = id.error()] { return to_reply(tl::unexpected(e)); };
    peers.insert(*id);
  }
  if (!log_) return [] { return to_reply(fail(ErrorCode::unavailable, "not configured yet")); };
  log_->set_wait_set(std::move(peers));
  log_->let_peers_in(request.contains("epoch") ? Epoch(request.at("epoch").get<std::uint64_t>())
                                               : log_->active_epoch());
  // The reply is the promise that nothing was ever acknowledged to the application that the new set lacks: fsyncs that were answered without
  // it covered at most what is in the log now, so it is enough that the set holds all of that.
  const auto settled = std::make_shared<Once>();
  const Sequence so_far = log_->capture_log().last_sequence();
  log_->when_held(so_far, [settled] { settled->set(); });
  return [settled, so_far] {
    constexpr std::chrono::milliseconds patience(4000);
    if (settled->wait(patience)) return to_reply(Json::object());
    return to_reply(fail(ErrorCode::timeout, "not every waited-for peer holds sequence {} yet", so_far.value));
  };
}

// --- status

nlohmann::json Service::status_of_sets() const {
  Json all = Json::array();
  for (const auto& set : sets()) {
    Json one = {{"set", set->config().set}, {"path", set->config().path}, {"mounted", false}};
    if (const auto session = set->session()) {
      const auto stats = session->stats();
      one.update({{"mounted", !session->ended()},
                  {"transport", session->transport() == capture::TransportKind::uring ? "io_uring" : "dev"},
                  {"operations", stats.operations},
                  {"bytes_written", stats.bytes_written},
                  {"syncs", stats.syncs},
                  {"inodes", stats.inodes},
                  {"waiting_for_space", stats.waiting_for_space}});
    }
    all.push_back(std::move(one));
  }
  return all;
}

// The path is where room has to be made.
nlohmann::json Service::json_of(const mirror::Shortage& s) const {
  Json out = {{"where", to_string(s.where)}, {"text", s.text}};
  switch (s.where) {
    case mirror::Shortage::Where::receive:
      out["path"] = paths_.state_dir + "/receive";
      break;
    case mirror::Shortage::Where::history:
      out["path"] = paths_.state_dir + "/undo";
      break;
    case mirror::Shortage::Where::send:
      out["path"] = paths_.state_dir + "/send";
      out["peer"] = to_hex(s.peer);
      break;
    case mirror::Shortage::Where::folder: {
      // Apply does not say which; of several it is the one with the least room.
      std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
      out["path"] = "";
      for (const auto& set : sets()) {
        std::error_code error;
        const auto space = std::filesystem::space(set->config().path, error);
        if (error || space.available >= least) continue;
        least = space.available;
        out["path"] = set->config().path;
      }
      break;
    }
  }
  return out;
}

Result<nlohmann::json> Service::status() {
  if (!log_)
    return Json{{"role", "idle"},        {"epoch", 0},
                {"mounted", false},      {"configured", false},
                {"sets", Json::array()}, {"peers", Json::array()}};
  const auto s = log_->status();
  std::map<NodeId, std::uint64_t> differences;
  for (const auto& v : log_->verify_status()) differences[v.peer] = v.open;
  Json peers = Json::array();
  for (const auto& p : s.peers) {
    peers.push_back({{"node_id", to_hex(p.node)},
                     {"name", p.name},
                     {"path", runtime_ ? runtime_->path(p.node) : ""},
                     {"connected", p.state != mirror::PeerState::lost && p.state != mirror::PeerState::connecting},
                     {"state", mirror::to_string(p.state)},
                     {"complete", p.complete},
                     {"sent_seq", p.sent.value},
                     {"acked_seq", p.acked.value},
                     {"applied_seq", p.applied.value},
                     {"recovery_point_s", p.recovery_point_ns < 0 ? Json() : Json(seconds(p.recovery_point_ns))},
                     {"mode", mirror::to_string(p.queue.mode)},
                     {"queue_bytes", p.queue.ring_bytes + p.queue.disk_bytes},
                     {"disk_bytes", p.queue.disk_bytes},
                     {"disk_segments", p.queue.disk_segments},
                     {"given_up", p.queue.given_up},
                     {"oldest_s", seconds(p.oldest_ns)},
                     {"differences", differences[p.node]},
                     {"sent_bytes", p.sent_bytes},
                     {"changed_objects", p.changed_objects},
                     {"resync",
                      {{"done", p.resync.done},
                       {"total", p.resync.total},
                       {"bytes", p.resync.bytes},
                       {"sent_bytes", p.resync.sent_bytes},
                       {"opened", p.resync.opened},
                       {"begun", p.resyncs},
                       {"kind", p.resyncs == 0     ? "none"
                                : p.resync.partial ? "partial"
                                                   : "full"}}}});
  }
  Json waits = Json::array(), space = Json::array();
  for (const auto& shortage : s.shortages) {
    space.push_back(json_of(shortage));
    space.back()["full"] = true;
  }
  for (const NodeId id : log_->wait_set()) waits.push_back(to_hex(id));
  return Json{{"role", mirror::to_string(s.role)},
              {"epoch", s.epoch.value},
              {"ended_epoch", ended_epoch_.load()},
              {"mounted", mounted()},
              {"sealed", s.sealed.value},
              {"clean", s.receive.clean},
              {"configured", true},
              {"position", {{"epoch", s.position.epoch.value}, {"seq", s.position.sequence.value}}},
              {"last_seq", log_->capture_log().last_sequence().value},
              {"sets", status_of_sets()},
              {"ring", {{"size", s.ring_bytes}, {"used", s.ring_used_bytes}}},
              {"hot", s.hot ? status_of_hot(*s.hot) : Json()},
              {"peers", std::move(peers)},
              {"wait_set", std::move(waits)},
              {"receive",
               {{"from", s.receive.from == NodeId() ? Json() : Json(to_hex(s.receive.from))},
                {"logged_seq", s.receive.logged.value},
                {"applied_seq", s.receive.applied.value},
                {"queue_bytes", s.receive.queue_bytes},
                {"limit_bytes", s.receive.limit_bytes},
                {"queue_age_s", seconds(s.receive.queue_age_ns)},
                {"complete", s.receive.complete},
                {"clean", s.receive.clean},
                {"resyncing", s.receive.resyncing}}},
              {"space", std::move(space)},
              {"undo", status_of_undo(s)},
              {"went_back", to_json(s.went_back)},
              {"verify", status_of_verify()},
              {"looks", status_of_looks()},
              {"fault", s.fault}};
}

}  // namespace holdfast::mirror_process
