// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/past.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "daemon/holdfastd/json_read.h"

namespace holdfast::daemon {
namespace {

using nlohmann::json;

constexpr std::int64_t ns_per_ms_of_time = 1'000'000;
constexpr std::int64_t same_end_ms = 5'000;

std::int64_t signed_of(const json& j, const char* name) {
  const json& v = member_of(j, name);
  return v.is_number_integer() ? v.get<std::int64_t>() : 0;
}

std::int64_t ms_of(const json& j, const char* name) { return signed_of(j, name) / ns_per_ms_of_time; }

}  // namespace

control::NodeTimeline node_timeline(const std::string& node, const std::string& role, const json& timeline,
                                    const json& undo, std::uint64_t points) {
  control::NodeTimeline n;
  n.node = node;
  n.role = role;
  n.state = text_of(undo, "state", "unknown");
  n.bytes = number_of(undo, "bytes");
  n.limit_bytes = number_of(undo, "limit_bytes");
  std::int64_t oldest = ms_of(timeline, "oldest_time_ns"), newest = ms_of(timeline, "newest_time_ns");
  if (oldest == 0) oldest = ms_of(undo, "oldest_time_ns");
  if (newest == 0) newest = ms_of(undo, "newest_time_ns");
  for (const json& p : list_of(timeline, "points")) {
    const std::int64_t at = ms_of(p, "time_ns");
    if (oldest == 0 || (at != 0 && at < oldest)) oldest = at;
    newest = std::max(newest, at);
    if (n.points.size() < points)
      n.points.push_back(
          {number_of(p, "batch"), at, flag_of(p, "consistent"), flag_of(p, "rewind"), text_of(p, "label")});
  }
  // Points are listed only where they can be gone back to, so from the oldest to the newest there is no hole.
  const std::uint64_t count = std::max<std::uint64_t>(number_of(undo, "batches"), list_of(timeline, "points").size());
  if (oldest != 0 && count > 0) n.spans.push_back({oldest, std::max(newest, oldest), count});
  for (const json& g : list_of(timeline, "gaps"))
    n.gaps.push_back({ms_of(g, "time_ns"), static_cast<std::uint16_t>(number_of(g, "set")), text_of(g, "why")});
  std::reverse(n.gaps.begin(), n.gaps.end());
  if (n.spans.empty() && role == "active" && n.state == "on")
    n.detail = "it leads: its history begins when it follows again, and what it kept before it took over is gone";
  return n;
}

std::vector<control::ReachSpan> cluster_reach(const std::vector<control::NodeTimeline>& nodes) {
  struct Span {
    std::int64_t from, to;
    const std::string* node;
  };
  std::vector<Span> spans;
  std::int64_t newest = 0;
  for (const control::NodeTimeline& n : nodes)
    for (const control::TimelineSpan& s : n.spans) {
      spans.push_back({s.from_ms, s.to_ms, &n.node});
      newest = std::max(newest, s.to_ms);
    }
  // One applies what another has a moment later: where each stands now is no difference in how far it goes back.
  std::set<std::int64_t> edges;
  for (Span& s : spans) {
    if (newest - s.to < same_end_ms) s.to = newest;
    edges.insert(s.from);
    edges.insert(s.to);
  }
  std::vector<control::ReachSpan> all;
  for (auto to = edges.rbegin(); to != edges.rend() && std::next(to) != edges.rend(); ++to) {
    control::ReachSpan piece{*std::next(to), *to, {}};
    for (const Span& s : spans)
      if (s.from <= piece.from_ms && s.to >= piece.to_ms) piece.nodes.push_back(*s.node);
    if (!piece.nodes.empty()) all.push_back(std::move(piece));
  }
  if (all.empty() && !spans.empty()) {  // one moment only
    all.push_back({newest, newest, {}});
    for (const Span& s : spans) all.front().nodes.push_back(*s.node);
  }
  return all;
}

std::string reach_of(const std::string& node, const std::string& role, const Result<json>& timeline,
                     std::int64_t now_ms) {
  if (!timeline) return fmt::format("{}: {}", node, timeline.error().message);
  const control::NodeTimeline n = node_timeline(node, role, *timeline, json(), 0);
  if (!n.spans.empty())
    return fmt::format("{} goes back to {}", node, control::local_time(n.spans.front().from_ms, now_ms));
  if (role != "active") return fmt::format("{} has no point to go back to", node);
  for (const control::TimelineGap& gap : n.gaps)
    if (gap.set == 0 && gap.time_ms != 0)
      return fmt::format("{} leads since {}, and what it kept before that is gone", node,
                         control::local_time(gap.time_ms, now_ms));
  return fmt::format("{} leads, and has no history of its own", node);
}

void add_shadows(const std::string& node, const json& timeline, std::vector<control::ShadowStatus>& all) {
  for (const json& row : list_of(timeline, "shadows")) {
    const std::string name = text_of(row, "name");
    if (name.empty()) continue;
    auto it = std::find_if(all.begin(), all.end(), [&](const auto& s) { return s.name == name; });
    if (it == all.end()) {
      it = all.insert(all.end(), control::ShadowStatus{});
      it->name = name;
      it->origin = text_of(row, "origin", "user");
    }
    it->time_ms = std::max(it->time_ms, ms_of(row, "time_ns"));
    it->keep = it->keep || flag_of(row, "keep");
    it->application_consistent = it->application_consistent || flag_of(row, "application_consistent");
    it->bytes_since = std::max(it->bytes_since, number_of(row, "bytes_since"));
    it->nodes.push_back(node);
  }
}

void sort_shadows(std::vector<control::ShadowStatus>& all) {
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return std::tie(b.time_ms, b.name) < std::tie(a.time_ms, a.name); });
}

