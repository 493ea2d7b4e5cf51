// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/status_builder.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace holdfast::daemon {
namespace {

using nlohmann::json;

const NodeId n1{1}, n2{2}, w1{3};

json active_mirror(const char* state, double recovery_point_s) {
  return {{"role", "active"},
          {"mounted", true},
          {"epoch", 4},
          {"peers",
           {{{"node_id", to_hex(n2)}, {"state", state}, {"recovery_point_s", recovery_point_s}, {"queue_bytes", 12}}}}};
}

// Seen from n2, the passive; n1 is the active and speaks through its summary.
StatusSources from_passive() {
  StatusSources in;
  in.now_ms = 100'000;
  in.wall_ms = 1'700'000'000'000;
  Snapshot& s = in.snapshot;
  s.member = true;
  s.node.node_id = n2;
  s.node.node_name = "n2";
  s.node.cluster_id = "00000000000000aa";
  s.mirror_connected = true;
  s.mirror = {{"role", "passive"}, {"receive", {{"queue_bytes", 7}}}};
  s.mirror_age_ms = 100;
  s.config.name = "erp";
  cluster::Value v;
  v.revision = {Epoch(4), 2};
  v.active = n1;
  v.in_sync = {n1, n2};
  v.members = {{n1, "n1", "here", 1, cluster::MemberKind::data, true, {}},
               {n2, "n2", "here", 2, cluster::MemberKind::data, true, {}},
               {w1, "w1", "there", 0, cluster::MemberKind::witness, true, {}}};
  s.value = std::make_shared<const cluster::Value>(v);
  s.peers[n1] = {json{{"name", "n1"},
                      {"role", "active"},
                      {"mirror", active_mirror("synchronized", 0.2)},
                      {"network_open", true},
                      {"lease_left_ms", 1500},
                      {"wall_ms", in.wall_ms},
                      {"automatic_failover", {{"available", true}}},
                      {"votes", {{{"voter", "n1"}, {"kind", "node"}, {"reachable", true}, {"granted", true}}}}},
                 in.now_ms - 300};
  in.connected[w1] = true;
  return in;
}

const control::NodeStatus& node(const control::ClusterStatus& s, const std::string& name) {
  for (const auto& n : s.nodes)
    if (n.name == name) return n;
  static const control::NodeStatus none;
  return none;
}

TEST(StatusBuilder, PassiveShowsWhatTheActiveSays) {
  const auto s = build_status(from_passive());
  EXPECT_EQ(node(s, "n1").role, "active");
  EXPECT_EQ(node(s, "n2").role, "passive");
  EXPECT_TRUE(node(s, "n2").synchronized);
  EXPECT_DOUBLE_EQ(node(s, "n2").recovery_point_s.value(), 0.2);
  EXPECT_EQ(node(s, "n2").queues.send_bytes, 12u);
  EXPECT_EQ(node(s, "n2").queues.receive_bytes, 7u);
  EXPECT_EQ(s.lease->holder, "n1");
  EXPECT_TRUE(s.automatic_failover.available);
  EXPECT_EQ(s.state, "healthy") << s.detail;
}

TEST(StatusBuilder, OldNewsIsNotShownAsPresent) {
  StatusSources in = from_passive();
  in.now_ms += 10'000;
  const auto s = build_status(in);
  EXPECT_EQ(node(s, "n1").role, "unknown");
  EXPECT_FALSE(node(s, "n2").synchronized);
  EXPECT_FALSE(node(s, "n2").recovery_point_s.has_value());
  EXPECT_FALSE(s.automatic_failover.available);
  EXPECT_EQ(s.client_network.state, "unknown");
  EXPECT_EQ(s.state, "error");
}

TEST(StatusBuilder, SynchronizedNeedsTheRecordToo) {
  StatusSources in = from_passive();
  cluster::Value v = *in.snapshot.value;
  v.in_sync = {n1};
  in.snapshot.value = std::make_shared<const cluster::Value>(v);
  EXPECT_FALSE(node(build_status(in), "n2").synchronized);
}

TEST(StatusBuilder, OddSummariesAreHarmless) {
  StatusSources in = from_passive();
  in.snapshot.peers[n1].json =
      json::parse(R"({"role":7,"mirror":[1],"plan":{"steps":3},"applications":"x","votes":{},"lease_left_ms":"y"})");
  const auto s = build_status(in);
  EXPECT_EQ(node(s, "n2").synchronized, false);
}

TEST(StatusBuilder, ACertificateThatCannotBeRenewedIsAnAlert) {
  auto in = from_passive();
  const auto alarmed = [&] {
    const auto s = build_status(in);
    return std::any_of(s.alerts.begin(), s.alerts.end(), [](const control::Alert& a) {
      return a.code == "certificate" && a.text.find("no key") != std::string::npos && !a.hint.empty();
    });
  };
  EXPECT_FALSE(alarmed());
  in.snapshot.certificate_error = "no key";
  EXPECT_TRUE(alarmed());
}

std::string alert_of(const control::ClusterStatus& s, const std::string& code) {
  for (const auto& a : s.alerts)
    if (a.code == code) return a.text + ": " + a.hint;
  return {};
}

std::string option_of(const control::ClusterStatus& s, const std::string& name) {
  for (const auto& o : s.options)
    if (o.name == name) return o.state;
  return {};
}

TEST(StatusBuilder, WithOnlyHeldTargetsNobodyTakesOverByItself) {
  auto in = from_passive();
  EXPECT_TRUE(build_status(in).automatic_failover.available);
  in.snapshot.config.nodes[to_hex(n2)].held = "it failed as the active 3 times within 60 minutes";
  const auto s = build_status(in);
  EXPECT_TRUE(node(s, "n2").held);
  EXPECT_FALSE(s.automatic_failover.available);
  EXPECT_EQ(s.automatic_failover.reason, "n2 is held: it failed as the active 3 times within 60 minutes");
  EXPECT_EQ(s.automatic_failover.change_with, "holdfast release n2");
  EXPECT_NE(alert_of(s, "held"), "");
  EXPECT_EQ(alert_of(s, "failover_waits"), "") << "the active is there";
  in.now_ms += 10'000;
  EXPECT_EQ(alert_of(build_status(in), "failover_waits"),
            "n1 is gone; n2 has its data and waits for your word: holdfast failover");
}

TEST(StatusBuilder, ManagedFailoverWaitsForAWord) {
  auto in = from_passive();
  in.snapshot.config.automatic_failover = false;
  in.now_ms += 10'000;
  EXPECT_NE(alert_of(build_status(in), "failover_waits"), "");
  cluster::Value v = *in.snapshot.value;
  v.in_sync = {n1};
  in.snapshot.value = std::make_shared<const cluster::Value>(v);
  EXPECT_EQ(alert_of(build_status(in), "failover_waits"), "") << "it lacks acknowledged writes";
}

TEST(StatusBuilder, AnActiveThatAnswersIsNotGone) {
  auto in = from_passive();
  in.snapshot.config.public_addresses = {{"192.0.2.10/24", "here", "move"}};
  EXPECT_EQ(option_of(build_status(in), "false failover avoidance"), "on");
  in.snapshot.active_answers_at = "192.0.2.10";
  in.now_ms += 10'000;
  const auto s = build_status(in);
  EXPECT_EQ(option_of(s, "false failover avoidance"), "holds back");
  EXPECT_EQ(alert_of(s, "active_answers"),
            "nothing is heard of n1, but it answers at 192.0.2.10: n2 does not take over by itself: mend the channel "
            "network; or end it there, then holdfast failover here");
  EXPECT_EQ(alert_of(s, "failover_waits"), "");
}

TEST(StatusBuilder, APassiveBeyondTheLimitIsNamedAsTheReason) {
  auto in = from_passive();
  in.snapshot.config.mode = "async";
  in.snapshot.config.recovery_point_limit_s = 60;
  EXPECT_EQ(option_of(build_status(in), "data loss avoidance"), "on, to 60 s");
  cluster::Value v = *in.snapshot.value;
  v.in_sync = {n1};
  in.snapshot.value = std::make_shared<const cluster::Value>(v);
  in.snapshot.peers[n1].json["mirror"] = active_mirror("synchronized", 75.2);
  in.snapshot.peers[n1].json["automatic_failover"] = {{"available", false}, {"reason", "no passive is synchronized"}};
  const auto s = build_status(in);
  EXPECT_FALSE(s.automatic_failover.available);
  EXPECT_EQ(s.automatic_failover.reason,
            "n2 is 76 s behind: the limit is 60 s, and at half of it it is a target again");
}

TEST(StatusBuilder, AFullDiskIsNamedWithTheWayOut) {
  auto in = from_passive();
  const auto alert = [&](const std::string& code) {
    for (const auto& a : build_status(in).alerts)
      if (a.code == code) return a.text + ": " + a.hint;
    return std::string();
  };
  EXPECT_EQ(alert("full_receive"), "");
  in.snapshot.mirror["space"] = {
      {{"where", "receive"}, {"full", true}, {"path", "/var"}}, {{"where", "folder"}, {"full", false}}, 7};
  EXPECT_EQ(alert("full_receive"),
            "/var is full under the receive queue of n2: free space there, it goes on by itself");
  EXPECT_EQ(alert("full_folder"), "");
  in.snapshot.peers[n1].json["mirror"]["space"] = {
      {{"where", "send"}, {"full", true}, {"path", "/srv"}, {"peer", to_hex(n2)}, {"text", "5 MiB are free"}}};
  EXPECT_EQ(alert("queue_given_up"),
            "the send queue of n1 for n2 was given up: 5 MiB are free: n2 gets what changed when it returns; to keep "
            "more next time free space under /srv, raise send_queue_mib or lower send_keep_free_mib");
}

TEST(StatusBuilder, AWritableViewIsNotForgotten) {
  auto in = from_passive();
  const auto views = [&] {
    std::vector<std::string> all;
    for (const auto& a : build_status(in).alerts)
      if (a.code == "writable_view") all.push_back(a.severity + ": " + a.text + ": " + a.hint);
    return all;
  };
  EXPECT_TRUE(views().empty());
  in.snapshot.mirror["looks"] = {{{"dir", "/mnt/try"}, {"bytes", 5 << 20}, {"limit_bytes", 1 << 30}}};
  EXPECT_EQ(views(), std::vector<std::string>{
                         "info: n2 shows the past at /mnt/try, and holds 5 of 1024 MiB that were written to it: "
                         "holdfast look --end /mnt/try --node n2 ends it"});
}

TEST(StatusBuilder, APassiveWithoutSpaceIsNoTarget) {
  auto in = from_passive();
  EXPECT_TRUE(build_status(in).automatic_failover.available);
  in.snapshot.mirror["space"] = {{{"where", "folder"}, {"full", true}, {"path", "/srv/db"}}};
  const auto failover = build_status(in).automatic_failover;
  EXPECT_FALSE(failover.available);
  EXPECT_EQ(failover.reason,
            "n2: it has changes to apply and no space for them under /srv/db: free space there, it goes on by itself");
  EXPECT_FALSE(failover.change_with.empty());
}

TEST(StatusBuilder, ANodeThatDoesNotAnswerHidesNoPassiveWithoutSpace) {
  const NodeId n3{4};
  auto in = from_passive();
  cluster::Value v = *in.snapshot.value;
  v.in_sync.push_back(n3);
  v.members.push_back({n3, "n3", "there", 3, cluster::MemberKind::data, true, {}});
  in.snapshot.value = std::make_shared<const cluster::Value>(v);
  in.snapshot.mirror["space"] = {{{"where", "folder"}, {"full", true}, {"path", "/srv/db"}}};
  EXPECT_FALSE(build_status(in).automatic_failover.available) << "n3 is silent";
  in.snapshot.peers[n3] = {json{{"name", "n3"}, {"mirror", {{"role", "passive"}}}, {"fault", "EIO"}}, in.now_ms - 300};
  EXPECT_FALSE(build_status(in).automatic_failover.available) << "n3 has a fault";
  in.snapshot.peers[n3].json.erase("fault");
  EXPECT_TRUE(build_status(in).automatic_failover.available);
}

bool has_alert(const control::ClusterStatus& s, const std::string& code) {
  return std::any_of(s.alerts.begin(), s.alerts.end(), [&](const control::Alert& a) { return a.code == code; });
}

// Clusters that are older than the history have stored that they keep none, and nobody has said so.
TEST(StatusBuilder, NoHistoryIsAHintUnlessItWasChosen) {
  auto in = from_passive();
  EXPECT_FALSE(has_alert(build_status(in), "no_history"));
  in.snapshot.config.undo_mib = 0;
  EXPECT_TRUE(has_alert(build_status(in), "no_history"));
  const auto chosen = with_setting(in.snapshot.config, "undo_mib", "0");
  ASSERT_TRUE(chosen);
  const auto stored = config_from_text(to_text(*chosen));
  ASSERT_TRUE(stored);
  in.snapshot.config = *stored;
  EXPECT_FALSE(has_alert(build_status(in), "no_history"));
}

TEST(StatusBuilder, DeletedFilesThatCantGoAreNamed) {
  auto in = from_passive();
  in.snapshot.mirror["undo"] = {{"state", "off"}, {"deleted_stuck", 3}, {"deleted_stuck_why", "mounted: unmount it"}};
  const auto s = build_status(in);
  EXPECT_TRUE(std::any_of(s.alerts.begin(), s.alerts.end(), [](const control::Alert& a) {
    return a.code == "deleted_stuck" && a.severity == "info" &&
           a.text == "3 deleted files on n2 can't be taken away and hold space: mounted: unmount it";
  }));
}

TEST(StatusBuilder, AShortageOfHistoryNamesItsDisk) {
  auto in = from_passive();
  in.snapshot.mirror["space"] = {{{"where", "history"}, {"full", true}, {"path", "/var/lib/holdfast/undo"}}};
  const auto s = build_status(in);
  EXPECT_EQ(s.automatic_failover.reason,
            "n2: it has changes to apply and no space for their undo history under /var/lib/holdfast/undo: free space "
            "there, it goes on by itself");
  EXPECT_TRUE(std::any_of(s.alerts.begin(), s.alerts.end(), [](const control::Alert& a) {
    return a.code == "full_history" && a.text == "/var/lib/holdfast/undo is full under the undo history of n2";
  }));
}

TEST(StatusBuilder, TheUndoHistoryIsShownWhereItIsTold) {
  auto in = from_passive();
  EXPECT_FALSE(node(build_status(in), "n2").undo.has_value());
  in.snapshot.mirror["undo"] = {{"state", "on"}, {"bytes", 5}, {"oldest_time_ns", 7'000'000}, {"shadows", 2}};
  const auto n = node(build_status(in), "n2");
  ASSERT_TRUE(n.undo.has_value());
  EXPECT_EQ(n.undo->oldest_ms, 7);
  EXPECT_EQ(n.undo->shadows, 2U);
  in.snapshot.mirror["undo"]["state"] = "damaged";
  const auto s = build_status(in);
  EXPECT_TRUE(std::any_of(s.alerts.begin(), s.alerts.end(), [](const auto& a) { return a.code == "undo_damaged"; }));
}

TEST(StatusBuilder, BeforeACluster) {
  StatusSources in;
  EXPECT_EQ(build_status(in).state, "stopped");
  in.snapshot.member = true;
  EXPECT_EQ(build_status(in).state, "connecting");
}

}  // namespace
}  // namespace holdfast::daemon
