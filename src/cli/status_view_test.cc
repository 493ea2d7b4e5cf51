// SPDX-License-Identifier: Apache-2.0
// Golden screens: testdata/NAME.json drawn must equal testdata/NAME.txt. After a wanted change run the test with
// HF_UPDATE_GOLDEN=1 and look at the difference.
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/views.h"

namespace holdfast::cli {
namespace {

std::string path_of(const std::string& name) { return std::string(HF_CLI_TESTDATA) + "/" + name; }

std::string read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

control::ClusterStatus fixture(const std::string& name) {
  const auto status = control::cluster_status_from_json(nlohmann::json::parse(read(path_of(name + ".json"))));
  EXPECT_TRUE(status) << status.error().to_string();
  return *status;
}

const char* const fixtures[] = {"healthy",    "resync",      "degraded", "plan_running", "failover_unavailable",
                                "no_cluster", "passive_full"};

class Golden : public ::testing::TestWithParam<const char*> {};

TEST_P(Golden, Screen) {
  const std::string drawn = status_view(fixture(GetParam()), Look{80, false, true});
  const std::string golden = path_of(std::string(GetParam()) + ".txt");
  if (std::getenv("HF_UPDATE_GOLDEN") != nullptr) std::ofstream(golden) << drawn;
  EXPECT_EQ(drawn, read(golden));
}

TEST_P(Golden, FitsAScreenInAnyLook) {
  for (const int width : {60, 80, 120})
    for (const bool unicode : {false, true}) {
      const std::string drawn = status_view(fixture(GetParam()), Look{width, false, unicode});
      std::istringstream lines(drawn);
      int count = 0;
      for (std::string line; std::getline(lines, line); ++count) {
        EXPECT_LE(visible_width(line), static_cast<std::size_t>(width)) << line;
        if (!unicode) {
          for (const char c : line) EXPECT_GE(c, 0) << line;
        }
      }
      if (width >= 80) {
        EXPECT_LE(count, 40);
      }
      EXPECT_EQ(drawn.find('\x1b'), std::string::npos) << "colour only when asked for";
    }
}

TEST_P(Golden, ColourChangesNothingButColour) {
  const auto status = fixture(GetParam());
  std::string coloured = status_view(status, Look{80, true, true});
  EXPECT_NE(coloured.find('\x1b'), std::string::npos);
  for (std::size_t at; (at = coloured.find('\x1b')) != std::string::npos;)
    coloured.erase(at, coloured.find('m', at) - at + 1);
  std::istringstream a(coloured), b(status_view(status, Look{80, false, true}));
  for (std::string x, y; std::getline(b, y);) {
    std::getline(a, x);
    while (!x.empty() && x.back() == ' ') x.pop_back();
    EXPECT_EQ(x, y);
  }
}

INSTANTIATE_TEST_SUITE_P(Status, Golden, ::testing::ValuesIn(fixtures),
                         [](const auto& given) { return std::string(given.param); });

TEST(StatusView, NeverShowsSynchronizedOrARecoveryPointThatIsNot) {
  auto status = fixture("degraded");
  const std::string drawn = status_view(status, Look{});
  EXPECT_EQ(drawn.find("synchronized"), std::string::npos);
  EXPECT_NE(drawn.find("unknown"), std::string::npos);
}

TEST(StatusView, TextOfOthersCannotDriveTheTerminal) {
  auto status = fixture("healthy");
  status.nodes[1].name = "n2\x1b[2J\nfake";
  status.detail = "\x1b]0;title\x07";
  const std::string drawn = status_view(status, Look{});
  EXPECT_EQ(drawn.find('\x1b'), std::string::npos);
  EXPECT_EQ(drawn.find('\x07'), std::string::npos);
  EXPECT_EQ(drawn.find("\nfake"), std::string::npos);
}

TEST(Text, Numbers) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(human_bytes(1288490188), "1.2 GiB");
  EXPECT_EQ(human_seconds(0), "0.0 s");
  EXPECT_EQ(human_seconds(0.01), "0.1 s") << "never better than it is";
  EXPECT_EQ(human_seconds(734.2), "12 min 15 s");
  EXPECT_EQ(human_seconds(3601), "1 h 1 min");
  EXPECT_EQ(human_seconds(86'401), "1 d 1 h");
  EXPECT_EQ(human_age(59.9), "59 s");
  EXPECT_EQ(human_age(3 * 86'400 + 4 * 3600), "3 d 4 h");
  EXPECT_EQ(human_age(-5), "0 s");
}

TEST(Text, LinesAreCutAndWrapped) {
  const Look look{20, false, false};
  EXPECT_EQ(Line(look).add("0123456789").add("0123456789").add("x").text(), "01234567890123456789");
  EXPECT_EQ(Line(look).add("0123456789abcdefghijklmn").add("more").text(), "0123456789abcdefghi~");
  const Look narrow{5, false, true};
  EXPECT_EQ(Line(narrow).add("äöüßéxyz").text(), "äöüß…");
  Page page(look);
  page.wrapped("the quick brown fox jumps", 0);
  EXPECT_EQ(page.text(), "the quick brown fox\njumps\n");
  Page unbroken(look);
  unbroken.wrapped(std::string(45, 'x'), 0);
  EXPECT_EQ(unbroken.lines().size(), 3u);
  EXPECT_EQ(printable("a\x1b[2J\nb\xc2\x9b"), "a [2J b  ");
}

}  // namespace
}  // namespace holdfast::cli
