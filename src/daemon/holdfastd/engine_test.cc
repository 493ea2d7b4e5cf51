// SPDX-License-Identifier: Apache-2.0
// The engine around the real core: two nodes, fake host, a clock that the test moves. Safety belongs to the core's own tests;
// here: order of effects, who is asked what, and that nothing is lost between them.
#include "daemon/holdfastd/engine.h"

#include <gtest/gtest.h>

#include "cluster/codec.h"

namespace holdfast::daemon {
namespace {

struct FakeClock : EngineClock {
  std::int64_t ns = 1'000'000'000;
  Moment read() override { return {Now{ns, ns}, platform::ClockReading{ns, ns, 0}}; }
};

struct FakeHost : EngineHost {
  std::vector<std::string> log;
  std::vector<std::pair<NodeId, Bytes>> sent;
  Engine* engine = nullptr;
  bool persist_at_once = true;
  bool seal_works = true;
  Epoch active_epoch;
  std::int64_t lease_left = 0;

  void persist(std::uint64_t id, const cluster::VoterState&) override {
    log.push_back("persist");
    if (persist_at_once) engine->persisted(id);
  }
  void send(NodeId to, Bytes message) override { sent.emplace_back(to, std::move(message)); }
  void extend_lease(Epoch, const platform::ClockReading&, std::int64_t left_ns) override {
    lease_left = left_ns;
    log.push_back("extend");
  }
  void clear_lease(Epoch) override { log.push_back("clear"); }
  void seal_mirror(Epoch epoch, bool) override {
    log.push_back("seal");
    if (seal_works)
      engine->feed(cluster::in::MirrorSealed{epoch, Position{}, true});
    else
      engine->feed(cluster::in::SealFailed{epoch, "no mirror"});
  }
  void become_active(const cluster::out::BecomeActive& won) override {
    active_epoch = won.epoch;
    log.push_back("active");
  }
  void step_down(Epoch, const std::string&) override { log.push_back("step down"); }
  void follow(Epoch, NodeId) override { log.push_back("follow"); }
  void in_sync_recorded(Epoch, std::uint64_t, const std::vector<NodeId>&) override { log.push_back("in-sync"); }
  void value_recorded(const cluster::ValuePtr&) override { log.push_back("recorded"); }
  void note(const std::string&) override {}

  bool has(const std::string& what) const { return std::find(log.begin(), log.end(), what) != log.end(); }
  std::size_t at(const std::string& what) const {
    return static_cast<std::size_t>(std::find(log.begin(), log.end(), what) - log.begin());
  }
};

struct EngineTest : ::testing::Test {
  Loop loop;
  FakeClock clock;
  FakeHost host;
  cluster::CoreOptions options{cluster::ClusterId(9), NodeId(1), 1, {}};
  std::unique_ptr<Engine> engine;

  EngineTest() {
    engine = std::make_unique<Engine>(loop, clock, host, options);
    host.engine = engine.get();
  }
  void start() {
    cluster::in::Started started;
    started.fresh = cluster::Incarnation(5);
    engine->start(started);
  }
  std::optional<bool> found() {
    auto answer = std::make_shared<std::optional<bool>>();
    cluster::in::Found f;
    f.value.members.push_back({NodeId(1), "n1", "here", 1, cluster::MemberKind::data, true, cluster::Incarnation(5)});
    f.value.config = "{}";
    engine->ask(f, [answer](bool ok, const std::string&) { *answer = ok; });
    for (int i = 0; i < 100 && !*answer; ++i) {
      clock.ns += 50 * ns_per_ms;
      engine->feed(cluster::in::Tick{});
    }
    return *answer;
  }
};

TEST_F(EngineTest, FoundingSealsPersistsRecordsAndHoldsALease) {
  start();
  EXPECT_EQ(found(), true);
  ASSERT_TRUE(host.has("active"));
  EXPECT_LT(host.at("seal"), host.at("active"));
  EXPECT_LT(host.at("persist"), host.at("active"));
  EXPECT_TRUE(host.has("extend"));
  EXPECT_GT(host.lease_left, 0);
  EXPECT_EQ(engine->role(), cluster::Role::active);
}

TEST_F(EngineTest, NothingBeforeStart) {
  engine->feed(cluster::in::Tick{});
  engine->received(NodeId(2), Bytes{1, 2, 3});
  EXPECT_TRUE(host.log.empty());
}

TEST_F(EngineTest, GarbageAndForgedMessagesAreDropped) {
  start();
  const auto before = host.sent.size();
  engine->received(NodeId(2), Bytes{});
  engine->received(NodeId(2), Bytes(5000, 0xff));
  cluster::Envelope forged{cluster::ClusterId(9), NodeId(3), NodeId(1), cluster::Canvass{7}};
  engine->received(NodeId(2), cluster::encode(forged));
  EXPECT_EQ(host.sent.size(), before) << "answered a forged message";
  forged.from = NodeId(2);
  engine->received(NodeId(2), cluster::encode(forged));
  EXPECT_EQ(host.sent.size(), before + 1) << "the honest one is answered";
}

TEST_F(EngineTest, ResignClearsTheLeaseBeforeAnybodyIsTold) {
  start();
  ASSERT_EQ(found(), true);
  host.log.clear();
  engine->feed(cluster::in::Resign{});
  ASSERT_FALSE(host.log.empty());
  EXPECT_EQ(host.log.front(), "clear");
  EXPECT_NE(engine->role(), cluster::Role::active);
}

TEST_F(EngineTest, WithoutAMirrorNobodyBecomesActive) {
  host.seal_works = false;
  start();
  EXPECT_NE(found(), true);
  EXPECT_FALSE(host.has("active"));
}

}  // namespace
}  // namespace holdfast::daemon
