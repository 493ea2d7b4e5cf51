// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/loop.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace holdfast::daemon {
namespace {

using namespace std::chrono_literals;

TEST(Loop, MailInOrderTimersByTime) {
  Loop loop;
  std::vector<std::string> seen;
  loop.after(30ms, "late", [&] {
    seen.push_back("late");
    loop.stop();
  });
  loop.after(10ms, "early", [&] { seen.push_back("early"); });
  const Loop::TimerId dropped = loop.after(5ms, "never", [&] { seen.push_back("never"); });
  loop.cancel(dropped);
  loop.post("a", [&] { seen.push_back("a"); });
  loop.post("b", [&] { seen.push_back("b"); });
  loop.run();
  EXPECT_EQ(seen, (std::vector<std::string>{"a", "b", "early", "late"}));
}

TEST(Loop, CallAnswersFromTheLoopAndFallsBackAfterStop) {
  Loop loop;
  std::thread runner([&] { loop.run(); });
  EXPECT_TRUE(loop.call(
      "on the loop?", [&] { return loop.on_loop(); }, false));
  loop.stop();
  runner.join();
  EXPECT_EQ(loop.call(
                "too late", [] { return 1; }, 7),
            7);
  EXPECT_FALSE(loop.post("too late", [] {}));
}

}  // namespace
}  // namespace holdfast::daemon
