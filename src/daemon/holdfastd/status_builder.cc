// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/status_builder.h"

#include <algorithm>
#include <array>

#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/status_safety.h"

namespace holdfast::daemon {
namespace {

using nlohmann::json;

constexpr std::int64_t fresh_ms = 2'500;       // a summary comes twice a second
constexpr std::int64_t clock_skew_ms = 5'000;  // beyond it people compare wrong times

const json nothing;

class Builder {
 public:
  explicit Builder(const StatusSources& sources)
      : in_(sources), s_(sources.snapshot), value_(*sources.snapshot.value) {}

  control::ClusterStatus build() {
    out_.time_ms = in_.wall_ms;
    out_.name = s_.config.name;
    out_.id = s_.node.cluster_id;
    out_.mode = s_.config.mode;
    for (const cluster::Member& m : value_.members) {
      if (m.kind == cluster::MemberKind::data)
        out_.nodes.push_back(node(m));
      else
        witness(m);
    }
    std::sort(out_.nodes.begin(), out_.nodes.end(), [this](const auto& a, const auto& b) { return rank(a) < rank(b); });
    lease_and_votes();
    network();
    applications();
    options();
    plan();
    alerts();
    overall();
    return std::move(out_);
  }

 private:
  bool self(NodeId id) const { return id == s_.node.node_id; }
  NodeId active() const { return value_.active; }
  int rank(const control::NodeStatus& n) const {
    for (const cluster::Member& m : value_.members)
      if (m.name == n.name) return m.identity;
    return 99;
  }

  const json& summary(NodeId id) const {
    const auto it = s_.peers.find(id);
    return it != s_.peers.end() && in_.now_ms - it->second.received_ms < fresh_ms ? it->second.json : nothing;
  }
  const json& mirror_of(NodeId id) const {
    if (!self(id)) return member_of(summary(id), "mirror");
    return s_.mirror_connected && s_.mirror_age_ms >= 0 && s_.mirror_age_ms < fresh_ms ? s_.mirror : nothing;
  }
  std::string fault_of(NodeId id) const {
    if (!self(id)) return text_of(summary(id), "fault");
    return s_.fault.empty() ? s_.setup_error : s_.fault;
  }
  // The active says so itself; the register alone may be old.
  bool active_speaks() const {
    return self(active()) ? s_.office_epoch.value != 0 : text_of(summary(active()), "role") == "active";
  }
  const json& from_active(const char* member) const {
    return self(active()) ? nothing : member_of(summary(active()), member);
  }

  const json& peer_entry(NodeId id) const {
    if (!active_speaks()) return nothing;
    for (const json& p : list_of(mirror_of(active()), "peers"))
      if (text_of(p, "node_id") == to_hex(id)) return p;
    return nothing;
  }

  control::NodeStatus node(const cluster::Member& m) {
    static const char* identities[] = {"", "primary", "secondary", "tertiary"};
    control::NodeStatus n;
    n.name = m.name;
    n.node_id = to_hex(m.id);
    n.identity = m.identity <= 3 ? identities[m.identity] : "";
    n.site = m.site;
    n.self = self(m.id);
    n.version = self(m.id) ? HF_VERSION : text_of(summary(m.id), "version");
    n.since_ms = self(m.id) ? s_.role_since_wall_ms : static_cast<std::int64_t>(number_of(summary(m.id), "since_ms"));
    const bool heard = self(m.id) || !summary(m.id).is_null();
    const bool is_active = m.id == active() && active_speaks();
    n.role = is_active ? "active" : heard ? "passive" : "unknown";
    const json& entry = peer_entry(m.id);
    if (is_active) {
      n.synchronized = true;
      n.recovery_point_s = 0.0;
    } else {
      // A copy that is known to differ is never called synchronized, though it stays a target (I4).
      n.synchronized =
          text_of(entry, "state") == "synchronized" && value_.is_in_sync(m.id) && differences(entry, m.id) == 0;
      if (member_of(entry, "recovery_point_s").is_number()) n.recovery_point_s = real_of(entry, "recovery_point_s");
    }
    if (const json& point = member_of(member_of(mirror_of(m.id), "undo"), "consistent_point");
        member_of(point, "age_s").is_number())
      n.consistent_point_age_s = real_of(point, "age_s");
    n.held = !s_.config.held(m.id).empty();
    queues(m.id, entry, n);
    undo(m.id, n);
    hot(m.id, n);
    progress(entry, n);
    for (const auto& [id, paths] : in_.paths)
      if (id == m.id)
        for (const auto& p : paths) n.channel.push_back({p.address, p.connected ? "up" : "down", p.rtt_ms});
    state(heard, is_active, fault_of(m.id), entry, m.id, n);
    return n;
  }

