// SPDX-License-Identifier: Apache-2.0
// Whole commands over the real Unix socket, against a daemon made of plain values.
#include "cli/app.h"

#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "control/api_server.h"
#include "control/testing/fake_handlers.h"
#include "control/testing/temporary_folder.h"

namespace holdfast::cli {
namespace {

using control::PlanStatus;
using nlohmann::json;

struct Outcome {
  int status = -1;
  std::string out, err;
};

class Cli : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server.listen(socket)); }

  Outcome run(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::istringstream in(input);
    std::ostringstream out, err;
    Surroundings around{in, out, err};
    around.in_is_terminal = terminal;
    around.out_is_terminal = terminal;
    around.look = [this] { return Look{80, terminal, false}; };
    around.rows = [] { return 24; };
    around.environment = [this](const char* name) {
      if (std::string(name) == "HOLDFAST_SOCKET") return socket;
      return variables[name];
    };
    around.user = [] { return std::string("root"); };
    around.host = [] { return std::string("n1"); };
    around.hold_signals = [] {};
    around.pause = [this](int) {
      return pauses_left-- > 0 ? Surroundings::Woken::time : Surroundings::Woken::interrupted;
    };
    Outcome o;
    o.status = cli::run(arguments, around);
    o.out = out.str(), o.err = err.str();
    return o;
  }
  PlanStatus plan(const std::string& state, const std::vector<std::pair<std::string, std::string>>& steps) {
    PlanStatus p;
    p.id = "switchover-1", p.kind = "switchover", p.state = state, p.from = "n1", p.to = "n2", p.seconds = 2.1;
    for (const auto& [name, step_state] : steps) p.steps.push_back({name, "mirror", step_state, 0.5, 30, 1, false, ""});
    return p;
  }

  control::FakeHandlers fake;
  control::TemporaryFolder tmp;
  std::string socket = tmp / "api.sock";
  control::ApiServer server{fake};
  std::map<std::string, std::string> variables;
  bool terminal = false;
  int pauses_left = 100;
};

