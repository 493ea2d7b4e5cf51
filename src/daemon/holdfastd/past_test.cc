// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/past.h"

#include <gtest/gtest.h>

namespace holdfast::daemon {
namespace {

using nlohmann::json;

constexpr std::int64_t ms = 1'000'000;

json answer() {
  return json::parse(
      R"({"points":[{"batch":30,"position":{"epoch":7,"seq":300},"time_ns":9000000000,"consistent":true,"rewind":false},
     {"batch":20,"position":{"epoch":7,"seq":200},"time_ns":8000000000,"consistent":false,"rewind":true,"label":"nightly"}],
     "gaps":[{"before_batch":1,"set":0,"why":"this node became active","time_ns":1000000000},{"before_batch":5,"set":2,"why":"first copy"}],
     "shadows":[{"name":"nightly","batch":20,"time_ns":8000000000,"keep":true,"origin":"user","application_consistent":true,"bytes_since":5},
                {"name":"before-rollback-1","batch":3,"time_ns":3000000000,"origin":"auto"},
                {"name":"before-rollback-2","batch":4,"time_ns":4000000000,"origin":"auto"},
                {"name":"before-rollback-by-hand","batch":9,"time_ns":9000000000,"origin":"user"}],
     "oldest_time_ns":2000000000,"newest_time_ns":9500000000})");
}

TEST(NodeTimeline, IsCondensedAndKeepsWhatWasAskedFor) {
  const auto n = node_timeline("n2", "passive", answer(),
                               {{"state", "on"}, {"bytes", 10}, {"limit_bytes", 100}, {"batches", 28}}, 1);
  EXPECT_EQ(n.state, "on");
  ASSERT_EQ(n.spans.size(), 1U);
  EXPECT_EQ(n.spans[0].from_ms, 2000);
  EXPECT_EQ(n.spans[0].to_ms, 9500);
  EXPECT_EQ(n.spans[0].points, 28U);
  ASSERT_EQ(n.points.size(), 1U);
  EXPECT_EQ(n.points[0].batch, 30U);
  ASSERT_EQ(n.gaps.size(), 2U);
  EXPECT_EQ(n.gaps[0].why, "first copy") << "the newest first";
  EXPECT_EQ(n.limit_bytes, 100U);
}

TEST(NodeTimeline, WhatAnOlderMirrorDoesNotSayIsAbsent) {
  const auto n = node_timeline("n2", "passive", json(), json(), 10);
  EXPECT_EQ(n.state, "unknown");
  EXPECT_TRUE(n.spans.empty());
  json old = answer();
  old.erase("oldest_time_ns"), old.erase("newest_time_ns"), old.erase("shadows");
  const auto spans = node_timeline("n2", "passive", old, json(), 0).spans;
  ASSERT_EQ(spans.size(), 1U);
  EXPECT_EQ(spans[0].from_ms, 8000);
  EXPECT_EQ(spans[0].to_ms, 9000);
  const json odd = {{"points", 7}, {"gaps", "x"}, {"shadows", {1, 2}}};
  EXPECT_TRUE(node_timeline("n2", "passive", odd, json(), 0).gaps.empty());
}

control::NodeTimeline spanned(const std::string& node, std::int64_t from_ms, std::int64_t to_ms) {
  control::NodeTimeline n;
  n.node = node;
  if (to_ms != 0) n.spans.push_back({from_ms, to_ms, 1});
  return n;
}