std::string shadow_meant(const json& timeline, const std::string& name) {
  std::string newest;
  std::int64_t newest_ns = -1;
  for (const json& row : list_of(timeline, "shadows")) {
    const std::string each = text_of(row, "name");
    if (each == name) return name;
    if (text_of(row, "origin") == "user" || !each.starts_with(name + "-")) continue;
    if (const std::int64_t at = signed_of(row, "time_ns"); at > newest_ns) newest_ns = at, newest = each;
  }
  return newest.empty() ? name : newest;
}

json resolve_request(const control::When& when, std::uint64_t batch, const json& timeline, std::int64_t now_ns) {
  if (batch != 0) return {{"batch", batch}};
  if (when.kind == control::When::Kind::shadow) return {{"shadow", shadow_meant(timeline, when.shadow)}};
  return {{"time_ns", when.at_ns(now_ns)}};
}

Result<PastPoint> past_point(const json& reply) {
  PastPoint p;
  if (flag_of(reply, "now")) {
    p.now = true;
    return p;
  }
  p.batch = number_of(reply, "batch");
  p.time_ns = signed_of(reply, "time_ns");
  p.label = text_of(reply, "label");
  p.data_bytes = number_of(reply, "data_bytes");
  const json& position = member_of(reply, "position");
  p.position = {Epoch(number_of(position, "epoch")), Sequence(number_of(position, "seq"))};
  if (p.batch == 0) return fail(ErrorCode::corrupt, "the mirror named no point of its history");
  return p;
}

Result<PastCandidate> best_candidate(std::vector<PastCandidate> candidates, const std::string& to,
                                     const std::vector<std::string>& reaches) {
  std::optional<PastCandidate> best;
  std::string why;
  ErrorCode code = ErrorCode::refused;
  for (PastCandidate& c : candidates) {
    if (c.point && !c.point->now) {
      const bool better = !best || c.point->time_ns > best->point->time_ns ||
                          (c.point->time_ns == best->point->time_ns && c.identity < best->identity);
      if (better) best = std::move(c);
      continue;
    }
    const std::string text = c.point ? "nothing was changed since then" : c.point.error().to_string();
    if (!c.point && candidates.size() == 1) code = c.point.error().code;
    why += (why.empty() ? "" : "; ") + c.name + ": " + text;
  }
  if (best) return std::move(*best);
  if (why.empty()) why = "there is no other node";
  for (std::size_t i = 0; i < reaches.size(); ++i) why += (i == 0 ? " (" : "; ") + reaches[i];
  if (!reaches.empty()) why += ")";
  return tl::unexpected(
      Error{code, fmt::format("no node can go back to {}: {}", to, why), "holdfast timeline shows what there is", 0});
}

bool does_not_know(const Error& error, const std::string& op) {
  return error.code == ErrorCode::invalid && (error.message == "unknown operation " + op ||
                                              error.message.ends_with("does not know the request '" + op + "'"));
}

control::VerifyStatus verify_status_of(const std::string& node, const json& mirror_status,
                                       const std::vector<std::pair<std::string, std::string>>& names_by_id) {
  const json& v = member_of(mirror_status, "verify");
  control::VerifyStatus s;
  s.node = node;
  s.state = v.is_object() ? "idle" : "unknown";
  s.scrub = flag_of(v, "scrub");
  for (const json& p : list_of(v, "peers")) {
    control::VerifyPeer peer;
    peer.node = text_of(p, "node_id");
    for (const auto& [id, name] : names_by_id)
      if (id == peer.node) peer.node = name;
    peer.state = text_of(p, "state", "unknown");
    peer.kind = text_of(p, "kind");
    peer.percent = std::clamp(real_of(p, "progress"), 0.0, 1.0) * 100;
    peer.objects = number_of(p, "objects");
    peer.bytes = number_of(p, "bytes");
    peer.differences = number_of(p, "differences");
    peer.repaired = number_of(p, "repaired");
    peer.open = number_of(p, "open");
    peer.last_full_ms = ms_of(p, "last_full_ns");
    peer.last_scrub_ms = ms_of(p, "last_scrub_ns");
    peer.last_result = text_of(p, "last_result");
    for (const json& e : list_of(p, "examples"))
      peer.examples.push_back(fmt::format("{}: {} ({})", text_of(e, "path"), text_of(e, "what"), text_of(e, "state")));
    const bool runs = peer.state == "running" || peer.state == "waiting";
    if (runs && peer.kind != "scrub") s.state = "running";
    s.peers.push_back(std::move(peer));
  }
  return s;
}

}  // namespace holdfast::daemon