  void queues(NodeId id, const json& entry, control::NodeStatus& n) {
    n.queues.send_bytes = number_of(entry, "queue_bytes");
    n.queues.send_age_s = real_of(entry, "oldest_s");
    n.queues.send_mode = text_of(entry, "mode");
    n.queues.send_disk_bytes = number_of(entry, "disk_bytes");
    n.queues.changed_objects = number_of(entry, "changed_objects");
    const json& receive = member_of(mirror_of(id), "receive");
    n.queues.receive_bytes = number_of(receive, "queue_bytes");
    n.queues.receive_age_s = real_of(receive, "queue_age_s");
  }

  std::uint64_t differences(const json& entry, NodeId id) const {
    std::uint64_t open = number_of(entry, "differences");
    for (const json& p : list_of(member_of(mirror_of(active()), "verify"), "peers"))
      if (text_of(p, "node_id") == to_hex(id)) open = std::max(open, number_of(p, "open"));
    return open;
  }

  void undo(NodeId id, control::NodeStatus& n) {
    const json& told = member_of(mirror_of(id), "undo");
    if (!told.is_object()) return;
    const auto ms = [&](const char* name) {
      const json& v = member_of(told, name);
      return v.is_number_integer() ? v.get<std::int64_t>() / ns_per_ms : 0;
    };
    n.undo = control::UndoStatus{text_of(told, "state"), number_of(told, "bytes"), number_of(told, "limit_bytes"),
                                 ms("oldest_time_ns"),   ms("newest_time_ns"),     number_of(told, "shadows")};
  }

  void hot(NodeId id, control::NodeStatus& n) {
    const json& told = member_of(mirror_of(id), "hot");
    if (!told.is_object() || id != active()) return;
    n.hot = control::HotStatus{number_of(told, "used"), {}};
    for (const json& set : list_of(told, "coarse"))
      if (set.is_number_unsigned()) n.hot->whole_sets.push_back(set.get<std::uint64_t>());
  }

  void progress(const json& entry, control::NodeStatus& n) {
    const json& resync = member_of(entry, "resync");
    if (text_of(entry, "state") != "resync") {
      const std::string kind = text_of(resync, "kind", "none");
      if (kind != "none")
        n.last_sync = control::LastSync{kind, number_of(resync, "done"), number_of(resync, "opened"),
                                        number_of(resync, "bytes"), number_of(resync, "sent_bytes")};
      return;
    }
    control::SyncProgress p;
    p.kind = text_of(resync, "kind", "resync");
    if (p.kind == "partial") p.kind = "resync of what changed";
    if (p.kind == "full") p.kind = "resync";
    p.done_objects = number_of(resync, "done");
    p.total_objects = number_of(resync, "total");
    p.bytes = number_of(resync, "bytes");
    p.percent =
        p.total_objects == 0
            ? 0
            : std::min(100.0, 100.0 * static_cast<double>(p.done_objects) / static_cast<double>(p.total_objects));
    n.sync_progress = p;
  }

