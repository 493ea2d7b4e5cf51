// SPDX-License-Identifier: Apache-2.0
// The past as people read it: how far each node can go back, shadows, what a rollback would do.
#include <algorithm>

#include <fmt/core.h>

#include "cli/views.h"
#include "control/when.h"

namespace holdfast::cli {
namespace {

using namespace control;

constexpr std::size_t most_spans = 4, most_gaps = 6, most_reach = 8;

std::string age(std::int64_t ms, std::int64_t now_ms) {
  return ms == 0 || now_ms < ms ? "" : human_age(static_cast<double>(now_ms - ms) / 1000) + " ago";
}

void add_spans(Page& page, const NodeTimeline& n, std::int64_t now_ms) {
  std::size_t shown = 0;
  for (const TimelineSpan& span : n.spans) {
    if (shown++ == most_spans) {
      page.add(Line(page.look(), 5).add(fmt::format("... {} more", n.spans.size() - most_spans), Style::dim));
      break;
    }
    Line line(page.look(), 5);
    line.add(local_time(span.from_ms, now_ms)).add(" to ").add(local_time(span.to_ms, now_ms));
    line.add(fmt::format("  {} points", span.points), Style::dim);
    if (shown == 1) line.add("  since " + age(span.from_ms, now_ms), Style::dim);
    page.add(line);
  }
  shown = 0;
  for (const TimelineGap& gap : n.gaps) {
    if (shown++ == most_gaps) break;
    std::string text = gap.time_ms == 0 ? "gap" : "gap at " + local_time(gap.time_ms, now_ms);
    if (gap.set != 0) text += fmt::format(" of folder {}", gap.set);
    page.wrapped(text + ": " + gap.why, 5, Style::warn);
  }
}

void add_points(Page& page, const NodeTimeline& n, std::int64_t now_ms) {
  for (const TimelinePoint& p : n.points) {
    Line line(page.look(), 7);
    line.add(pad(local_time(p.time_ms, now_ms), 19)).add("  ").add(p.consistent ? "mark" : "    ", Style::good);
    if (p.rewind) line.add("  went back here", Style::warn);
    if (!p.label.empty()) line.add("  " + p.label, Style::bold);
    page.add(line);
  }
}

void add_node(Page& page, const NodeTimeline& n, std::int64_t now_ms) {
  Line line(page.look(), 1);
  line.add(pad(n.node, 10), Style::bold).add("  ").add(pad(n.role, 7)).add("  ");
  const bool on = n.state == "on";
  line.add(n.state.empty() ? "unknown" : n.state, on ? Style::good : Style::warn);
  if (n.bytes > 0 || n.limit_bytes > 0) {
    line.add("  " + human_bytes(n.bytes));
    if (n.limit_bytes > 0) line.add(" of " + human_bytes(n.limit_bytes), Style::dim);
  }
  page.add(line);
  if (!n.detail.empty()) page.wrapped(n.detail, 5, on ? Style::dim : Style::warn);
  if (n.spans.empty() && n.detail.empty()) page.wrapped("no point to go back to", 5, Style::dim);
  add_spans(page, n, now_ms);
  add_points(page, n, now_ms);
}

std::string joined(const std::vector<std::string>& list) {
  std::string out;
  for (const std::string& item : list) out += (out.empty() ? "" : ", ") + item;
  return out;
}

// How far one can go back at all, and on which node. Of several nodes only: of one it is what stands there.
void add_reach(Page& page, const Timeline& t) {
  if (t.nodes.size() < 2) return;
  Line head(page.look(), 1);
  head.add(pad("cluster", 10), Style::bold).add("  ");
  if (t.reach.empty()) {
    page.add(head.add("no point to go back to on any node", Style::warn));
    return;
  }
  const std::int64_t oldest = t.reach.back().from_ms;
  page.add(head.add("back to " + local_time(oldest, t.time_ms)).add("  " + age(oldest, t.time_ms), Style::dim));
  std::size_t shown = 0;
  for (const ReachSpan& span : t.reach) {
    if (shown == most_reach) {
      page.add(Line(page.look(), 5).add(fmt::format("... {} more", t.reach.size() - most_reach), Style::dim));
      break;
    }
    if (shown > 0 && span.to_ms < t.reach[shown - 1].from_ms)
      page.wrapped(fmt::format("nothing from {} to {}: no node reaches it", local_time(span.to_ms, t.time_ms),
                               local_time(t.reach[shown - 1].from_ms, t.time_ms)),
                   5, Style::warn);
    Line line(page.look(), 5);
    line.add(local_time(span.from_ms, t.time_ms)).add(" to ").add(local_time(span.to_ms, t.time_ms));
    page.add(line.add("  on " + joined(span.nodes)));
    ++shown;
  }
}

void add_shadows(Page& page, const Timeline& t) {
  std::size_t width = 4;
  for (const ShadowStatus& s : t.shadows) width = std::max(width, visible_width(s.name));
  width = std::min<std::size_t>(width, 40);
  for (const ShadowStatus& s : t.shadows) {
    Line line(page.look(), 1);
    line.add(pad(s.name, width), Style::bold).add("  ").add(pad(local_time(s.time_ms, t.time_ms), 19)).add("  ");
    line.add(s.nodes.empty() ? "nowhere" : "on " + joined(s.nodes), s.nodes.empty() ? Style::bad : Style::plain);
    if (s.keep) line.add("  kept", Style::good);
    if (s.application_consistent) line.add("  application consistent", Style::dim);
    if (s.origin != "user") line.add("  " + s.origin, Style::dim);
    if (s.bytes_since > 0) line.add("  " + human_bytes(s.bytes_since), Style::dim);
    page.add(line);
  }
}

}  // namespace

std::string timeline_view(const Timeline& t, const Look& look) {
  Page page(look);
  page.add(Line(look, 1).add("HISTORY", Style::bold).add("  how far each node can go back", Style::dim));
  add_reach(page, t);
  for (const NodeTimeline& n : t.nodes) add_node(page, n, t.time_ms);
  page.blank();
  page.add(Line(look, 1).add("SHADOWS", Style::bold));
  add_shadows(page, t);
  if (t.shadows.empty()) page.wrapped("none: holdfast shadow create NAME", 1, Style::dim);
  page.blank();
  page.wrapped("go back with: holdfast rollback --to TIME|SHADOW --dry-run", 1, Style::dim);
  return page.text();
}

std::string shadows_view(const Timeline& t, const Look& look) {
  Page page(look);
  add_shadows(page, t);
  if (t.shadows.empty()) page.wrapped("no shadows: holdfast shadow create NAME", 0, Style::dim);
  return page.text();
}

std::string rollback_view(const RollbackReply& r, std::int64_t now_ms, const Look& look) {
  Page page(look);
  const auto row = [&](const char* label, const std::string& text, Style style = Style::plain) {
    page.wrapped(pad(label, 14) + text, 1, style);
  };
  row("point", local_time(r.time_ms, now_ms) + (r.label.empty() ? "" : " (" + r.label + ")") + " of " + r.node);
  row("taken back", fmt::format("everything since then: {} of changes", human_seconds(r.taken_back_s)), Style::warn);
  row("active", fmt::format("{} instead of {}; it serves when the application is healthy there", r.node, r.from));
  row("way back", r.undo_with + "  (once " + r.from + " is synchronized again; until then there is none)");
  for (const std::string& w : r.warnings) row("warning", w, Style::warn);
  return page.text();
}

std::string verify_view(const VerifyStatus& v, std::int64_t now_ms, const Look& look) {
  Page page(look);
  Line head(look);
  head.add("compared with " + v.node + ": ").add(v.state, v.state == "idle" ? Style::good : Style::busy);
  head.add(v.scrub ? "   the scrub runs by itself" : "   the scrub is off", v.scrub ? Style::dim : Style::warn);
  page.add(head);
  for (const VerifyPeer& p : v.peers) {
    Line row(look, 2);
    row.add(pad(p.node, 10), Style::bold).add("  ").add(pad(p.kind.empty() ? p.state : p.kind + " " + p.state, 14));
    row.add(fmt::format("  {:.0f} %  {} objects, {}", p.percent, p.objects, human_bytes(p.bytes)));
    row.add(fmt::format("  {} differences, {} repaired", p.differences, p.repaired),
            p.differences > 0 ? Style::warn : Style::good);
    page.add(row);
    if (p.open > 0) page.wrapped(fmt::format("{} known and not repaired", p.open), 4, Style::bad);
    for (const std::string& e : p.examples) page.wrapped(e, 6, Style::warn);
    if (p.last_full_ms != 0)
      page.wrapped("last full verification " + local_time(p.last_full_ms, now_ms) + ": " + p.last_result, 4,
                   Style::dim);
  }
  if (v.peers.empty()) page.wrapped("no copy is compared: none is synchronized, or this version can't", 2, Style::dim);
  return page.text();
}

}  // namespace holdfast::cli
