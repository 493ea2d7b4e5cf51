// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/core.h>

#include "cli/views.h"

namespace holdfast::cli {
namespace {

using control::ClusterStatus;
using control::NodeStatus;

constexpr std::size_t label_width = 13;  // of the one-line sections

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

Style style_of_recovery(const NodeStatus& n) {
  if (!n.recovery_point_s) return Style::bad;
  return n.synchronized && *n.recovery_point_s < 5 ? Style::good : Style::warn;
}

Line section(const Page& page, const char* label) {
  Line line(page.look(), 1);
  line.add(label, Style::bold).to_column(1 + label_width);
  return line;
}

void add_head(Page& page, const ClusterStatus& s) {
  Line line(page.look(), 1);
  line.add(s.name.empty() ? "(no cluster)" : s.name, Style::bold).add("   ");
  line.add(page.look().unicode ? "● " : "* ", style_of_state(s.state)).add(s.state, style_of_state(s.state));
  if (!s.mode.empty()) line.add("   " + s.mode);
  if (s.lease) line.add(fmt::format("   epoch {}", s.lease->epoch));
  const std::string time = clock_text(s.time_ms);
  if (!time.empty() && line.left() > time.size() + 1)
    line.to_column(static_cast<std::size_t>(page.look().width) - time.size() - 1).add(time, Style::dim);
  page.add(line);
  if (!s.detail.empty())
    page.wrapped(s.detail, 1, style_of_state(s.state) == Style::good ? Style::plain : style_of_state(s.state));
  page.blank();
}

struct Columns {
  std::size_t name = 4, site = 4;
  explicit Columns(const ClusterStatus& s) {
    for (const NodeStatus& n : s.nodes) {
      name = std::max(name, visible_width(n.name));
      site = std::max(site, visible_width(n.site));
    }
    name = std::min<std::size_t>(name, 16);
    site = std::min<std::size_t>(site, 10);
  }
};

void add_node(Page& page, const NodeStatus& n, const Columns& c, std::int64_t now_ms) {
  const Look& look = page.look();
  const bool active = n.role == "active";
  Line line(look, 1);
  line.add(look.unicode ? "●" : "*", style_of_state(n.state)).add(" ");
  line.add(pad(n.name, c.name), active ? Style::bold : Style::plain).add("  ");
  line.add(pad(active ? "ACTIVE" : or_dash(n.role), 7), active ? Style::good : Style::plain).add("  ");
  line.add(pad(or_dash(n.identity), 9)).add("  ").add(pad(or_dash(n.site), c.site)).add("  ");
  line.add(pad(n.since_ms == 0 ? "-" : human_age(static_cast<double>(now_ms - n.since_ms) / 1000), 11)).add("  ");
  if (active) {
    line.add(pad("the original", 12), Style::dim);
  } else {
    const bool working = !n.synchronized && n.sync_progress;
    line.add(pad(n.synchronized ? "synchronized"
                 : working      ? n.sync_progress->kind
                                : "NO",
                 12),
             n.synchronized ? Style::good
             : working      ? Style::busy
                            : Style::bad);
    line.add("  ").add(n.recovery_point_s ? human_seconds(*n.recovery_point_s) : "unknown", style_of_recovery(n));
  }
  page.add(line);
  if (n.held)
    page.wrapped("held: does not take over by itself; end it with: holdfast release " + n.name, 5, Style::warn);
  if (n.sync_progress && !n.synchronized) {
    const control::SyncProgress& p = *n.sync_progress;
    Line bar(look, 5);
    bar.add(progress_bar(p.percent, 24, look.unicode), Style::busy)
        .add(fmt::format(" {:.0f} %  {}", p.percent, human_bytes(p.bytes)));
    if (p.total_objects > 0) bar.add(fmt::format(", {}/{} objects", p.done_objects, p.total_objects));
    if (p.remaining_s) bar.add(fmt::format(", {} left", human_age(*p.remaining_s)));
    page.add(bar);
  }
  if (!n.detail.empty())
    page.wrapped(n.detail, 5, style_of_state(n.state) == Style::good ? Style::dim : style_of_state(n.state));
}

void add_nodes(Page& page, const ClusterStatus& s) {
  const Columns c(s);
  Line head(page.look(), 3);
  head.add(pad("NODE", c.name) + "  ROLE     IDENTITY   " + pad("SITE", c.site) +
               "  SINCE        COPY          RECOVERY POINT",
           Style::bold);
  page.add(head);
  for (const NodeStatus& n : s.nodes) add_node(page, n, c, s.time_ms);
  page.blank();
}

void add_channels(Page& page, const ClusterStatus& s) {
  const char* label = "CHANNEL";
  for (const NodeStatus& n : s.nodes) {
    bool first = true;
    for (const control::ChannelPath& p : n.channel) {
      Line line = section(page, label);
      label = "";
      line.add(pad(first ? n.name : "", 9)).add(" ").add(p.path + "  ");
      line.add(p.state == "up"     ? "up"
               : p.state == "down" ? "DOWN"
                                   : p.state,
               p.state == "up" ? Style::good : Style::bad);
      if (p.rtt_ms && p.state == "up") line.add(fmt::format("  {:.2f} ms", *p.rtt_ms));
      page.add(line);
      first = false;
    }
  }
  label = "QUEUES";
  for (const NodeStatus& n : s.nodes) {
    if (n.role == "active" || (n.role != "passive" && n.queues.send_bytes == 0)) continue;
    Line line = section(page, label);
    label = "";
    const auto& q = n.queues;
    line.add(pad(n.name, 9))
        .add(" ")
        .add("to send " + human_bytes(q.send_bytes), q.send_age_s > 5 ? Style::warn : Style::plain);
    if (q.send_bytes > 0) line.add(fmt::format(" ({})", human_seconds(q.send_age_s)));
    if (q.send_mode == "disk") line.add(", on disk " + human_bytes(q.send_disk_bytes), Style::warn);
    if (q.send_mode == "map") line.add(fmt::format(", {} changed objects noted", q.changed_objects), Style::warn);
    line.add("   to apply " + human_bytes(q.receive_bytes), q.receive_age_s > 30 ? Style::warn : Style::plain);
    if (q.receive_bytes > 0) line.add(fmt::format(" ({})", human_seconds(q.receive_age_s)));
    page.add(line);
  }
}

void add_history(Page& page, const ClusterStatus& s) {
  const char* label = "HISTORY";
  for (const NodeStatus& n : s.nodes) {
    if (!n.undo || n.undo->state == "off" || n.role == "active") continue;
    Line line = section(page, label);
    label = "";
    line.add(pad(n.name, 9)).add(" ");
    if (n.undo->state != "on") line.add(n.undo->state + "  ", Style::warn);
    if (n.undo->oldest_ms != 0)
      line.add("back to " + human_age(static_cast<double>(s.time_ms - n.undo->oldest_ms) / 1000) + " ago   ");
    line.add(human_bytes(n.undo->bytes));
    if (n.undo->limit_bytes > 0) line.add(" of " + human_bytes(n.undo->limit_bytes), Style::dim);
    if (n.undo->shadows > 0) line.add(fmt::format("   {} shadow{}", n.undo->shadows, n.undo->shadows == 1 ? "" : "s"));
    page.add(line);
  }
}

void add_votes(Page& page, const ClusterStatus& s) {
  Line line = section(page, "LEASE");
  if (s.lease && !s.lease->holder.empty())
    line.add(s.lease->holder, Style::good)
        .add(fmt::format(", {:.1f} s left", static_cast<double>(s.lease->remaining_ms) / 1000));
  else
    line.add("nobody holds it", Style::bad);
  if (!s.votes.empty()) line.add("   votes");
  for (const control::VoteStatus& v : s.votes) {
    const bool good = v.reachable && v.granted;
    const char* mark = page.look().unicode ? (good          ? "✓"
                                              : v.reachable ? "–"
                                                            : "✗")
                                           : (good          ? "yes"
                                              : v.reachable ? "no"
                                                            : "LOST");
    line.add("  " + v.voter + " ").add(mark, good ? Style::good : v.reachable ? Style::warn : Style::bad);
  }
  page.add(line);
  Line witness = section(page, "WITNESS");
  if (s.witness) {
    witness.add(s.witness->name + "  ")
        .add(s.witness->address + "  ")
        .add(s.witness->state, style_of_state(s.witness->state));
    if (!s.witness->detail.empty()) witness.add("  " + s.witness->detail, Style::dim);
  } else {
    witness.add("none", s.nodes.size() == 2 ? Style::warn : Style::plain);
    if (s.nodes.size() == 2) witness.add("   add one with: holdfast token --witness", Style::dim);
  }
  page.add(witness);
}

void add_addresses(Page& page, const ClusterStatus& s) {
  const char* label = "PUBLIC";
  for (const control::PublicAddress& a : s.public_addresses) {
    Line line = section(page, label);
    label = "";
    line.add(a.address).add("  ");
    if (a.on.empty())
      line.add("nowhere", Style::bad);
    else
      line.add("on " + a.on, Style::good);
    line.add(fmt::format("  site {}, policy {}", or_dash(a.site), or_dash(a.policy)), Style::dim);
    page.add(line);
  }
  Line line = section(page, "CLIENTS");
  const auto& net = s.client_network;
  line.add("network " + or_dash(net.state), net.state == "open" ? Style::good : Style::warn);
  if (!net.on.empty()) line.add(" on " + net.on);
  if (!net.detail.empty()) line.add("  " + net.detail, Style::dim);
  page.add(line);
}

void add_applications(Page& page, const ClusterStatus& s) {
  page.blank();
  for (const control::ApplicationStatus& a : s.applications) {
    Line line = section(page, "APPLICATION");
    line.add(a.name, Style::bold).add("  ").add(a.health, style_of_state(a.health)).add("  " + a.state);
    if (!a.on.empty()) line.add(" on " + a.on);
    if (!a.detail.empty()) line.add("  " + a.detail, Style::dim);
    page.add(line);
    std::size_t width = 0;
    for (const auto& r : a.resources) width = std::max(width, visible_width(r.name));
    for (const auto& r : a.resources) {
      Line row(page.look(), 3 + static_cast<int>(label_width));
      row.add(pad(r.name, std::min<std::size_t>(width, 34))).add("  ").add(r.state, style_of_state(r.state));
      if (!r.detail.empty()) row.add("  " + r.detail, Style::dim);
      page.add(row);
    }
    for (const auto& p : s.protected_sets) {
      if (p.application != a.name) continue;
      Line row(page.look(), 3 + static_cast<int>(label_width));
      page.add(row.add(p.path).add("  " + p.write_policy, Style::dim));
    }
  }
  for (const auto& p : s.protected_sets) {
    const bool shown = std::any_of(s.applications.begin(), s.applications.end(),
                                   [&](const auto& a) { return a.name == p.application; });
    if (!shown) page.add(section(page, "FOLDER").add(p.path).add("  " + p.write_policy, Style::dim));
  }
  if (s.applications.empty() && s.protected_sets.empty())
    page.add(section(page, "APPLICATION").add("nothing is protected yet: holdfast protect postgresql", Style::warn));
}

// The command is what the row is for, so it is never cut: what doesn't fit goes to a line of its own.
void add_safety(Page& page, const ClusterStatus& s) {
  page.blank();
  const auto row = [&](const std::string& name, const std::string& state, Style style, const std::string& command) {
    Line line(page.look(), 1);
    line.add(pad(name, 24)).add(" ").add(pad(state, 11), style).add(" ");
    const bool fits = visible_width(command) <= line.left();
    if (fits) line.add(command, Style::dim);
    page.add(line);
    if (!fits) page.wrapped(command, 5, Style::dim);
  };
  page.add(Line(page.look(), 1).add(pad("SAFETY", 37) + "CHANGE WITH", Style::bold));
  const auto& f = s.automatic_failover;
  row("automatic failover", f.available ? "available" : "UNAVAILABLE", f.available ? Style::good : Style::bad,
      f.change_with);
  if (!f.reason.empty() && !f.available) page.wrapped(f.reason, 5, Style::warn);
  for (const auto& o : s.options) row(o.name, o.state, o.state == "off" ? Style::warn : Style::good, o.change_with);
}

void add_alerts(Page& page, const ClusterStatus& s) {
  if (s.alerts.empty()) return;
  page.blank();
  const char* label = "ALERTS";
  for (const control::Alert& a : s.alerts) {
    Line line = section(page, label);
    label = "";
    const Style style = style_of_state(a.severity);
    line.add(a.severity, style);
    if (a.since_ms != 0)
      line.add(fmt::format("  for {}", human_age(static_cast<double>(s.time_ms - a.since_ms) / 1000)), Style::dim);
    page.add(line);
    page.wrapped(a.text, 3, style);
    if (!a.hint.empty()) page.wrapped((page.look().unicode ? "→ " : "-> ") + a.hint, 5);
  }
}

}  // namespace

std::string clock_text(std::int64_t wall_ms) {
  std::string iso = control::iso_time(wall_ms);
  if (iso.size() < 19) return "";
  iso[10] = ' ';
  return iso.substr(0, 19) + " UTC";
}

Style style_of_state(const std::string& state) {
  for (const char* good : {"healthy", "running", "ok", "open", "info", "up"})
    if (state == good) return Style::good;
  for (const char* busy : {"busy", "connecting", "starting", "stopping"})
    if (state == busy) return Style::busy;
  for (const char* bad : {"error", "failed", "down"})
    if (state == bad) return Style::bad;
  return Style::warn;
}

std::string status_view(const ClusterStatus& status, const Look& look) {
  Page page(look);
  add_head(page, status);
  if (status.nodes.empty()) {
    page.wrapped("This machine belongs to no cluster.", 1);
    page.wrapped("Found one with:   holdfast init --name NAME --channel ADDRESS --public ADDRESS/LEN", 1);
    page.wrapped("or join one with: holdfast join ADDRESS --token TOKEN   (made there by: holdfast token)", 1);
    return page.text();
  }
  if (status.plan) {
    add_plan(page, *status.plan);
    page.blank();
  }
  add_nodes(page, status);
  add_channels(page, status);
  add_history(page, status);
  add_votes(page, status);
  add_addresses(page, status);
  add_applications(page, status);
  add_safety(page, status);
  add_alerts(page, status);
  return page.text();
}

std::string event_line(const control::Event& event, const Look& look) {
  Line line(look);
  line.add(clock_text(event.time_ms).substr(0, 19), Style::dim).add("  ").add(pad(event.node, 6)).add("  ");
  const Style style = event.severity == "error" ? Style::bad : event.severity == "warning" ? Style::warn : Style::plain;
  line.add(pad(event.severity, 7), style)
      .add("  ")
      .add(pad(event.actor, 10), Style::dim)
      .add("  ")
      .add(event.text, style);
  return line.text() + "\n";
}

std::string config_view(const control::ConfigReply& config, const Look& look) {
  Page page(look);
  std::size_t keys = 3, values = 5;
  for (const auto& item : config.items) {
    keys = std::max(keys, visible_width(item.key));
    values = std::max(values, visible_width(item.value));
  }
  keys = std::min<std::size_t>(keys, 30), values = std::min<std::size_t>(values, 20);
  for (const auto& item : config.items) {
    Line line(look);
    line.add(pad(item.key, keys), Style::bold)
        .add("  ")
        .add(pad(item.value, values), item.value == item.default_value ? Style::plain : Style::busy);
    if (item.value != item.default_value) line.add(fmt::format("  (default {})", item.default_value), Style::dim);
    page.add(line);
    page.wrapped(item.text, 4, Style::dim);
  }
  page.add(Line(look).add(fmt::format("version {}", config.version), Style::dim));
  return page.text();
}

}  // namespace holdfast::cli
