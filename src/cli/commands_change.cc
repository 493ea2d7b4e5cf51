// SPDX-License-Identifier: Apache-2.0
// Commands that change something.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <istream>
#include <ostream>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/views.h"
#include "control/model.h"
#include "control/requests.h"
#include "control/when.h"

namespace holdfast::cli {
namespace {

using nlohmann::json;
using namespace control;

constexpr int join_ms = 90'000;
constexpr int failover_ms = 200'000;  // forced: the node may have to look through its history first

void print_warnings(Session& session, const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) session.around().err << "holdfast: warning: " << printable(w) << "\n";
}

// What all commands with a plan share: show what was accepted, or follow it to its end.
int finish_accepted(Session& session, const Result<json>& answer, const std::string& done) {
  if (!answer) return session.failure(answer.error());
  const auto accepted = accepted_from_json(*answer);
  if (!accepted) return session.failure(accepted.error());
  if (!accepted->plan.empty() && session.wait)
    return session.follow_plan(accepted->plan, accepted->text.empty() ? done : accepted->text, accepted->undo_with);
  if (session.json) {
    session.print_json(*answer);
    return exit_ok;
  }
  if (!accepted->plan.empty())
    session.print("started: follow it with: holdfast plan " + accepted->plan + " --follow\n");
  else
    session.print((accepted->text.empty() ? done : accepted->text) + "\n");
  if (!accepted->undo_with.empty()) session.print("undo: " + accepted->undo_with + "\n");
  return exit_ok;
}

Result<std::string> read_token(Session& session, const std::string& given) {
  std::string token = given;
  if (token == "-") {
    if (session.around().in_is_terminal) session.around().err << "Token: " << std::flush;
    std::getline(session.around().in, token);
  } else if (token.empty()) {
    token = session.around().environment("HOLDFAST_TOKEN");
  }
  if (token.empty())
    return tl::unexpected(Error{ErrorCode::invalid, "a token is needed",
                                "make one on a member with `holdfast token`, then give it with --token, HOLDFAST_TOKEN "
                                "or on standard input (--token -)",
                                0});
  return token;
}

}  // namespace