  void state(bool heard, bool is_active, const std::string& fault, const json& entry, NodeId id,
             control::NodeStatus& n) {
    const std::string channel = text_of(entry, "state");
    if (!fault.empty()) {
      n.state = "error";
      n.detail = fault;
    } else if (!heard) {
      n.state = "connecting";
      n.detail = "does not answer";
    } else if (mirror_of(id).is_null()) {
      n.state = "error";
      n.detail = "its holdfast-mirror does not answer";
    } else if (!is_active && channel == "synchronized" && differences(entry, id) > 0) {
      n.state = "warning";
      n.detail = "differs from the active: see the alerts";
    } else if (is_active || n.synchronized) {
      n.state = "healthy";
    } else if (channel == "resync" || channel == "streaming" || channel == "synchronized") {
      n.state = "busy";
      n.detail = (channel == "resync" ? "is being synchronized" : "catches up") + consistent_point(id);
    } else {
      n.state = "warning";
      n.detail = (active_speaks() ? "not synchronized" : "no active tells how far it is") + consistent_point(id);
    }
  }

  // I6: where a node whose copy is not complete can be promoted by force.
  std::string consistent_point(NodeId id) const {
    const json& point = member_of(member_of(mirror_of(id), "undo"), "consistent_point");
    if (!point.is_object()) return {};
    if (!member_of(point, "age_s").is_number())
      return "; by force it could take over with data of a time that is not known";
    return fmt::format("; by force it could take over with the data of {:.0f} s ago", real_of(point, "age_s"));
  }

  void witness(const cluster::Member& m) {
    control::WitnessStatus w;
    w.name = m.name;
    if (const auto it = s_.config.nodes.find(to_hex(m.id)); it != s_.config.nodes.end() && !it->second.channel.empty())
      w.address = with_port(it->second.channel.front(), 9729);
    const auto connected = in_.connected.find(m.id);
    const bool up = connected != in_.connected.end() && connected->second;
    w.state = up ? m.voter ? "healthy" : "not admitted" : "connecting";
    if (!up) w.detail = "does not answer this node";
    out_.witness = w;
  }

  void lease_and_votes() {
    control::LeaseStatus lease;
    const bool mine = s_.office_epoch.value != 0;
    lease.epoch = value_.epoch().value;
    lease.remaining_ms =
        mine ? s_.lease_left_ns / ns_per_ms : static_cast<std::int64_t>(number_of(summary(active()), "lease_left_ms"));
    if (lease.remaining_ms > 0) lease.holder = name_of(active());
    out_.lease = lease;
    const json& told = from_active("votes");
    if (told.is_array()) {
      for (const json& v : told)
        out_.votes.push_back({text_of(v, "voter"), text_of(v, "kind"), flag_of(v, "reachable"), flag_of(v, "granted")});
      return;
    }
    for (const cluster::VoteStatus& v : s_.votes)
      if (v.voter)
        out_.votes.push_back(
            {v.name, v.kind == cluster::MemberKind::witness ? "witness" : "node", v.reachable, v.granted});
  }

  void network() {
    const bool open = self(active()) ? in_.network_open : flag_of(summary(active()), "network_open");
    const std::string on = open ? name_of(active()) : "";
    std::string site;
    for (const cluster::Member& m : value_.members)
      if (m.id == active()) site = m.site;
    for (const auto& p : s_.config.public_addresses)
      out_.public_addresses.push_back({p.address, p.site, p.policy, p.site == site ? on : ""});
    out_.client_network.state = !active_speaks() ? "unknown" : open ? "open" : "closed";
    out_.client_network.on = on;
    if (s_.config.public_addresses.empty()) out_.client_network.detail = "no public address is configured";
  }

  void applications() {
    for (const apps::Application& a : s_.config.applications) {
      control::ApplicationStatus status;
      status.name = a.name;
      status.plugin = a.plugin;
      status.state = "unknown";
      status.health = "unknown";
      if (self(active()) && s_.office_epoch.value != 0) {
        for (const auto& own : in_.applications)
          if (own.name == a.name) status = own;
      } else {
        for (const json& told : list_of(summary(active()), "applications"))
          if (text_of(told, "name") == a.name) read_application(told, status);
      }
      out_.applications.push_back(std::move(status));
    }
    for (const SetConfig& set : s_.config.sets) {
      const apps::Application* a = s_.config.application(set.application);
      out_.protected_sets.push_back({set.set, set.path, a != nullptr && a->plugin != "files" ? a->plugin : "",
                                     set.application, set.write_policy});
    }
  }