TEST_F(Cli, InitTakesTheHostNameAndSaysWhatIsNext) {
  const Outcome o =
      run({"init", "--name", "erp", "--channel", "10.0.0.1", "--channel", "10.1.0.1", "--public", "192.0.2.10/24"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(fake.calls.at(0), "init root erp n1   10.0.0.1,10.1.0.1 192.0.2.10/24");
  EXPECT_NE(o.out.find("cluster erp is founded"), std::string::npos);
  EXPECT_NE(o.out.find("holdfast token"), std::string::npos);
}

TEST_F(Cli, ActorIsWhoIsBehindSudo) {
  variables["SUDO_USER"] = "alice";
  EXPECT_EQ(run({"release"}).status, exit_ok);
  EXPECT_EQ(fake.calls.at(0), "release alice ");
  EXPECT_EQ(fake.recorded.at(0).actor, "alice");
}

TEST_F(Cli, TokenAloneOnStandardOutput) {
  const Outcome o = run({"token", "--witness", "--ttl", "1h"});
  EXPECT_EQ(o.status, exit_ok);
  EXPECT_EQ(o.out, "hf1-SECRET\n");
  EXPECT_NE(o.err.find("holdfast join 10.0.0.1"), std::string::npos);
  EXPECT_EQ(fake.calls.at(0), "token root witness 3600");
  EXPECT_EQ(run({"token", "--ttl", "soon"}).status, exit_usage);
}

TEST_F(Cli, JoinTakesTheTokenFromThreePlaces) {
  EXPECT_EQ(run({"join", "10.0.0.1", "--token", "hf1-A"}).status, exit_ok);
  EXPECT_EQ(run({"join", "10.0.0.1", "--token", "-"}, "hf1-B\n").status, exit_ok);
  variables["HOLDFAST_TOKEN"] = "hf1-C";
  EXPECT_EQ(run({"join", "10.0.0.1", "--channel", "10.0.0.2"}).status, exit_ok);
  variables.clear();
  const Outcome none = run({"join", "10.0.0.1"});
  EXPECT_EQ(none.status, exit_usage);
  EXPECT_TRUE(none.err.starts_with("holdfast: a token is needed: ")) << none.err;
  EXPECT_EQ(fake.calls, (std::vector<std::string>{"join root 10.0.0.1 hf1-A n1 ", "join root 10.0.0.1 hf1-B n1 ",
                                                  "join root 10.0.0.1 hf1-C n1 10.0.0.2"}));
}

TEST_F(Cli, MakeActiveFollowsThePlan) {
  fake.accepted = {"switchover-1", "holdfast make-active n1", ""};
  fake.plan_stages = {plan("running", {{"stop", "running"}, {"drain", "pending"}}),
                      plan("running", {{"stop", "done"}, {"drain", "running"}}),
                      plan("done", {{"stop", "done"}, {"drain", "done"}})};
  const Outcome o = run({"make-active", "n2"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(o.out, "stop: done (0.5 s)\ndrain: done (0.5 s)\nn2 is active (2.1 s)\nundo: holdfast make-active n1\n");
}

TEST_F(Cli, MakeActiveLiveOnATerminalRedrawsInPlace) {
  terminal = true;
  fake.accepted = {"switchover-1", "", ""};
  fake.plan_stages = {plan("running", {{"stop", "running"}}), plan("done", {{"stop", "done"}})};
  const Outcome o = run({"make-active", "n2"});
  EXPECT_EQ(o.status, exit_ok);
  EXPECT_NE(o.out.find("\x1b[4A"), std::string::npos) << "goes up over what it drew";
}

TEST_F(Cli, RevertedPlanIsAFailureThatSaysWhy) {
  fake.accepted = {"switchover-1", "", ""};
  PlanStatus reverted = plan("reverted", {{"stop", "undone"}, {"drain", "failed"}});
  reverted.error = "drain: psql (pid 4711) keeps /var/lib/postgresql busy";
  fake.plan_stages = {reverted};
  const Outcome o = run({"make-active", "n2"});
  EXPECT_EQ(o.status, exit_failed);
  EXPECT_EQ(o.err,
            "holdfast: switchover did not succeed, the cluster is as it was before: drain: psql (pid 4711) keeps "
            "/var/lib/postgresql busy: "
            "see holdfast plan switchover-1\n");
}

TEST_F(Cli, FollowingEndsByTimeoutOrInterruptButThePlanGoesOn) {
  fake.accepted = {"switchover-1", "", ""};
  fake.plan_stages = {plan("running", {{"stop", "running"}})};
  const Outcome late = run({"make-active", "n2", "--timeout", "1"});
  EXPECT_EQ(late.status, exit_timeout);
  EXPECT_NE(late.err.find("goes on: follow it with: holdfast plan switchover-1 --follow"), std::string::npos)
      << late.err;
  pauses_left = 0;
  EXPECT_EQ(run({"make-active", "n2"}).status, exit_interrupted);
  EXPECT_EQ(run({"make-active", "n2", "--no-wait"}).out,
            "started: follow it with: holdfast plan switchover-1 --follow\n");
}

TEST_F(Cli, RefusalsHaveTheirExitStatus) {
  const std::vector<std::pair<ErrorCode, int>> cases{
      {ErrorCode::refused, exit_refused},  {ErrorCode::unavailable, exit_unreachable},
      {ErrorCode::timeout, exit_timeout},  {ErrorCode::denied, exit_failed},
      {ErrorCode::not_found, exit_failed}, {ErrorCode::invalid, exit_usage}};
  for (const auto& [code, status] : cases) {
    fake.refusal = Error{code, "n2 is not synchronized", "wait for it with: holdfast wait", 0};
    const Outcome o = run({"make-active", "n2"});
    EXPECT_EQ(o.status, status);
    EXPECT_EQ(o.err, "holdfast: n2 is not synchronized: wait for it with: holdfast wait\n");
  }
  const Outcome as_json = run({"make-active", "n2", "--json"});
  EXPECT_EQ(json::parse(as_json.out)["error"]["message"], "n2 is not synchronized");
}

TEST_F(Cli, DestructiveThingsAskFirst) {
  const Outcome unasked = run({"unprotect", "postgresql"});
  EXPECT_EQ(unasked.status, exit_usage);
  EXPECT_NE(unasked.err.find("add --yes"), std::string::npos);
  EXPECT_TRUE(fake.calls.empty());
  terminal = true;
  EXPECT_EQ(run({"failover", "--force"}, "y\n").status, exit_refused);
  EXPECT_TRUE(fake.calls.empty());
  EXPECT_EQ(run({"failover", "--force"}, "yes\n").status, exit_ok);
  terminal = false;
  EXPECT_EQ(run({"unprotect", "postgresql", "--yes"}).status, exit_ok);
  EXPECT_EQ(run({"failover"}).status, exit_ok) << "without --force nothing can be lost";
  EXPECT_EQ(fake.calls,
            (std::vector<std::string>{"failover root  force", "unprotect root postgresql", "failover root "}));
}

TEST_F(Cli, ProtectNamesWhatIsProtectedAndHowToUndo) {
  const Outcome o = run({"protect", "postgresql", "--write-through"});
  EXPECT_EQ(o.status, exit_ok);
  EXPECT_EQ(fake.calls.at(0), "protect root postgresql  write-through");
  EXPECT_NE(o.out.find("/var/lib/postgresql/15/main"), std::string::npos);
  EXPECT_NE(o.out.find("undo: holdfast unprotect postgresql"), std::string::npos);
}

TEST_F(Cli, MembersGetNamesAndAddresses) {
  EXPECT_EQ(run({"member", "rename", "n2", "db2"}).status, exit_ok);
  EXPECT_EQ(run({"member", "address", "db2", "--channel", "10.0.0.2", "--channel", "10.1.0.2"}).status, exit_ok);
  EXPECT_EQ(run({"member", "address", "db2"}).status, exit_usage);
  EXPECT_EQ(fake.calls, (std::vector<std::string>{"member_change root n2 db2 0", "member_change root db2  2"}));
}

TEST_F(Cli, HistoryOfPlansSaysHowLongEachTook) {
  EXPECT_NE(run({"plan", "--history"}).out.find("No plan has run yet"), std::string::npos);
  control::PlanStatus plan;
  plan.id = "switchover-1", plan.kind = "switchover", plan.state = "reverted", plan.from = "n1", plan.to = "n2";
  plan.seconds = 2.34, plan.started_ms = 1'790'000'000'000, plan.error = "the folder is in use";
  fake.plan_stages = {plan};
  const std::string shown = run({"plan", "--history"}).out;
  for (const char* word :
       {"2026-09-21", "switchover", "n1 -> n2", "reverted", "2.3 s", "switchover-1", "the folder is in use"})
    EXPECT_NE(shown.find(word), std::string::npos) << word << " in\n" << shown;
  EXPECT_EQ(json::parse(run({"plan", "--history", "--json"}).out)["plans"].size(), 1u);
}

TEST_F(Cli, StatusInBothForms) {
  fake.cluster.name = "erp";
  fake.cluster.nodes.resize(1);
  fake.cluster.nodes[0].name = "n1", fake.cluster.nodes[0].role = "active";
  EXPECT_NE(run({"status"}).out.find("erp"), std::string::npos);
  const json j = json::parse(run({"status", "--json"}).out);
  EXPECT_EQ(j["nodes"][0]["name"], "n1");
  EXPECT_EQ(j["nodes"][0]["synchronized"], false);
  EXPECT_TRUE(j["nodes"][0].contains("recovery_point_s"));
}

TEST_F(Cli, WatchRedrawsInPlaceAndOutlivesTheDaemon) {
  terminal = true;
  pauses_left = 2;
  const Outcome o = run({"status", "--watch"});
  EXPECT_EQ(o.status, exit_ok);
  EXPECT_TRUE(o.out.starts_with("\x1b[?1049h\x1b[?25l\x1b[H")) << "cursor hidden";
  EXPECT_TRUE(o.out.ends_with("\x1b[?25h\x1b[?1049l")) << "and back at the end";
  EXPECT_EQ(o.out.find("\x1b[2J"), std::string::npos) << "never cleared: no flicker";
  server.stop();
  pauses_left = 1;
  EXPECT_NE(run({"status", "--watch"}).out.find("holdfastd is not running"), std::string::npos);
  terminal = false;
  pauses_left = 1;
  EXPECT_NE(run({"status", "--watch", "--json"}).out.find("unavailable"), std::string::npos);
}

TEST_F(Cli, WaitShowsProgressAndEndsWhenSynchronized) {
  fake.cluster.nodes.resize(2);
  fake.cluster.nodes[0].name = "n1", fake.cluster.nodes[0].role = "active", fake.cluster.nodes[0].synchronized = true;
  fake.cluster.nodes[1].name = "n2", fake.cluster.nodes[1].role = "passive";
  fake.cluster.nodes[1].sync_progress = control::SyncProgress{"first copy", 43, 1, 2, 1024, {}};
  const Outcome late = run({"wait", "--timeout", "3"});
  EXPECT_EQ(late.status, exit_timeout);
  EXPECT_NE(late.out.find("n2 first copy [########------------] 43 %"), std::string::npos) << late.out;
  fake.cluster.nodes[1].synchronized = true;
  EXPECT_EQ(run({"wait", "--timeout", "3"}).status, exit_ok);
}

TEST_F(Cli, EventsByCursorAndTime) {
  for (int i = 1; i <= 3; ++i)
    fake.page.events.push_back({"n1", static_cast<std::uint64_t>(i), 1'795'000'000'000 + i * 1000,
                                i == 2 ? "warning" : "info", "x", "alice", "event " + std::to_string(i)});
  fake.page.next = {{"n1", 3}};
  const Outcome all = run({"events"});
  EXPECT_NE(all.out.find("event 1"), std::string::npos);
  EXPECT_EQ(run({"events", "--last", "1"}).out.find("event 2"), std::string::npos);
  const Outcome since = run({"events", "--since", "n1:2"});
  EXPECT_EQ(since.out.find("event 2"), std::string::npos);
  EXPECT_NE(since.out.find("event 3"), std::string::npos);
  EXPECT_EQ(run({"events", "--since", control::iso_time(1'795'000'003'000)}).out.find("event 2"), std::string::npos);
  EXPECT_EQ(json::parse(run({"events", "--json"}).out)["next"], "n1:3");
  EXPECT_EQ(run({"events", "--since", "whenever"}).status, exit_usage);
  pauses_left = 0;
  EXPECT_EQ(run({"events", "--follow"}).status, exit_ok);
}

TEST_F(Cli, ConfigGetSetShow) {
  fake.settings = {4,
                   {{"mode", "fsync", "async", "when an fsync returns"}, {"lease_ms", "2000", "2000", "milliseconds"}}};
  EXPECT_EQ(run({"config", "get", "mode"}).out, "fsync\n");
  EXPECT_EQ(run({"config", "get", "moode"}).err,
            "holdfast: there is no setting \"moode\": list them with: holdfast config show\n");
  EXPECT_EQ(
      run({"config", "show"}).out,
      "mode      fsync  (default async)\n    when an fsync returns\nlease_ms  2000\n    milliseconds\nversion 4\n");
  EXPECT_EQ(run({"config", "set", "mode", "async"}).status, exit_ok);
  EXPECT_EQ(fake.calls.at(0), "config_set root mode=async");
  EXPECT_EQ(json::parse(run({"config", "show", "--json"}).out)["version"], 4);
}

TEST_F(Cli, PlanShowsAndSkips) {
  fake.plan_stages = {plan("running", {{"stop", "done"}, {"drain", "running"}})};
  const Outcome o = run({"plan"});
  EXPECT_NE(o.out.find("switchover  n1 -> n2  running"), std::string::npos) << o.out;
  EXPECT_EQ(run({"plan", "--skip", "drain"}).status, exit_ok);
  EXPECT_EQ(fake.calls.at(0), "skip_step root drain");
}

TEST_F(Cli, TimelineIsShortAndSaysHowToGoBack) {
  control::NodeTimeline n{"n2", "passive", "on", "", 3 << 20, 10 << 20, {{1'764'000'000'000, 1'764'000'600'000, 590}},
                          {},   {}};
  n.gaps.push_back({1'764'000'000'000, 0, "this node became active"});
  fake.past = {1'764'000'700'000, {n}, {{"nightly", 1'764'000'300'000, {"n2"}, "user", true, true, 5}}};
  const Outcome o = run({"timeline"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  for (const char* part : {"n2", "590 points", "this node became active", "nightly", "kept", "application consistent",
                           "holdfast rollback --to"})
    EXPECT_NE(o.out.find(part), std::string::npos) << part << o.out;
  EXPECT_LT(std::count(o.out.begin(), o.out.end(), '\n'), 20);
  EXPECT_EQ(json::parse(run({"timeline", "--json"}).out)["shadows"][0]["name"], "nightly");
  EXPECT_EQ(run({"timeline", "--from", "10m", "--to", "2026-11-25T14:02:11Z", "--node", "n2"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "timeline 600000ms ago 2026-11-25T14:02:11.000000000Z n2 50");
  EXPECT_EQ(run({"timeline", "--from", "25:00"}).status, exit_usage);
  EXPECT_NE(run({"shadow", "list"}).out.find("nightly"), std::string::npos);
}

TEST_F(Cli, TimelineOfSeveralNodesSaysWhereTheClusterGets) {
  const control::NodeTimeline n{"n2", "passive", "on", "", 0, 0, {{1'764'000'400'000, 1'764'000'600'000, 190}}, {}, {}};
  control::NodeTimeline other = n;
  other.node = "n3";
  fake.past = {1'764'000'700'000, {n, other}, {}, {}};
  EXPECT_NE(run({"timeline"}).out.find("on any node"), std::string::npos);
  fake.past.reach = {{1'764'000'400'000, 1'764'000'600'000, {"n2", "n3"}},
                     {1'764'000'100'000, 1'764'000'400'000, {"n3"}},
                     {1'763'990'000'000, 1'764'000'050'000, {"n2"}}};
  const std::string out = run({"timeline"}).out;
  for (const char* part : {"cluster", "on n2, n3", "on n3", "no node reaches it"})
    EXPECT_NE(out.find(part), std::string::npos) << part << out;
  const auto reach = json::parse(run({"timeline", "--json"}).out)["reach"];
  ASSERT_EQ(reach.size(), 3U);
  EXPECT_EQ(reach[1]["nodes"], json::array({"n3"}));
  fake.past.nodes.pop_back();
  EXPECT_EQ(run({"timeline"}).out.find("cluster"), std::string::npos);
}

TEST_F(Cli, ShadowsAreNamedKeptAndDeleted) {
  fake.shadow.shadow = {"before-upgrade", 1'764'000'300'000, {"n2"}, "user", true, true, 0};
  fake.shadow.warnings = {"n3 has not applied it yet"};
  const Outcome o = run({"shadow", "create", "before-upgrade", "--keep"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(fake.calls.back(), "shadow_create root before-upgrade keep");
  EXPECT_NE(o.out.find("undo: holdfast shadow delete before-upgrade"), std::string::npos);
  EXPECT_NE(o.err.find("n3 has not applied it yet"), std::string::npos);
  const Outcome wrong = run({"shadow", "create", "14:02"});
  EXPECT_EQ(wrong.status, exit_usage) << "a time is no name";
  EXPECT_EQ(run({"shadow", "keep", "a", "--no-keep", "--node", "n2"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "shadow_keep root a n2 no");
  EXPECT_EQ(run({"shadow", "delete", "a"}).status, exit_usage) << "asks first";
  EXPECT_EQ(run({"shadow", "delete", "a", "--yes"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "shadow_delete root a ");
}

TEST_F(Cli, RollbackShowsFirstAndCarriesOutWhatItShowed) {
  fake.going_back = {
      "rollback-1", "holdfast rollback --to before-rollback", "", "n1", "n2", 4711, 1'764'000'300'000, "", 47.3,
      {"mind this"}};
  const Outcome dry = run({"rollback", "--to", "90s ago", "--dry-run"});
  EXPECT_EQ(dry.status, exit_ok) << dry.err;
  for (const char* part : {"47.3 s of changes", "n2 instead of n1", "before-rollback", "mind this"})
    EXPECT_NE(dry.out.find(part), std::string::npos) << part << dry.out;
  EXPECT_EQ(fake.calls, std::vector<std::string>{"rollback root 90000ms ago  0 dry"});
  EXPECT_EQ(run({"rollback", "--to", "90s ago"}).status, exit_usage) << "nobody can be asked";
  ASSERT_EQ(fake.calls.size(), 2U);
  EXPECT_TRUE(fake.calls[1].ends_with("dry"));
  PlanStatus done = plan("done", {{"stop", "done"}});
  done.kind = "rollback";
  fake.plan_stages = {done};
  const Outcome o = run({"rollback", "--to", "90s ago", "--yes"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(fake.calls.back(), "rollback root 90000ms ago n2 4711") << "exactly the point that was shown";
  EXPECT_NE(o.out.find("undo: holdfast rollback --to before-rollback"), std::string::npos);
  EXPECT_EQ(run({"rollback", "--to", "yesterday-ish?", "--yes"}).status, exit_usage);
}

TEST_F(Cli, FailoverToAnEarlierPointAsksAndSendsATime) {
  EXPECT_EQ(run({"failover", "--to", "2026-11-25T14:02:11Z"}).status, exit_usage);
  EXPECT_TRUE(fake.calls.empty());
  EXPECT_EQ(run({"failover", "n2", "--to", "2026-11-25T14:02:11Z", "--yes", "--force"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "failover root n2 force to 2026-11-25T14:02:11.000000000Z");
}

TEST_F(Cli, AMemberIsRemovedAfterAQuestion) {
  EXPECT_EQ(run({"member", "remove", "w1"}).status, exit_usage);
  EXPECT_EQ(run({"member", "remove", "w1", "--yes"}).status, exit_ok);
  EXPECT_EQ(fake.calls, std::vector<std::string>{"member_remove root w1"});
}

TEST_F(Cli, LookMountsListsAndEnds) {
  const Outcome o = run({"look", "--at", "nightly", "--node", "n2", "/mnt/past"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(fake.calls.back(), "look root nightly n2 /mnt/past");
  EXPECT_NE(o.out.find("holdfast look --end /mnt/past --node n2"), std::string::npos);
  EXPECT_EQ(run({"look", "--end", "/mnt/past"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "look_end root  /mnt/past");
  EXPECT_EQ(run({"look", "--at", "10m"}).status, exit_usage);
  EXPECT_EQ(run({"look", "/mnt/past"}).status, exit_usage);
  EXPECT_NE(run({"look", "--list"}).out.find("nothing"), std::string::npos);
}

TEST_F(Cli, AWritableLookSaysWhatItIsWorth) {
  const Outcome o = run({"look", "--at", "nightly", "--writable", "--scratch-mib", "300", "--node", "n2", "/mnt/try"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_EQ(fake.calls.back(), "look root nightly n2 /mnt/try writable 300");
  EXPECT_NE(o.out.find("1.0 GiB"), std::string::npos) << o.out;
  EXPECT_NE(o.out.find("durable"), std::string::npos) << o.out;
  EXPECT_EQ(run({"look", "--at", "nightly", "--scratch-mib", "300", "/mnt/try"}).status, exit_usage);
  fake.views.looks = {{"n2", "/mnt/try", 7, 1'764'092'700'000, true, 5 << 20, 1 << 30}};
  EXPECT_NE(run({"look", "--list"}).out.find("5.0 MiB of 1.0 GiB"), std::string::npos);
}

TEST_F(Cli, VerifyWaitsAndFailsWhenDifferencesRemain) {
  EXPECT_EQ(run({"verify", "--sample", "--rate", "20", "--no-repair"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "verify root sample 20 no repair");
  EXPECT_EQ(run({"verify", "--trust-active"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "verify root full 0 trust");
  control::VerifyPeer peer;
  peer.node = "n2", peer.state = "idle", peer.kind = "full", peer.differences = 2, peer.repaired = 1, peer.open = 1;
  peer.examples = {"/srv/a: contents (undecided)"};
  fake.verification = {"n1", "idle", true, {peer}};
  const Outcome bad = run({"verify", "--full", "--wait"});
  EXPECT_EQ(bad.status, exit_failed);
  EXPECT_NE(bad.out.find("/srv/a: contents"), std::string::npos) << bad.out;
  fake.verification.peers[0].open = 0;
  EXPECT_EQ(run({"verify", "--wait"}).status, exit_ok);
  EXPECT_EQ(run({"verify", "--status"}).status, exit_ok);
  EXPECT_EQ(run({"verify", "--stop"}).status, exit_ok);
  EXPECT_EQ(fake.calls.back(), "verify_stop root ");
}

TEST_F(Cli, WrongUsageIsOneLineWithTheHelpToRead) {
  const auto error = [&](const std::vector<std::string>& a) {
    const Outcome o = run(a);
    EXPECT_EQ(o.status, exit_usage) << o.err;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    EXPECT_TRUE(o.err.starts_with("holdfast: ")) << o.err;
    return o.err;
  };
  EXPECT_EQ(error({"init", "--channel", "10.0.0.1"}), "holdfast: --name is required: see holdfast init --help\n");
  EXPECT_NE(error({"make-active"}).find("see holdfast make-active --help"), std::string::npos);
  EXPECT_NE(error({"stauts"}).find("see holdfast --help"), std::string::npos);
  EXPECT_NE(error({"init", "--name", "a", "--channel", "b", "--mode", "sync"}).find("--mode"), std::string::npos);
  EXPECT_NE(error({"config"}).find("see holdfast config --help"), std::string::npos);
  EXPECT_TRUE(fake.calls.empty());
}

TEST_F(Cli, MetricsAreText) {
  const Outcome o = run({"metrics"});
  EXPECT_EQ(o.status, exit_ok) << o.err;
  EXPECT_TRUE(o.out.starts_with("# HELP holdfast_state ")) << o.out;
  EXPECT_TRUE(json::parse(run({"metrics", "--json"}).out).contains("nodes"));
}

TEST_F(Cli, HelpOfEveryCommandHasExamples) {
  for (const char* name : {"init",        "token",    "join",    "protect",  "unprotect", "status", "wait",
                           "make-active", "failover", "release", "revert",   "events",    "config", "metrics",
                           "plan",        "timeline", "shadow",  "rollback", "look",      "verify", "member"}) {
    const Outcome o = run({name, "--help"});
    EXPECT_EQ(o.status, exit_ok) << name;
    EXPECT_NE(o.out.find("Example"), std::string::npos) << name;
    EXPECT_NE(o.out.find(std::string("holdfast ") + name), std::string::npos) << name;
  }
  const Outcome all = run({"--help"});
  EXPECT_NE(all.out.find("Exit status"), std::string::npos);
  EXPECT_EQ(run({"version"}).out, "holdfast " HF_VERSION "\n");
  EXPECT_EQ(run({}).status, exit_usage);
}

TEST_F(Cli, DaemonThatIsNotThere) {
  server.stop();
  const Outcome o = run({"status"});
  EXPECT_EQ(o.status, exit_unreachable);
  EXPECT_EQ(o.err, "holdfast: holdfastd is not running on this machine: start it with: systemctl start holdfastd\n");
}

}  // namespace
}  // namespace holdfast::cli