Result<std::int64_t> parse_duration(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const std::int64_t factor = unit.empty() || unit == "s" ? 1
                              : unit == "m"               ? 60
                              : unit == "h"               ? 3600
                              : unit == "d"               ? 86'400
                                                          : 0;
  if (error != std::errc{} || value < 0 || factor == 0 || value > 1'000'000'000 / factor)
    return tl::unexpected(Error{ErrorCode::invalid, fmt::format("\"{}\" is not a duration", text),
                                "write for example 90s, 15m, 2h or 1d", 0});
  return value * factor;
}

int init_command(Session& session, const InitOptions& o) {
  const InitRequest request{
      o.name, o.node.empty() ? session.around().host() : o.node, o.site, o.mode, o.channel, o.public_addresses};
  const auto answer = session.send("POST", "/v1/init", to_json(request));
  const auto reply = answer ? init_reply_from_json(*answer) : Result<InitReply>(tl::unexpected(answer.error()));
  if (!reply) return session.failure(reply.error());
  print_warnings(session, reply->warnings);
  if (session.json)
    session.print_json(*answer);
  else
    session.print(
        fmt::format("cluster {} is founded, this node ({}) is its primary\nnext: holdfast token     prints the command "
                    "to type on the second node\n",
                    request.name, request.node));
  return exit_ok;
}

int token_command(Session& session, const TokenOptions& o) {
  const auto ttl = parse_duration(o.ttl);
  if (!ttl) return session.failure(ttl.error());
  const auto answer = session.send("POST", "/v1/token", to_json(TokenRequest{o.witness ? "witness" : "node", *ttl}));
  const auto reply = answer ? token_reply_from_json(*answer) : Result<TokenReply>(tl::unexpected(answer.error()));
  if (!reply) return session.failure(reply.error());
  if (session.json) {
    session.print_json(*answer);
    return exit_ok;
  }
  // The token alone on stdout: token=$(holdfast token); the explanation on stderr.
  session.print(reply->token + "\n");
  session.around().err << fmt::format("Good once, for {} minutes. On the {} type:\n  {}\n", *ttl / 60,
                                      o.witness ? "witness" : "new node", printable(reply->join_with));
  return exit_ok;
}

int join_command(Session& session, const JoinCommandOptions& o) {
  const auto token = read_token(session, o.token);
  if (!token) return session.failure(token.error());
  const JoinRequest request{o.address, *token,    o.node.empty() ? session.around().host() : o.node,
                            o.site,    o.channel, o.public_addresses};
  if (session.around().out_is_terminal && !session.json)
    session.around().err << "joining through " << printable(o.address) << " ...\n" << std::flush;
  const auto answer = session.send("POST", "/v1/join", to_json(request), join_ms);
  const auto reply = answer ? join_reply_from_json(*answer) : Result<JoinReply>(tl::unexpected(answer.error()));
  if (!reply) return session.failure(reply.error());
  if (session.json)
    session.print_json(*answer);
  else
    session.print(fmt::format("{} is the {} of cluster {}\nsee it with: holdfast status --watch\n", request.node,
                              reply->identity, reply->cluster));
  return exit_ok;
}

int protect_command(Session& session, const ProtectOptions& o) {
  const ProtectRequest request{o.what, o.name, o.write_through ? "write-through" : ""};
  const auto answer = session.send("POST", "/v1/protect", to_json(request), join_ms);
  const auto reply = answer ? protect_reply_from_json(*answer) : Result<ProtectReply>(tl::unexpected(answer.error()));
  if (!reply) return session.failure(reply.error());
  print_warnings(session, reply->warnings);
  std::string done = reply->application + " is protected:";
  for (const std::string& path : reply->paths) done += " " + path;
  done +=
      "\nthe first copy runs beside the application; see it with: holdfast status --watch, or wait for it with: "
      "holdfast wait";
  const std::string undo = "holdfast unprotect " + reply->application;
  if (!reply->plan.empty() && session.wait) return session.follow_plan(reply->plan, done, undo);
  if (session.json)
    session.print_json(*answer);
  else
    session.print(done + "\nundo: " + undo + "\n");
  return exit_ok;
}

int unprotect_command(Session& session, const std::string& what) {
  const auto confirmed =
      session.confirm(fmt::format("{} will no longer be replicated or taken over; its data stays where it is", what));
  if (!confirmed) return session.failure(confirmed.error());
  return finish_accepted(session, session.send("POST", "/v1/unprotect", to_json(UnprotectRequest{what})),
                         what + " is no longer protected");
}

int make_active_command(Session& session, const std::string& node) {
  return finish_accepted(session, session.send("POST", "/v1/make-active", to_json(MakeActiveRequest{node})),
                         node + " is active");
}

int failover_command(Session& session, const FailoverOptions& o) {
  if (o.force) {
    const auto confirmed = session.confirm("A forced failover gives up changes that only the lost active has");
    if (!confirmed) return session.failure(confirmed.error());
  }
  FailoverRequest request{o.force, o.node, "", o.although_it_answers};
  if (!o.to.empty()) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto to = parse_when(o.to, std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
    if (!to) return session.failure(to.error());
    request.to = control::to_text(*to);
    const auto confirmed = session.confirm("What was changed after " + o.to + " is given up");
    if (!confirmed) return session.failure(confirmed.error());
  }
  return finish_accepted(session, session.send("POST", "/v1/failover", to_json(request), failover_ms),
                         (o.node.empty() ? std::string("this node") : o.node) + " is active");
}

int member_change_command(Session& session, const std::string& name, const std::string& new_name,
                          const std::vector<std::string>& channel) {
  return finish_accepted(
      session, session.send("POST", "/v1/members/change", to_json(MemberChangeRequest{name, new_name, channel})),
      new_name.empty() ? name + " has new addresses" : name + " is " + new_name);
}

int member_remove_command(Session& session, const std::string& name) {
  const auto confirmed = session.confirm(name + " will have no vote and no copy of the data in this cluster any more");
  if (!confirmed) return session.failure(confirmed.error());
  return finish_accepted(session, session.send("POST", "/v1/members/remove", to_json(MemberRemoveRequest{name})),
                         name + " is no member any more");
}

int release_command(Session& session, const std::string& node) {
  return finish_accepted(session, session.send("POST", "/v1/release", to_json(ReleaseRequest{node})),
                         "released: it may take over by itself again");
}

// The role goes back to who gave it away by itself.
int revert_command(Session& session) {
  const auto answer = session.get("/v1/status");
  const auto status =
      answer ? cluster_status_from_json(*answer) : Result<ClusterStatus>(tl::unexpected(answer.error()));
  if (!status) return session.failure(status.error());
  std::string held;
  for (const NodeStatus& n : status->nodes)
    if (n.held && n.role != "active") held = held.empty() ? n.name : held + ", " + n.name;
  if (held.empty() || held.find(',') != std::string::npos)
    return session.failure(Error{ErrorCode::refused,
                                 held.empty() ? "no node is held, so there is nothing to revert" : held + " are held",
                                 held.empty() ? "holdfast make-active NODE moves the role"
                                              : "holdfast release NODE, then holdfast make-active NODE",
                                 0});
  const auto released = session.send("POST", "/v1/release", to_json(ReleaseRequest{held}));
  if (!released) return session.failure(released.error());
  return make_active_command(session, held);
}

int config_set_command(Session& session, const std::string& key, const std::string& value) {
  return finish_accepted(session, session.send("PUT", "/v1/config", to_json(ConfigSetRequest{key, value})),
                         key + " = " + value);
}

int plan_history(Session& session) {
  const auto answer = session.get("/v1/plans");
  if (!answer) return session.failure(answer.error());
  std::vector<PlanStatus> plans;
  for (const json& each : answer->value("plans", json::array())) {
    const auto plan = plan_status_from_json(each);
    if (!plan) return session.failure(plan.error());
    plans.push_back(*plan);
  }
  if (session.json)
    session.print_json(*answer);
  else
    session.print(plans_view(plans, session.around().look()));
  return exit_ok;
}

int plan_command(Session& session, const PlanOptions& o) {
  if (o.history) return plan_history(session);
  if (!o.skip.empty())
    return finish_accepted(session, session.send("POST", "/v1/plan/skip", to_json(SkipStepRequest{o.id, o.skip})),
                           "step \"" + o.skip + "\" is skipped");
  const auto answer = session.get(o.id.empty() ? "/v1/plan" : "/v1/plans/" + o.id);
  const auto plan = answer ? plan_status_from_json(*answer) : Result<PlanStatus>(tl::unexpected(answer.error()));
  if (!plan) return session.failure(plan.error());
  if (o.follow) return session.follow_plan(plan->id, plan->kind + " is done", plan->undo_with);
  if (session.json)
    session.print_json(*answer);
  else
    session.print(plan_view(*plan, session.around().look()));
  return exit_ok;
}

}  // namespace holdfast::cli