  void read_application(const json& told, control::ApplicationStatus& status) {
    status.state = text_of(told, "state", "unknown");
    status.health = text_of(told, "health", "unknown");
    status.detail = text_of(told, "detail");
    status.on = name_of(active());
    for (const json& r : list_of(told, "resources"))
      status.resources.push_back({text_of(r, "name"), text_of(r, "kind"), text_of(r, "state"), text_of(r, "detail")});
  }

  void options() {
    const auto toggle = [](const char* name, bool on, const char* key) {
      return control::OptionStatus{name, on ? "on" : "off",
                                   fmt::format("holdfast config set {} {}", key, on ? "off" : "on")};
    };
    const ClusterConfig& c = s_.config;
    out_.options.push_back(toggle("failover without asking", c.automatic_failover, "automatic_failover"));
    out_.options.push_back(toggle("automatic switchover", c.automatic_switchover, "automatic_switchover"));
    add_safety_options(s_, value_, out_.options);
    out_.options.push_back(
        {"mode", c.mode, fmt::format("holdfast config set mode {}", c.mode == "fsync" ? "async" : "fsync")});
    out_.options.push_back({"profile", c.profile,
                            fmt::format("holdfast config set profile {}", c.profile == "fast" ? "default" : "fast")});
    const json& told = from_active("automatic_failover");
    if (told.is_object())
      out_.automatic_failover = {flag_of(told, "available"), text_of(told, "reason"), text_of(told, "change_with")};
    else
      out_.automatic_failover = {s_.automatic_failover.available, s_.automatic_failover.reason,
                                 s_.automatic_failover.change_with};
    if (!active_speaks() && !told.is_object()) out_.automatic_failover.available = false;
    targets_that_cant_lead();
    judge_targets(
        s_, value_, [this](NodeId id) -> const json& { return peer_entry(id); }, out_.automatic_failover);
  }

  // Of those that may take over, and answer, none could, for now.
  void targets_that_cant_lead() {
    std::string why;
    for (const NodeId id : s_.value->in_sync) {
      if (id == active() || mirror_of(id).is_null() || !fault_of(id).empty()) continue;
      const std::string reason = why_it_cant_lead(mirror_of(id));
      if (reason.empty()) return;
      why += (why.empty() ? "" : "; ") + name_of(id) + ": " + reason;
    }
    if (why.empty() || !out_.automatic_failover.available) return;
    out_.automatic_failover = {false, why, "free space there"};
  }

  void plan() {
    out_.plan = in_.plan;
    for (const auto& [id, peer] : s_.peers) {
      const json& told = member_of(summary(id), "plan");
      if (!told.is_object()) continue;
      auto parsed = control::plan_status_from_json(told);
      // The old active tells the whole of a switchover.
      if (parsed && (!out_.plan || (out_.plan->id == parsed->id && parsed->steps.size() > out_.plan->steps.size())))
        out_.plan = *parsed;
    }
  }

  void add_alert(const char* severity, const char* code, std::string text, std::string hint) {
    out_.alerts.push_back({severity, code, std::move(text), std::move(hint), 0});
  }

