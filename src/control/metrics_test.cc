// SPDX-License-Identifier: Apache-2.0
#include "control/metrics.h"

#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

namespace holdfast::control {
namespace {

ClusterStatus example() {
  ClusterStatus s;
  s.name = "office";
  s.state = "warning";
  s.time_ms = 1'000'000;
  s.lease = LeaseStatus{"n1", 2'500, 7};
  NodeStatus n1, n2;
  n1.name = "n1";
  n1.role = "active";
  n1.synchronized = true;
  n1.recovery_point_s = 0;
  n2.name = "n\"2\\";
  n2.role = "passive";
  n2.queues.send_bytes = 123'456'789'012;
  n2.queues.send_age_s = 1.25;
  n2.channel = {{"10.0.0.1 -> 10.0.0.2", "up", 0.25}};
  n2.undo = UndoStatus{"on", 10, 20, 940'000, 999'000, 1};
  s.nodes = {n1, n2};
  s.alerts = {{"warning", "peer_lost", "text that is\nnot shown", "", 0},
              {"error", "differs", "", "", 0},
              {"error", "differs", "another one", "", 0}};
  s.applications = {{"db", "postgresql", "running", "unknown", "n1", "", {}}};
  return s;
}

TEST(Metrics, ValuesAreInBaseUnitsAndUnknownOnesAreLeftOut) {
  const std::string text = prometheus_text(example());
  const auto has = [&](const char* line) { return text.find(std::string(line) + "\n") != std::string::npos; };
  EXPECT_TRUE(has(R"(holdfast_state{cluster="office",state="warning"} 1)")) << text;
  EXPECT_TRUE(has(R"(holdfast_state{cluster="office",state="healthy"} 0)"));
  EXPECT_TRUE(has(R"(holdfast_lease_remaining_seconds{cluster="office"} 2.5)"));
  EXPECT_TRUE(has(R"(holdfast_node_recovery_point_seconds{node="n1"} 0)"));
  EXPECT_EQ(text.find(R"(holdfast_node_recovery_point_seconds{node="n\)"), std::string::npos) << "unknown is not 0";
  EXPECT_TRUE(has(R"(holdfast_send_queue_bytes{node="n\"2\\"} 123456789012)"));
  EXPECT_EQ(text.find(R"(holdfast_send_queue_bytes{node="n1"})"), std::string::npos) << "nothing is sent to the active";
  EXPECT_TRUE(has(R"(holdfast_send_queue_age_seconds{node="n\"2\\"} 1.25)"));
  EXPECT_TRUE(has(R"(holdfast_channel_round_trip_seconds{node="n\"2\\",path="10.0.0.1 -> 10.0.0.2"} 0.00025)"));
  EXPECT_TRUE(has(R"(holdfast_undo_reach_seconds{node="n\"2\\"} 60)"));
  EXPECT_TRUE(has(R"(holdfast_alerts{severity="warning",code="peer_lost"} 1)"));
  EXPECT_TRUE(has(R"(holdfast_alerts{severity="error",code="differs"} 2)")) << "a series has one value";
  EXPECT_TRUE(has(R"(holdfast_application_running{application="db",plugin="postgresql"} 1)"));
  EXPECT_EQ(text.find("holdfast_application_healthy"), std::string::npos);
}

// What the format demands: each family once, its HELP and TYPE before its samples, and nothing that is no line of it.
TEST(Metrics, EachLineIsOfTheFormat) {
  const std::regex sample(R"re([a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)+\})? -?[0-9.e+-]+)re");
  std::istringstream lines(prometheus_text(example()));
  std::set<std::string> families;
  std::string family;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(family).second) << family << " twice";
    } else if (line.starts_with("# TYPE ")) {
      EXPECT_EQ(line, "# TYPE " + family + " gauge");
    } else {
      EXPECT_TRUE(std::regex_match(line, sample)) << line;
      EXPECT_EQ(line.substr(0, line.find_first_of("{ ")), family);
    }
  }
  EXPECT_GT(families.size(), 15U);
}

TEST(Metrics, BeforeInitThereIsAStateAndNoNode) {
  ClusterStatus s;
  s.state = "stopped";
  const std::string text = prometheus_text(s);
  EXPECT_NE(text.find("state=\"stopped\"} 1"), std::string::npos);
  EXPECT_EQ(text.find("holdfast_node_"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::control
