// SPDX-License-Identifier: Apache-2.0
// Which promotion carries an order out: the one it is meant for, and no other.
#include "daemon/holdfastd/rollback_order.h"

#include <fstream>

#include <gtest/gtest.h>

#include "control/testing/temporary_folder.h"

namespace holdfast::daemon {
namespace {

constexpr NodeId self(2), other(1), third(3);

cluster::ValuePtr value(std::uint64_t epoch, NodeId active) {
  cluster::Value v;
  v.revision = {Epoch(epoch), 1};
  v.active = active;
  return std::make_shared<const cluster::Value>(std::move(v));
}

RollbackOrder order(OrderState state) {
  RollbackOrder o;
  o.state = state;
  o.plan = "rollback-20261125T140211-3f9a";
  o.actor = "alice";
  o.from = "n1";
  o.after = Epoch(7);
  o.batch = 4711;
  o.point = {Epoch(7), Sequence(99)};
  o.time_ns = 1'795'615'331'123'456'789;
  o.label = "nightly";
  o.data_bytes = 1 << 20;
  return o;
}

TEST(RollbackOrder, IsCarriedOutByTheWinItIsMeantForOnly) {
  const std::uint64_t named = order_id(order(OrderState::ordered).plan);
  struct Case {
    const char* what;
    OrderState state;
    std::uint64_t won_for;
    cluster::ValuePtr over;
    bool carried_out;
  };
  const std::vector<Case> cases = {
      {"handed over in its name", OrderState::ordered, named, value(7, other), true},
      {"the holder died before it handed over", OrderState::ordered, 0, value(7, other), false},
      {"the old active won an epoch in between", OrderState::ordered, named, value(8, other), false},
      {"handed over for another one", OrderState::ordered, named + 1, value(7, other), false},
      {"founded anew by force", OrderState::ordered, 0, nullptr, false},
      {"this node's own epoch, which it lost in the middle", OrderState::begun, 0, value(7, self), true},
      {"somebody else was active in between", OrderState::begun, 0, value(8, third), false},
      {"and this node after that", OrderState::begun, 0, value(9, self), false},
      {"the wish was won", OrderState::wished, named, value(7, other), true},
      {"the wish was won, and the cluster founded anew", OrderState::wished, named, nullptr, true},
      {"won by itself after the wish was lost", OrderState::wished, 0, value(7, other), false},
      {"holdfastd was restarted after the wish was won", OrderState::wished, 0, value(8, self), true},
      {"somebody else won after the wish", OrderState::wished, 0, value(8, third), false},
      {"carried out before", OrderState::done, named, value(7, other), false},
  };
  for (const Case& c : cases) EXPECT_EQ(carries_out(order(c.state), c.won_for, c.over, self), c.carried_out) << c.what;
}

TEST(RollbackOrder, NamesAreNeverNothing) {
  EXPECT_NE(order_id(""), 0U);
  EXPECT_NE(order_id("rollback-1"), order_id("rollback-2"));
}

TEST(RollbackOrders, OutliveARestartAtEachState) {
  const control::TemporaryFolder tmp;
  const std::string file = tmp / "rollback.json";
  RollbackOrders first(file);
  ASSERT_TRUE(first.load());
  EXPECT_FALSE(first.last());
  ASSERT_TRUE(first.store(order(OrderState::ordered)));
  const auto again = [&] {
    RollbackOrders next(file);
    EXPECT_TRUE(next.load());
    return next.last();
  };
  EXPECT_EQ(again(), order(OrderState::ordered));
  ASSERT_TRUE(first.begin(order(OrderState::ordered), Epoch(8)));
  ASSERT_TRUE(again());
  EXPECT_EQ(again()->state, OrderState::begun);
  EXPECT_EQ(again()->after, Epoch(8));
  ASSERT_TRUE(first.done(*first.last(), Epoch(8)));
  EXPECT_EQ(again()->applied, Epoch(8));
  ASSERT_TRUE(first.forget());
  EXPECT_TRUE(again()) << "what was done is remembered";
}

TEST(RollbackOrders, OnlyTheOneThatIsNamedIsForgotten) {
  const control::TemporaryFolder tmp;
  RollbackOrders orders(tmp / "rollback.json");
  ASSERT_TRUE(orders.store(order(OrderState::ordered)));
  ASSERT_TRUE(orders.forget("rollback-of-yesterday"));
  EXPECT_TRUE(orders.last());
  ASSERT_TRUE(orders.forget(order(OrderState::ordered).plan));
  EXPECT_FALSE(orders.last());
  RollbackOrders next(tmp / "rollback.json");
  ASSERT_TRUE(next.load());
  EXPECT_FALSE(next.last());
}

TEST(RollbackOrders, ADamagedFileTakesNothingBack) {
  const control::TemporaryFolder tmp;
  const std::string file = tmp / "rollback.json";
  for (const char* text : {"{", "[]", "{\"version\":1}", "{\"version\":2,\"state\":\"ordered\"}", "nothing"}) {
    std::ofstream(file, std::ios::trunc) << text;
    RollbackOrders orders(file);
    const Status loaded = orders.load();
    ASSERT_FALSE(loaded) << text;
    EXPECT_NE(loaded.error().message.find("not carried out"), std::string::npos) << loaded.error().message;
    EXPECT_FALSE(orders.last());
  }
}

}  // namespace
}  // namespace holdfast::daemon