  void alerts() {
    if (!s_.mirror_connected)
      add_alert("error", "mirror_down", "holdfast-mirror is not running on " + s_.node.node_name,
                "systemctl status holdfast-mirror");
    if (!s_.certificate_error.empty())
      add_alert("error", "certificate",
                "the certificate of " + s_.node.node_name + " could not be renewed: " + s_.certificate_error,
                "the other nodes refuse it once it has expired: copy ca.key from another node's /var/lib/holdfast/tls, "
                "then systemctl restart holdfastd");
    if (!active_speaks())
      add_alert("error", "no_active",
                "no node is the active now" + (s_.last_refusal.empty() ? std::string() : ": " + s_.last_refusal),
                "holdfast failover on the node that is to take over");
    add_safety_alerts(s_, value_, active_speaks(), out_.alerts);
    for (const auto& n : out_.nodes) {
      if (n.state == "connecting")
        add_alert("warning", "node_lost", n.name + " does not answer", "check the machine and its channel network");
      else if (n.state == "error")
        add_alert("error", "node_fault", n.name + ": " + n.detail,
                  "journalctl -u holdfastd -u holdfast-mirror on " + n.name);
      else if (n.role == "passive" && !n.synchronized && n.state == "warning")
        add_alert("warning", "not_synchronized", n.name + " is not synchronized",
                  "holdfast status --watch shows when it is");
      for (const auto& path : n.channel)
        if (path.state == "down" && n.state != "connecting")
          add_alert("warning", "path_down", "channel path to " + n.name + " at " + path.path + " is down", "");
    }
    if (out_.witness && out_.witness->state != "healthy")
      add_alert("warning", "witness", "the witness " + out_.witness->name + " is " + out_.witness->state,
                "systemctl status holdfast-witness there");
    for (const auto& [id, peer] : s_.peers) {
      const std::int64_t theirs = static_cast<std::int64_t>(number_of(summary(id), "wall_ms"));
      const std::int64_t skew = theirs - (in_.wall_ms - (in_.now_ms - peer.received_ms));
      if (theirs != 0 && std::abs(skew) > clock_skew_ms)
        add_alert("warning", "clock_skew",
                  fmt::format("the clock of {} is {:.0f} s {}", name_of(id), std::abs(static_cast<double>(skew)) / 1000,
                              skew > 0 ? "ahead" : "behind"),
                  "synchronize the clocks (chrony, systemd-timesyncd)");
    }
    for (const auto& n : out_.nodes) past_alerts(n);
    if (s_.config.undo_mib == 0 && !s_.config.undo_chosen && value_.data_nodes() > 1)
      add_alert("info", "no_history", "no undo history is kept, so nothing can be taken back (undo_mib 0)",
                "holdfast config set undo_mib auto keeps one; undo_mib 0, set once more, ends this hint");
    for (const cluster::Member& m : value_.members) {
      space_alerts(m);
      for (const json& l : list_of(mirror_of(m.id), "looks"))
        add_alert("info", "writable_view",
                  fmt::format("{} shows the past at {}, and holds {} of {} MiB that were written to it", m.name,
                              text_of(l, "dir"), number_of(l, "bytes") >> 20, number_of(l, "limit_bytes") >> 20),
                  fmt::format("holdfast look --end {} --node {} ends it", text_of(l, "dir"), m.name));
      if (const std::uint64_t open = differences(peer_entry(m.id), m.id); open > 0)
        add_alert("error", "differs",
                  fmt::format("the copy on {} differs from {} in {} places that were not repaired", m.name,
                              name_of(active()), open),
                  "holdfast verify --status names them; holdfast verify --trust-active takes the active's");
    }
    unconfirmed_alert();
    for (const auto& a : in_.application_alerts) out_.alerts.push_back(a);
    if (value_.data_nodes() == 2 && !value_.has_witness())
      add_alert("info", "no_witness", "a pair without witness can't fail over by itself",
                "holdfast token --witness, then holdfast-witness join on a third machine");
  }

  void past_alerts(const control::NodeStatus& n) {
    if (!n.undo) return;
    if (n.undo->state == "damaged")
      add_alert("warning", "undo_damaged",
                "the undo history of " + n.name + " is damaged: earlier points are lost there",
                "it begins anew by itself; holdfast timeline shows what there is");
    if (n.undo->state == "waiting_for_space" || n.undo->state == "resync_paused_for_undo_space")
      add_alert("warning", "undo_space", n.name + " applies nothing more: there is no space for its undo history",
                "free space under /var/lib/holdfast there, it goes on by itself");
  }

