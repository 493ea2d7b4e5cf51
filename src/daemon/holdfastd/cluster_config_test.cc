// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/cluster_config.h"

#include <gtest/gtest.h>

#include "daemon/holdfastd/json_read.h"

namespace holdfast::daemon {
namespace {

ClusterConfig example() {
  ClusterConfig c;
  c.name = "erp";
  c.mode = "fsync";
  c.nodes["00000000000000a1"].channel = {"10.0.0.1", "10.0.1.1"};
  c.public_addresses = {{"192.0.2.10/24", "berlin", "move"}};
  apps::Application a;
  a.name = "postgresql";
  a.plugin = "postgresql";
  a.resources = {{"postgresql@15-main.service", 90000, 60000}};
  a.data_paths = {"/var/lib/postgresql"};
  a.probe = apps::ProbeKind::postgresql_write;
  a.postgresql = {{"15", "main", 5433, "postgres", "/var/lib/postgresql/15/main", "postgresql@15-main.service"}};
  c.applications = {a};
  c.sets = {{1, "/var/lib/postgresql", "postgresql", "write-back", 3}};
  c.next_set = 2;
  return c;
}

TEST(ClusterConfig, ComesBackAsItWas) {
  const ClusterConfig before = example();
  const auto after = config_from_text(to_text(before));
  ASSERT_TRUE(after) << after.error().to_string();
  EXPECT_EQ(to_text(*after), to_text(before));
  EXPECT_EQ(after->applications.at(0), before.applications.at(0));
  EXPECT_EQ(after->nodes.at("00000000000000a1").channel.size(), 2u);
}

TEST(ClusterConfig, DamagedTextIsAnErrorNotACrash) {
  EXPECT_FALSE(config_from_text("{"));
  EXPECT_FALSE(config_from_text(R"({"lease_ms":"soon"})"));
  EXPECT_FALSE(config_from_text(R"({"sets":[{"path":"/x"}]})"));
  EXPECT_FALSE(config_from_text("[1]"));
}

TEST(ClusterSettings, AcceptedAndRefused) {
  const ClusterConfig c = example();
  struct Case {
    const char* key;
    const char* value;
    bool ok;
  };
  for (const Case& t : {Case{"mode", "async", true},
                        Case{"mode", "sometimes", false},
                        Case{"lease_ms", "700", true},
                        Case{"lease_ms", "0", true},
                        Case{"lease_ms", "100", false},
                        Case{"lease_ms", "12x", false},
                        Case{"ring_mib", "128", true},
                        Case{"ring_mib", "1", false},
                        Case{"send_queue_mib", "0", true},
                        Case{"send_queue_mib", "63", false},
                        Case{"receive_queue_mib", "0", false},
                        Case{"undo_mib", "0", true},
                        Case{"undo_mib", "64", true},
                        Case{"undo_mib", "63", false},
                        Case{"undo_mib", "auto", true},
                        Case{"automatic_failover", "off", true},
                        Case{"scrub", "off", true},
                        Case{"scrub", "slow", false},
                        Case{"scrub_mib_s", "8", true},
                        Case{"scrub_mib_s", "5000", false},
                        Case{"automatic_failover", "maybe", false},
                        Case{"public_addresses", "192.0.2.11/24", true},
                        Case{"public_addresses", "192.0.2.11", false},
                        Case{"recovery_point_limit_s", "0", true},
                        Case{"recovery_point_limit_s", "4", false},
                        Case{"recovery_point_limit_s", "3600", true},
                        Case{"false_failover_avoidance", "off", true},
                        Case{"failures_limit", "0", true},
                        Case{"failures_limit", "101", false},
                        Case{"failures_minutes", "0", false},
                        Case{"colour", "blue", false}})
    EXPECT_EQ(with_setting(c, t.key, t.value).has_value(), t.ok) << t.key << " = " << t.value;
}

TEST(ClusterSettings, ShownValueCanBeSetAgain) {
  const ClusterConfig c = example();
  for (const control::ConfigItem& item : config_items(c)) {
    const auto again = with_setting(c, item.key, item.value);
    ASSERT_TRUE(again) << item.key << ": " << again.error().to_string();
    EXPECT_EQ(to_text(*again), to_text(c)) << item.key;
  }
}

// A passive is told of a new folder a moment before its mirror is.
TEST(ClusterConfig, AMirrorThatDoesNotKnowAFolderIsNotWhole) {
  ClusterConfig c;
  EXPECT_TRUE(knows_every_set({{"sets", nlohmann::json::array()}}, c));
  c.sets = {{1, "/srv/a", "", "write-back", 1}, {3, "/srv/b", "", "write-back", 2}};
  EXPECT_TRUE(knows_every_set({{"sets", {{{"set", 3}}, {{"set", 1}, {"path", "/srv/a"}}}}}, c));
  EXPECT_FALSE(knows_every_set({{"sets", {{{"set", 1}}}}}, c));
  EXPECT_FALSE(knows_every_set({{"sets", nlohmann::json::array()}}, c));
  EXPECT_TRUE(knows_every_set({{"complete", true}}, c)) << "an older one does not say";
}

TEST(ClusterFailures, TooManyInTheTimeHoldANodeUntilItIsReleased) {
  ClusterConfig c = example();
  const NodeId node{0xa1};
  EXPECT_FALSE(note_failure(c, node, 10'000));
  EXPECT_FALSE(note_failure(c, node, 10'000 + 61 * 60)) << "the first one is too long ago to count";
  EXPECT_FALSE(note_failure(c, node, 10'000 + 62 * 60));
  EXPECT_TRUE(c.held(node).empty());
  EXPECT_TRUE(note_failure(c, node, 10'000 + 63 * 60));
  EXPECT_FALSE(note_failure(c, node, 10'000 + 64 * 60)) << "it is held already";
  EXPECT_EQ(c.held(node), "it failed as the active 3 times within 60 minutes");
  const auto again = config_from_text(to_text(c));
  ASSERT_TRUE(again);
  EXPECT_EQ(to_text(*again), to_text(c));
  EXPECT_TRUE(release(c, node));
  EXPECT_FALSE(release(c, node));
  EXPECT_FALSE(note_failure(c, node, 10'000 + 65 * 60)) << "what was before the release counts";
}

TEST(ClusterFailures, NoLimitAndNoMemberCountNothing) {
  ClusterConfig c = example();
  const std::string before = to_text(c);
  EXPECT_FALSE(note_failure(c, NodeId{0xb2}, 10'000));
  EXPECT_EQ(to_text(c), before) << "a node that is no member any more must not come back";
  c.failures_limit = 0;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(note_failure(c, NodeId{0xa1}, 10'000 + i));
}

TEST(ClusterFailures, AClockThatWasSetBackForgets) {
  ClusterConfig c = example();
  for (int i = 0; i < 5; ++i) note_failure(c, NodeId{0xa1}, 100'000 - i * 10'000);
  EXPECT_TRUE(c.held(NodeId{0xa1}).empty());
}

TEST(ClusterSettings, ProfileDecidesTheLeaseUnlessSet) {
  ClusterConfig c = example();
  EXPECT_EQ(c.settings().lease_ms, 2000u);
  c.profile = "fast";
  EXPECT_EQ(c.settings().lease_ms, 700u);
  c.lease_ms = 900;
  EXPECT_EQ(c.settings().lease_ms, 900u);
}

}  // namespace
}  // namespace holdfast::daemon