TEST(ClusterReach, PutsTheNodesHistoriesOnOneLine) {
  using Nodes = std::vector<std::string>;
  EXPECT_TRUE(cluster_reach({}).empty());
  EXPECT_TRUE(cluster_reach({spanned("n1", 0, 0)}).empty());
  auto reach = cluster_reach({spanned("n1", 0, 0), spanned("n2", 400'000, 900'000), spanned("n3", 100'000, 899'000)});
  ASSERT_EQ(reach.size(), 2U);
  EXPECT_EQ(reach[0].from_ms, 400'000);
  EXPECT_EQ(reach[0].to_ms, 900'000) << "one is a second behind";
  EXPECT_EQ(reach[0].nodes, (Nodes{"n2", "n3"}));
  EXPECT_EQ(reach[1].from_ms, 100'000);
  EXPECT_EQ(reach[1].to_ms, 400'000);
  EXPECT_EQ(reach[1].nodes, Nodes{"n3"});
  // A node that has stood still for long: what it has is older than anything the other has.
  reach = cluster_reach({spanned("n2", 500'000, 900'000), spanned("n3", 100'000, 300'000)});
  ASSERT_EQ(reach.size(), 2U);
  EXPECT_EQ(reach[0].from_ms, 500'000);
  EXPECT_EQ(reach[1].to_ms, 300'000);
  EXPECT_EQ(reach[1].nodes, Nodes{"n3"});
  reach = cluster_reach({spanned("n2", 900'000, 900'000)});
  ASSERT_EQ(reach.size(), 1U);
  EXPECT_EQ(reach[0].nodes, Nodes{"n2"});
}

TEST(Shadows, OfTwoNodesAreOneRowAName) {
  std::vector<control::ShadowStatus> all;
  add_shadows("n2", answer(), all);
  add_shadows("n3", {{"shadows", {{{"name", "nightly"}, {"time_ns", 8'000'000'000}, {"bytes_since", 9}}}}}, all);
  sort_shadows(all);
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all[0].name, "before-rollback-by-hand");
  EXPECT_EQ(all[1].name, "nightly");
  EXPECT_EQ(all[1].nodes, (std::vector<std::string>{"n2", "n3"}));
  EXPECT_TRUE(all[1].keep);
  EXPECT_EQ(all[1].bytes_since, 9U);
}

TEST(Shadows, TheBeginningOfAnAutomaticNameMeansTheNewest) {
  EXPECT_EQ(shadow_meant(answer(), "before-rollback"), "before-rollback-2");
  EXPECT_EQ(shadow_meant(answer(), "before-rollback-1"), "before-rollback-1");
  EXPECT_EQ(shadow_meant(answer(), "nightl"), "nightl") << "only whole words, and the mirror refuses it by name";
}

TEST(Resolve, AsksForOneOfThree) {
  control::When when;
  when.kind = control::When::Kind::ago;
  when.ago_ns = 5 * ms;
  EXPECT_EQ(resolve_request(when, 0, answer(), 100 * ms), (json{{"time_ns", 95 * ms}}));
  EXPECT_EQ(resolve_request(when, 20, answer(), 100 * ms), (json{{"batch", 20}}));
  when.kind = control::When::Kind::shadow;
  when.shadow = "before-rollback";
  EXPECT_EQ(resolve_request(when, 0, answer(), 100 * ms), (json{{"shadow", "before-rollback-2"}}));
  EXPECT_TRUE(past_point({{"now", true}})->now);
  EXPECT_FALSE(past_point(json::object())) << "a point without a number is none";
  const auto p = past_point({{"batch", 20}, {"position", {{"epoch", 7}, {"seq", 200}}}, {"time_ns", 8'000'000'000}});
  ASSERT_TRUE(p);
  EXPECT_EQ(p->position, (Position{Epoch(7), Sequence(200)}));
}

PastPoint at(std::int64_t time_ns) {
  PastPoint p;
  p.batch = 1;
  p.time_ns = time_ns;
  return p;
}

TEST(BestCandidate, IsTheNearestThenTheFirstByIdentity) {
  std::vector<PastCandidate> all;
  all.push_back({NodeId(2), "n2", 2, at(10)});
  all.push_back({NodeId(3), "n3", 3, at(20)});
  EXPECT_EQ(best_candidate(all, "x")->name, "n3");
  all[0].point = at(20);
  EXPECT_EQ(best_candidate(all, "x")->name, "n2");
  all[0].point = fail(ErrorCode::not_found, "no history before 13:20:05");
  EXPECT_EQ(best_candidate(all, "x")->name, "n3");
}

TEST(BestCandidate, ARefusalNamesEachNodesReason) {
  std::vector<PastCandidate> all;
  PastPoint now;
  now.now = true;
  all.push_back({NodeId(2), "n2", 2, fail(ErrorCode::not_found, "no history before 13:20:05")});
  all.push_back({NodeId(3), "n3", 3, now});
  const auto none = best_candidate(all, "12:00");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::refused);
  EXPECT_EQ(none.error().message,
            "no node can go back to 12:00: n2: no history before 13:20:05; n3: nothing was changed since then");
  EXPECT_EQ(none.error().hint, "holdfast timeline shows what there is");
  EXPECT_FALSE(best_candidate({}, "12:00"));
}

// After a change of roles the older part may lie nowhere, or on a third node only: the refusal says how far each goes back.
TEST(BestCandidate, ARefusalSaysHowFarEachNodeGoesBack) {
  json led = {
      {"points", json::array()},
      {"gaps", {{{"before_batch", 9}, {"set", 0}, {"why", "this node became active"}, {"time_ns", 1'000'000'000}}}}};
  EXPECT_EQ(reach_of("n1", "active", led, 2000),
            "n1 leads since " + control::local_time(1000, 2000) + ", and what it kept before that is gone");
  led["gaps"] = json::array();
  EXPECT_EQ(reach_of("n1", "active", led, 2000), "n1 leads, and has no history of its own");
  EXPECT_EQ(reach_of("n3", "passive", led, 2000), "n3 has no point to go back to");
  const std::string n2 = reach_of("n2", "passive", answer(), 10'000);
  EXPECT_EQ(n2, "n2 goes back to " + control::local_time(2000, 10'000));
  EXPECT_EQ(reach_of("n4", "passive", fail(ErrorCode::timeout, "no answer"), 0), "n4: no answer");
  std::vector<PastCandidate> all;
  all.push_back({NodeId(2), "n2", 2, fail(ErrorCode::not_found, "no history of that time here")});
  const auto none = best_candidate(all, "12:00", {n2, "n1 leads"});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message,
            "no node can go back to 12:00: n2: no history of that time here (" + n2 + "; n1 leads)");
  EXPECT_FALSE(node_timeline("n1", "active", led, {{"state", "on"}}, 0).detail.empty());
}

TEST(VerifyStatus, IsReadFromTheActivesMirror) {
  json mirror = json::parse(
      R"({"verify":{"scrub":true,"peers":[{"node_id":"00000000000000b2","state":"running","kind":"full","objects":5,"bytes":9,
      "progress":0.5,"differences":2,"repaired":1,"open":1,"last_full_ns":5000000,"last_result":"differs",
      "examples":[{"path":"/srv/a","what":"contents","state":"undecided"},7]}]}})");
  auto v = verify_status_of("n1", mirror, {{"00000000000000b2", "n2"}});
  EXPECT_EQ(v.state, "running");
  EXPECT_TRUE(v.scrub);
  ASSERT_EQ(v.peers.size(), 1U);
  EXPECT_EQ(v.peers[0].node, "n2");
  EXPECT_EQ(v.peers[0].open, 1U);
  EXPECT_EQ(v.peers[0].percent, 50);
  EXPECT_EQ(v.peers[0].last_full_ms, 5);
  EXPECT_EQ(v.peers[0].examples.at(0), "/srv/a: contents (undecided)");
  mirror["verify"]["peers"][0]["kind"] = "scrub";
  EXPECT_EQ(verify_status_of("n1", mirror, {}).state, "idle") << "the scrub always runs";
  EXPECT_EQ(verify_status_of("n1", json(), {}).state, "unknown");
}

TEST(Past, AnOlderNodeIsToldFromOneThatRefuses) {
  const auto says = [](ErrorCode code, const char* text) {
    return does_not_know(Error{code, text, "", 0}, "look_writable");
  };
  EXPECT_TRUE(says(ErrorCode::invalid, "this version does not know the request 'look_writable'"));  // a daemon's words
  EXPECT_TRUE(says(ErrorCode::invalid, "unknown operation look_writable"));                         // a mirror's
  EXPECT_FALSE(says(ErrorCode::invalid, "/mnt/look_writable is no empty folder on this node"));
  EXPECT_FALSE(says(ErrorCode::refused, "this node keeps no undo history"));
}

}  // namespace
}  // namespace holdfast::daemon