  // A full disk is a state with a name and a way out, wherever it is.
  void space_alerts(const cluster::Member& m) {
    struct Row {
      const char* where;
      const char* what;
    };
    constexpr std::array<Row, 5> rows = {{{"receive", "the receive queue"},
                                          {"state", "the state"},
                                          {"folder", "the protected folder"},
                                          {"history", "the undo history"},
                                          {"changes", "the map of changes"}}};
    const json& undo = member_of(mirror_of(m.id), "undo");
    if (const std::uint64_t stuck = number_of(undo, "deleted_stuck"); stuck != 0)
      add_alert("info", "deleted_stuck",
                fmt::format("{} on {} can't be taken away and {} space: {}",
                            stuck == 1 ? "a deleted file" : fmt::format("{} deleted files", stuck), m.name,
                            stuck == 1 ? "holds" : "hold", text_of(undo, "deleted_stuck_why")),
                "nothing waits for that; it is tried again every few minutes");
    for (const json& s : list_of(mirror_of(m.id), "space")) {
      if (!flag_of(s, "full")) continue;
      const std::string where = text_of(s, "where"), path = text_of(s, "path");
      std::string what = "a queue";
      for (const Row& r : rows)
        if (where == r.where) what = r.what;
      const auto peer = node_id_from_hex(text_of(s, "peer"));
      if (where == "send") {
        const std::string who = peer ? name_of(*peer) : "a peer";
        add_alert("warning", "queue_given_up",
                  fmt::format("the send queue of {} for {} was given up: {}", m.name, who, text_of(s, "text")),
                  fmt::format("{} gets what changed when it returns; to keep more next time free space under {}, raise "
                              "send_queue_mib or lower send_keep_free_mib",
                              who, path));
        continue;
      }
      if (peer) what += " for " + name_of(*peer);
      out_.alerts.push_back({"warning", "full_" + (where.empty() ? std::string("disk") : where),
                             fmt::format("{} is full under {} of {}", path.empty() ? "the disk" : path, what, m.name),
                             "free space there, it goes on by itself", 0});
    }
  }

  // Clients were kept out of a point at which the application is not healthy, and nobody is working on it any more.
  void unconfirmed_alert() {
    if (out_.public_addresses.empty() || out_.client_network.state != "closed" || out_.plan) return;
    add_alert(
        "error", "clients_kept_out", name_of(active()) + " is the active, but clients can't reach it",
        "holdfast plan shows why; another point: holdfast rollback --to TIME; another node: holdfast make-active NODE");
  }

  void overall() {
    std::string worst = "healthy";
    for (const auto& a : out_.alerts) {
      if (a.severity == "error")
        worst = "error";
      else if (a.severity == "warning" && worst != "error")
        worst = "warning";
      else if (a.severity == "info" && worst == "healthy")
        worst = "info";
      if (a.severity == worst && out_.detail.empty() && worst != "info") out_.detail = a.text;
    }
    const bool busy = out_.plan.has_value() || std::any_of(out_.nodes.begin(), out_.nodes.end(),
                                                           [](const auto& n) { return n.state == "busy"; });
    if (busy && (worst == "healthy" || worst == "info")) worst = "busy";
    out_.state = worst;
  }

  std::string name_of(NodeId id) const {
    const cluster::Member* m = value_.member(id);
    return m != nullptr ? m->name : to_hex(id);
  }

  const StatusSources& in_;
  const Snapshot& s_;
  const cluster::Value& value_;
  control::ClusterStatus out_;
};

}  // namespace

control::ClusterStatus build_status(const StatusSources& sources) {
  control::ClusterStatus out;
  out.time_ms = sources.wall_ms;
  const Snapshot& s = sources.snapshot;
  if (!s.member) {
    out.state = "stopped";
    out.detail = "this node is in no cluster: holdfast init makes one, holdfast join enters one";
    return out;
  }
  if (!s.value) {
    out.name = s.node.cluster_name;
    out.id = s.node.cluster_id;
    out.state = "connecting";
    out.detail = "waits for word of the cluster's active";
    return out;
  }
  return Builder(sources).build();
}

}  // namespace holdfast::daemon
