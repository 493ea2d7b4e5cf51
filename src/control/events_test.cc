// SPDX-License-Identifier: Apache-2.0
#include "control/events.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "control/testing/temporary_folder.h"

namespace holdfast::control {
namespace {

class Events : public ::testing::Test {
 protected:
  TemporaryFolder tmp;
  std::int64_t now = 1'795'000'000'000;
  EventLimits limits;

  std::unique_ptr<EventStore> open(const std::string& self = "n1", const std::string& dir = "events") {
    auto store = EventStore::open(tmp / dir, self, limits, [this] { return now += 10; });
    EXPECT_TRUE(store) << store.error().to_string();
    return std::move(*store);
  }
  static std::vector<std::string> texts(const EventPage& page) {
    std::vector<std::string> out;
    for (const Event& e : page.events) out.push_back(e.node + "/" + e.text);
    return out;
  }
};

using Texts = std::vector<std::string>;

TEST_F(Events, SurviveARestartAndGoOnCounting) {
  std::uint64_t first = 0;
  {
    auto store = open();
    first = store->append({"info", "init", "alice", "init erp"})->counter;
    EXPECT_EQ(store->append({"info", "x", "alice", "two\nlines"})->text, "two lines");
  }
  auto store = open();
  EXPECT_EQ(texts(store->after({}, 10)), (Texts{"n1/init erp", "n1/two lines"}));
  EXPECT_EQ(store->append({"info", "x", "a", "three"})->counter, first + 2);
}

TEST_F(Events, PagesByCursor) {
  auto store = open();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(store->append({"info", "x", "a", std::to_string(i)}));
  const EventPage one = store->after({}, 3);
  EXPECT_EQ(texts(one), (Texts{"n1/0", "n1/1", "n1/2"}));
  const EventPage two = store->after(event_cursor_from_text(to_text(one.next)).value(), 3);
  EXPECT_EQ(texts(two), (Texts{"n1/3", "n1/4"}));
  EXPECT_TRUE(store->after(two.next, 3).events.empty());
}

TEST_F(Events, MergesOtherNodesOnceWhateverTheOrder) {
  auto n1 = open("n1", "e1");
  auto n2 = open("n2", "e2");
  ASSERT_TRUE(n1->append({"info", "x", "a", "first"}));
  ASSERT_TRUE(n2->append({"info", "x", "a", "second"}));
  ASSERT_TRUE(n1->append({"info", "x", "a", "third"}));
  auto page = n2->after({}, 10).events;
  ASSERT_TRUE(n1->ingest(page));
  ASSERT_TRUE(n1->ingest(page)) << "again";
  ASSERT_TRUE(n2->ingest(n1->after({}, 10).events));
  EXPECT_EQ(texts(n1->after({}, 10)), (Texts{"n1/first", "n2/second", "n1/third"}));
  EXPECT_EQ(texts(n2->after({}, 10)), texts(n1->after({}, 10)));
  EXPECT_EQ(n1->end(), n2->end());
}

TEST_F(Events, AClockThatRunsAheadHidesNothing) {
  auto store = open("n1");
  ASSERT_TRUE(store->ingest(
      {{"n2", 1, now + 3'600'000, "info", "x", "a", "from the future"}, {"n2", 2, now, "info", "x", "a", "then"}}));
  ASSERT_TRUE(store->append({"info", "x", "a", "here"}));
  EventCursor cursor;
  Texts seen;
  for (int i = 0; i < 3; ++i) {
    const EventPage page = store->after(cursor, 1);
    ASSERT_EQ(page.events.size(), 1u);
    seen.push_back(texts(page)[0]);
    cursor = page.next;
  }
  EXPECT_EQ(seen, (Texts{"n1/here", "n2/from the future", "n2/then"}));
}

TEST_F(Events, TornTailIsCutAndDamageSkipped) {
  std::string file;
  {
    auto store = open();
    for (const char* text : {"one", "two", "three"}) ASSERT_TRUE(store->append({"info", "x", "a", text}));
    file = std::filesystem::directory_iterator(tmp / "events")->path().string();
  }
  {
    std::fstream f(file, std::ios::in | std::ios::out);
    std::string line;
    std::getline(f, line);
    f.seekp(static_cast<std::streamoff>(line.size()) + 6);
    f << "#####";
    f.seekp(0, std::ios::end);
    f << "{\"node\":\"n1\",\"coun";
  }
  auto store = open();
  EXPECT_EQ(texts(store->after({}, 10)), (Texts{"n1/one", "n1/three"}));
  ASSERT_TRUE(store->append({"info", "x", "a", "four"}));
  EXPECT_EQ(texts(open()->after({}, 10)), (Texts{"n1/one", "n1/three", "n1/four"}));
}

TEST_F(Events, SpaceIsBounded) {
  limits.file_bytes = 1000;
  limits.files_per_node = 3;
  auto store = open();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(store->append({"info", "x", "a", fmt::format("event {}", i)}));
  std::uintmax_t bytes = 0, files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(tmp / "events")) bytes += entry.file_size(), ++files;
  EXPECT_LE(bytes, 3000u);
  EXPECT_EQ(files, 3u);
  const EventPage page = store->after({}, 1000);
  EXPECT_EQ(page.events.back().text, "event 199");
  EXPECT_LT(page.events.size(), 30u);
  EXPECT_EQ(texts(open()->after({}, 1000)), texts(page));
}

TEST_F(Events, WaitingEndsWithTheEventOrTheStop) {
  auto store = open();
  EXPECT_TRUE(store->wait_after({}, 10, 1).events.empty());
  std::thread writer([&] { EXPECT_TRUE(store->append({"info", "x", "a", "now"})); });
  EXPECT_EQ(texts(store->wait_after({}, 10, 20'000)), Texts{"n1/now"});
  writer.join();
  std::thread stopper([&] { store->stop(); });
  EXPECT_TRUE(store->wait_after(store->end(), 10, 20'000).events.empty());
  stopper.join();
}

TEST_F(Events, NamesFromElsewhereCannotLeaveTheFolder) {
  auto store = open();
  ASSERT_TRUE(store->ingest({{"../evil", 1, now, "info", "x", "a", "t"},
                             {"", 1, now, "info", "x", "a", "t"},
                             {".x", 1, now, "i", "x", "a", "t"}}));
  EXPECT_TRUE(store->after({}, 10).events.empty());
  EXPECT_FALSE(EventStore::open(tmp / "e", "a/b", limits, [] { return std::int64_t{1}; }));
}

TEST(EventCursorText, IsStrict) {
  EXPECT_EQ(to_text(event_cursor_from_text("a:1,b-2:18446744073709551615").value()), "a:1,b-2:18446744073709551615");
  EXPECT_TRUE(event_cursor_from_text("")->empty());
  for (const char* bad : {"a", "a:", ":1", "a:x", "a:-1", "../a:1", "a:1 ", "a:99999999999999999999"})
    EXPECT_FALSE(event_cursor_from_text(bad)) << bad;
}

}  // namespace
}  // namespace holdfast::control
