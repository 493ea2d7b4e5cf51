// SPDX-License-Identifier: Apache-2.0
// Against the real systemd of the machine: in a lab machine, or a machine booted for it; skipped where systemd is not init.
#include "platform/systemd_units.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "platform/process.h"

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;

class SystemdUnitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0 || !systemd_is_running()) GTEST_SKIP() << "needs root and systemd as init";
    fs::create_directories("/run/holdfast");
    // Stands in for the real unit where the product is not installed.
    if (run_command({.argv = {"systemctl", "cat", "holdfast-mirror.service"}})->ok())
      GTEST_SKIP() << "holdfast is installed here: not touching its units";
    write("holdfast-mirror.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n");
    write("hftest.service",
          "[Service]\nExecStart=/bin/sh -c 'sleep 1000 & exec sleep 1000'\nRestart=always\nRestartSec=100ms\n");
    write("hftest-fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n");
    write("hftest-slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n");
    write("hftest-umbrella.service",
          "[Unit]\nWants=hftest.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n");
    systemctl({"daemon-reload"});
    auto connected = SystemdUnits::connect();
    ASSERT_TRUE(connected) << connected.error().message;
    units.emplace(std::move(*connected));
  }
  void TearDown() override {
    if (!units) return;
    ASSERT_TRUE(units->disable_applications());
    (void)run_command({.argv = {"systemctl", "stop", "hftest.service", "hftest-slow.service", "hftest-umbrella.service",
                                "holdfast-mirror.service"}});
    ASSERT_TRUE(units->unprotect_units({"hftest.service"}));
    for (const std::string& name : written) fs::remove("/run/systemd/system/" + name);
    systemctl({"daemon-reload"});
  }
  void write(const std::string& name, const char* text) {
    std::ofstream("/run/systemd/system/" + name) << text;
    written.push_back(name);
  }
  static void systemctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "systemctl");
    const auto r = run_checked({.argv = std::move(arguments)});
    ASSERT_TRUE(r) << r.error().message;
  }
  std::vector<std::string> written;
  std::optional<SystemdUnits> units;
};

TEST_F(SystemdUnitsTest, JobsAndTheirResults) {
  ASSERT_TRUE(units->start("hftest.service", 5'000));
  ASSERT_TRUE(units->start("hftest.service", 5'000));
  UnitState s = units->state("hftest.service").value();
  EXPECT_EQ(s.active, "active");
  EXPECT_EQ(s.sub, "running");
  EXPECT_EQ(s.cgroup, "/system.slice/hftest.service");
  ASSERT_TRUE(units->restart("hftest.service", 5'000));
  ASSERT_TRUE(units->stop("hftest.service", 5'000));
  ASSERT_TRUE(units->stop("hftest.service", 5'000));
  EXPECT_EQ(units->state("hftest.service")->active, "inactive");
  EXPECT_EQ(units->start("hftest-absent.service", 5'000).error().code, ErrorCode::not_found);
  EXPECT_FALSE(units->state("hftest-absent.service")->exists());
  EXPECT_EQ(units->start("hftest-fails.service", 5'000).error().code, ErrorCode::io);
  EXPECT_TRUE(units->reset_failed("hftest-fails.service"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(units->start("hftest-slow.service", 200).error().code, ErrorCode::timeout);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST_F(SystemdUnitsTest, AProtectedUnitDoesNotStartByItself) {
  EXPECT_TRUE(units->protect_units({"hftest.service"}).value());
  EXPECT_FALSE(units->protect_units({"hftest.service"}).value()) << "nothing new";
  EXPECT_TRUE(units->is_protected("hftest.service"));
  // Neither by hand, nor through a unit that wants it (PostgreSQL's umbrella), nor after daemon-reload.
  systemctl({"start", "hftest.service"});
  EXPECT_EQ(units->state("hftest.service")->active, "inactive");
  systemctl({"start", "hftest-umbrella.service"});
  EXPECT_EQ(units->state("hftest.service")->active, "inactive");
  const Status refused = units->start("hftest.service", 5'000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::refused);
  ASSERT_TRUE(units->enable_applications());
  ASSERT_TRUE(units->start("hftest.service", 5'000));
  EXPECT_EQ(units->state("hftest.service")->active, "active");
  EXPECT_EQ(units->state("holdfast-mirror.service")->active, "active") << "pulled in";
  ASSERT_TRUE(units->disable_applications());
  // Restart=always meets the condition, too.
  ASSERT_TRUE(run_command({.argv = {"systemctl", "kill", "-s", "KILL", "hftest.service"}})->ok());
  for (const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
       units->state("hftest.service")->running() && std::chrono::steady_clock::now() < until;) {
  }
  EXPECT_EQ(units->state("hftest.service")->active, "inactive");
  EXPECT_TRUE(units->unprotect_units({"hftest.service"}).value());
  EXPECT_FALSE(fs::exists("/etc/systemd/system/hftest.service.d"));
  ASSERT_TRUE(units->start("hftest.service", 5'000));
}

TEST_F(SystemdUnitsTest, KillTakesTheWholeGroupAndItStaysDown) {
  ASSERT_TRUE(units->start("hftest.service", 5'000));
  const Status killed = units->kill_and_wait("hftest.service", 5'000);
  ASSERT_TRUE(killed) << killed.error().message;
  const UnitState s = units->state("hftest.service").value();
  EXPECT_FALSE(s.running()) << s.active << " " << s.sub;
  EXPECT_TRUE(units->kill_and_wait("hftest.service", 5'000)) << "idempotent";
}

}  // namespace
}  // namespace holdfast::platform
