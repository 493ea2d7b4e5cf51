// SPDX-License-Identifier: Apache-2.0
// Commands about the past: timeline, shadow, rollback, look, and verify, which proves that the copies are equal.
#include <algorithm>
#include <chrono>
#include <ostream>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/views.h"
#include "control/history.h"
#include "control/when.h"

namespace holdfast::cli {
namespace {

using nlohmann::json;
using namespace control;

constexpr int look_back_ms = 180'000;  // a node may have to read through its history
constexpr int second_ms = 1000;

std::int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Local times mean this terminal's zone, wherever the command is carried out.
Result<std::string> as_sent(const std::string& text) {
  HF_ASSIGN(const When when, parse_when(text, wall_ns()));
  return control::to_text(when);
}

std::string query_of(const std::vector<std::pair<const char*, std::string>>& members) {
  std::string out;
  for (const auto& [name, value] : members) {
    if (value.empty()) continue;
    out += (out.empty() ? "?" : "&") + std::string(name) + "=";
    for (const char c : value) {
      const bool plain =
          (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.';
      out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

template <class T>
Result<T> parsed(const Result<json>& answer, Result<T> (*read)(const json&)) {
  if (!answer) return tl::unexpected(answer.error());
  return read(*answer);
}

int finish(Session& session, const Result<json>& answer, const std::string& done) {
  const auto accepted = parsed<Accepted>(answer, accepted_from_json);
  if (!accepted) return session.failure(accepted.error());
  if (session.json) {
    session.print_json(*answer);
    return exit_ok;
  }
  session.print((accepted->text.empty() ? done : accepted->text) + "\n");
  if (!accepted->undo_with.empty()) session.print("undo: " + accepted->undo_with + "\n");
  return exit_ok;
}

void print_warnings(Session& session, const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) session.around().err << "holdfast: warning: " << printable(w) << "\n";
}

}  // namespace

int timeline_command(Session& session, const TimelineOptions& o) {
  std::string from, to;
  for (const auto& [text, into] : {std::pair{&o.from, &from}, std::pair{&o.to, &to}}) {
    if (text->empty()) continue;
    const auto sent = as_sent(*text);
    if (!sent) return session.failure(sent.error());
    *into = *sent;
  }
  // Somebody who names a stretch of time wants to see its points.
  const int points = o.points >= 0 ? o.points : from.empty() && to.empty() ? 0 : 50;
  const auto answer = session.get(
      "/v1/timeline" + query_of({{"from", from}, {"to", to}, {"node", o.node}, {"points", std::to_string(points)}}));
  const auto timeline = parsed<Timeline>(answer, timeline_from_json);
  if (!timeline) return session.failure(timeline.error());
  if (session.json)
    session.print_json(*answer);
  else
    session.print(timeline_view(*timeline, session.around().look()));
  return exit_ok;
}

int shadow_create_command(Session& session, const ShadowOptions& o) {
  if (const Status named = check_shadow_name(o.name); !named) return session.failure(named.error());
  const auto answer =
      session.send("POST", "/v1/shadows", control::to_json(ShadowRequest{o.name, o.keep, !o.no_quiesce}));
  const auto reply = parsed<ShadowReply>(answer, shadow_reply_from_json);
  if (!reply) return session.failure(reply.error());
  print_warnings(session, reply->warnings);
  if (session.json) {
    session.print_json(*answer);
    return exit_ok;
  }
  std::string nodes;
  for (const std::string& n : reply->shadow.nodes) nodes += (nodes.empty() ? "" : ", ") + n;
  session.print(fmt::format("shadow {} stands at {}{}{}\nundo: holdfast shadow delete {}\n", o.name,
                            local_time(reply->shadow.time_ms, wall_ns() / 1'000'000),
                            nodes.empty() ? "" : " on " + nodes,
                            reply->shadow.application_consistent ? ", application consistent" : "", o.name));
  return exit_ok;
}

int shadow_list_command(Session& session) {
  const auto answer = session.get("/v1/timeline");
  const auto timeline = parsed<Timeline>(answer, timeline_from_json);
  if (!timeline) return session.failure(timeline.error());
  if (session.json)
    session.print_json({{"time", answer->at("time")}, {"shadows", answer->at("shadows")}});
  else
    session.print(shadows_view(*timeline, session.around().look()));
  return exit_ok;
}

int shadow_keep_command(Session& session, const ShadowOptions& o) {
  return finish(session,
                session.send("POST", "/v1/shadows/keep", control::to_json(ShadowChange{o.name, o.node, !o.no_keep})),
                o.no_keep ? o.name + " may be dropped when its time is over" : o.name + " is kept");
}

int shadow_delete_command(Session& session, const ShadowOptions& o) {
  const auto confirmed = session.confirm(fmt::format("The shadow {} is forgotten; the history itself stays", o.name));
  if (!confirmed) return session.failure(confirmed.error());
  return finish(session,
                session.send("POST", "/v1/shadows/delete", control::to_json(ShadowChange{o.name, o.node, false})),
                o.name + " is deleted");
}

// Looked at first; what is then carried out is exactly the point that was shown, however long the answer took.
int rollback_command(Session& session, const RollbackOptions& o) {
  const auto to = as_sent(o.to);
  if (!to) return session.failure(to.error());
  RollbackRequest request{*to, o.node, 0, true};
  const auto looked = session.send("POST", "/v1/rollback", control::to_json(request), look_back_ms);
  const auto plan = parsed<RollbackReply>(looked, rollback_reply_from_json);
  if (!plan) return session.failure(plan.error());
  if (o.dry_run && session.json) {
    session.print_json(*looked);
    return exit_ok;
  }
  if (!session.json) session.print(rollback_view(*plan, wall_ns() / 1'000'000, session.around().look()));
  if (o.dry_run) return exit_ok;
  const auto confirmed = session.confirm(fmt::format("{} of changes are taken back and {} becomes the active",
                                                     human_seconds(plan->taken_back_s), plan->node));
  if (!confirmed) return session.failure(confirmed.error());
  request = {plan->label.empty() ? *to : plan->label, plan->node, plan->batch, false};
  const auto answer = session.send("POST", "/v1/rollback", control::to_json(request), look_back_ms);
  const auto reply = parsed<RollbackReply>(answer, rollback_reply_from_json);
  if (!reply) return session.failure(reply.error());
  const std::string done = fmt::format("{} is active with everything up to {}", reply->node,
                                       local_time(reply->time_ms, wall_ns() / 1'000'000));
  if (!reply->plan.empty() && session.wait) return session.follow_plan(reply->plan, done, reply->undo_with);
  if (session.json)
    session.print_json(*answer);
  else
    session.print("started: follow it with: holdfast plan " + reply->plan + " --follow\n");
  return exit_ok;
}

int look_command(Session& session, const LookOptions& o) {
  if (o.list) {
    const auto answer = session.get("/v1/looks");
    const auto looks = parsed<LooksReply>(answer, looks_reply_from_json);
    if (!looks) return session.failure(looks.error());
    if (session.json) {
      session.print_json(*answer);
      return exit_ok;
    }
    for (const LookStatus& l : looks->looks)
      session.print(fmt::format(
          "{}  {}  {}{}\n", l.node, local_time(l.time_ms, wall_ns() / 1'000'000), printable(l.dir),
          l.writable ? fmt::format("  writable, {} of {}", human_bytes(l.bytes), human_bytes(l.limit_bytes)) : ""));
    if (looks->looks.empty()) session.print("nothing of the past is mounted\n");
    return exit_ok;
  }
  if (o.dir.empty() || o.dir.front() != '/')
    return session.failure({ErrorCode::invalid, "a folder to mount it at is needed, as an absolute path",
                            "holdfast look --at 10m /mnt/past", 0});
  if (o.end)
    return finish(session, session.send("POST", "/v1/look/end", control::to_json(LookEndRequest{o.node, o.dir})),
                  o.dir + " shows the past no more");
  if (o.at.empty())
    return session.failure({ErrorCode::invalid, "which point is to be shown", "add --at TIME|SHADOW", 0});
  const auto at = as_sent(o.at);
  if (!at) return session.failure(at.error());
  const LookRequest request{*at, o.node, o.dir, o.writable, static_cast<std::uint64_t>(o.scratch_mib)};
  const auto answer = session.send("POST", "/v1/look", control::to_json(request), look_back_ms);
  const auto shown = parsed<LookStatus>(answer, look_status_from_json);
  if (!shown) return session.failure(shown.error());
  if (session.json) {
    session.print_json(*answer);
    return exit_ok;
  }
  const std::string how =
      shown->writable
          ? fmt::format(
                ", writable\nat most {} can be written; none of it is durable, whatever fsync says, and all "
                "of it is gone at the end",
                human_bytes(shown->limit_bytes))
          : ", read-only";
  const std::string who =
      shown->closed_above.empty()
          ? ""
          : fmt::format("\nonly root gets in, because {} is not open to others", printable(shown->closed_above));
  session.print(fmt::format("{} on {} shows the folders as of {}{}{}\nend it with: holdfast look --end {}{}\n",
                            printable(o.dir), printable(shown->node), local_time(shown->time_ms, wall_ns() / 1'000'000),
                            how, who, printable(o.dir), o.node.empty() ? "" : " --node " + o.node));
  return exit_ok;
}

int verify_command(Session& session, const VerifyOptions& o) {
  if (o.stop)
    return finish(session, session.send("POST", "/v1/verify/stop", json::object()), "the verification is stopped");
  if (!o.status) {
    const VerifyRequest request{o.sample ? "sample" : "full", static_cast<std::uint64_t>(o.rate_mib_s), !o.no_repair,
                                o.trust_active};
    const auto started = session.send("POST", "/v1/verify", control::to_json(request));
    if (!started) return session.failure(started.error());
    if (!o.wait) return finish(session, started, "the verification runs; see it with: holdfast verify --status");
  }
  session.around().hold_signals();
  std::string last;
  for (int waited_ms = 0;; waited_ms += second_ms) {
    const auto answer = session.get("/v1/verify");
    const auto status = parsed<VerifyStatus>(answer, verify_status_from_json);
    if (!status) return session.failure(status.error());
    const bool running = status->state == "running";
    const bool differs =
        std::any_of(status->peers.begin(), status->peers.end(), [](const VerifyPeer& p) { return p.open > 0; });
    const std::string view = verify_view(*status, wall_ns() / 1'000'000, session.around().look());
    if (o.status || !running) {
      if (session.json)
        session.print_json(*answer);
      else
        session.print(view);
      return differs && !o.status ? exit_failed : exit_ok;
    }
    if (!session.json && view != last) session.print(view);
    last = view;
    if (session.around().pause(second_ms) == Surroundings::Woken::interrupted) return exit_interrupted;
    if (session.timeout_s > 0 && waited_ms >= session.timeout_s * second_ms)
      return session.failure({ErrorCode::timeout, "the verification goes on", "see holdfast verify --status", 0});
  }
}

}  // namespace holdfast::cli
