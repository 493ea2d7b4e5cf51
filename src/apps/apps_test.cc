// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "apps/application.h"
#include "apps/health.h"
#include "apps/plugins.h"

namespace holdfast::apps {
namespace {

PostgresqlInstance cluster(const char* version, const char* name, const char* data = nullptr) {
  PostgresqlInstance i;
  i.version = version;
  i.name = name;
  i.data_dir = data != nullptr ? data : fmt::format("/var/lib/postgresql/{}/{}", version, name);
  return i;
}

TEST(Plugins, PostgresqlKnowsItsUnitsAndPaths) {
  const Application a =
      make_application({.plugin = "postgresql"}, {{cluster("15", "main"), cluster("15", "test")}}).value();
  EXPECT_EQ(a.name, "postgresql");
  EXPECT_EQ(a.data_paths, std::vector<std::string>{"/var/lib/postgresql"});
  ASSERT_EQ(a.resources.size(), 2U);
  EXPECT_EQ(a.resources[0].unit, "postgresql@15-main.service");
  EXPECT_EQ(a.probe, ProbeKind::postgresql_write);
  EXPECT_EQ(a.compatibility, "postgresql 15/main, 15/test");
  EXPECT_EQ(stop_order({a})[0].unit, "postgresql@15-test.service");
}

TEST(Plugins, PostgresqlRefusals) {
  EXPECT_EQ(make_application({.plugin = "postgresql"}, {}).error().code, ErrorCode::not_found);
  const HostFacts elsewhere{{cluster("15", "main", "/srv/pg/15/main")}};
  const auto outside = make_application({.plugin = "postgresql"}, elsewhere);
  ASSERT_FALSE(outside);
  EXPECT_NE(outside.error().message.find("holdfast protect postgresql /srv/pg/15/main"), std::string::npos);
  EXPECT_TRUE(make_application({.plugin = "postgresql", .paths = {"/srv/pg"}}, elsewhere));
  EXPECT_EQ(make_application({.plugin = "oracle"}, {}).error().code, ErrorCode::not_found);
}

TEST(Plugins, PeerNeedsTheSameMajorVersion) {
  const Application a = make_application({.plugin = "postgresql"}, {{cluster("15", "main")}}).value();
  EXPECT_TRUE(check_peer(a, {{cluster("15", "main")}}, "n2"));
  EXPECT_TRUE(check_peer(a, {{cluster("13", "main"), cluster("15", "main")}}, "n2"));
  const Status other = check_peer(a, {{cluster("13", "main")}}, "n2");
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("n2 has PostgreSQL 13, but the protected data is of 15"), std::string::npos);
  const Status none = check_peer(a, {}, "n2");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("pg_createcluster 15 main"), std::string::npos);
}

TEST(Plugins, TablespacesOutsideAreAlerts) {
  const Application a = make_application({.plugin = "postgresql"}, {{cluster("15", "main")}}).value();
  const auto alerts = unprotected_locations(a, {"/var/lib/postgresql/ts1", "/var/lib/postgresql2/ts", "/mnt/fast"});
  ASSERT_EQ(alerts.size(), 2U);
  EXPECT_NE(alerts[1].find("holdfast protect files /mnt/fast"), std::string::npos);
}

TEST(Application, ValidationNamesTheMistake) {
  const auto error = [](const ProtectRequest& r) {
    const auto a = make_application(r, {});
    return a ? std::string() : a.error().message;
  };
  EXPECT_EQ(error({.plugin = "systemd", .units = {"nginx.service", "redis-server@a.service"}, .paths = {"/srv/www"}}),
            "");
  EXPECT_NE(error({.plugin = "systemd", .units = {"nginx"}}), "");
  EXPECT_NE(error({.plugin = "systemd", .units = {"a b.service"}}), "");
  EXPECT_NE(error({.plugin = "systemd", .units = {"../x.service"}}), "");
  EXPECT_NE(error({.plugin = "systemd", .units = {"a.service", "a.service"}}), "");
  EXPECT_NE(error({.plugin = "systemd", .name = "no spaces", .units = {"a.service"}}), "");
  for (const char* path : {"srv", "/", "/srv/", "/srv//x", "/srv/../etc", "/srv/./x", ""})
    EXPECT_NE(error({.plugin = "files", .name = "f", .paths = {path}}), "") << path;
  EXPECT_NE(error({.plugin = "files", .name = "f", .paths = {"/srv/a", "/srv/a/b"}}), "");
  EXPECT_EQ(error({.plugin = "files", .name = "f", .paths = {"/srv/a", "/srv/ab"}}), "");
  EXPECT_EQ(make_application({.plugin = "files", .paths = {"/srv/data"}}, {})->name, "files-srv-data");
}

TEST(Application, ClashesWithWhatIsProtected) {
  const Application www =
      make_application({.plugin = "systemd", .units = {"nginx.service"}, .paths = {"/srv/www"}}, {}).value();
  const auto code = [&](const ProtectRequest& r) {
    const Status s = check_against(make_application(r, {}).value(), {www});
    return s ? std::string("ok") : std::string(to_string(s.error().code));
  };
  EXPECT_EQ(code({.plugin = "files", .name = "nginx", .paths = {"/x"}}), "exists");
  EXPECT_EQ(code({.plugin = "systemd", .name = "x", .units = {"nginx.service"}}), "exists");
  EXPECT_EQ(code({.plugin = "files", .name = "x", .paths = {"/srv/www"}}), "exists");
  EXPECT_EQ(code({.plugin = "files", .name = "x", .paths = {"/srv/www/a"}}), "refused");
  EXPECT_EQ(code({.plugin = "files", .name = "x", .paths = {"/srv"}}), "refused");
  EXPECT_EQ(code({.plugin = "files", .name = "x", .paths = {"/srv/www2"}}), "ok");
}

using Kind = HealthInput::Kind;

// Feeds inputs a second apart and returns what came of the last, as "action action".
struct Patient {
  Health health;
  std::int64_t now_ms = 0;
  explicit Patient(HealthConfig config = {}) : health(std::move(config)) { feed(Kind::started); }
  std::string feed(Kind kind, int times = 1) {
    std::string text;
    for (int i = 0; i < times; ++i) {
      text.clear();
      for (const HealthAction& a : health.step(now_ms, {kind, "no write committed"}))
        text += (text.empty() ? "" : " ") + std::string(to_string(a.kind));
      now_ms += 1'000;
    }
    return text;
  }
};

TEST(Health, RestartsTwiceThenOnlyAlertsByDefault) {
  Patient p;
  EXPECT_EQ(p.feed(Kind::probe_ok), "");
  EXPECT_EQ(p.health.state(), HealthState::healthy);
  EXPECT_EQ(p.feed(Kind::probe_failed, 2), "");
  EXPECT_EQ(p.health.state(), HealthState::suspect);
  EXPECT_EQ(p.feed(Kind::probe_failed), "alert restart");
  EXPECT_EQ(p.feed(Kind::probe_failed, 5), "") << "while it restarts";
  EXPECT_EQ(p.feed(Kind::restart_done), "");
  EXPECT_EQ(p.feed(Kind::probe_ok), "");
  EXPECT_EQ(p.feed(Kind::probe_failed, 3), "alert restart");
  EXPECT_EQ(p.feed(Kind::restart_failed), "alert") << "third: switchover is off by default";
  EXPECT_EQ(p.health.state(), HealthState::failed);
  EXPECT_EQ(p.feed(Kind::probe_failed, 9), "") << "said once";
  EXPECT_EQ(p.feed(Kind::cleared), "");
  EXPECT_EQ(p.health.failures(), 0);
  EXPECT_EQ(p.health.state(), HealthState::starting);
}

TEST(Health, WhatDoesNotRunHasNoGrace) {
  Patient p;  // a supervisor that has just begun to look, at an application that died before
  EXPECT_EQ(p.feed(Kind::gone, 2), "");
  EXPECT_EQ(p.feed(Kind::gone), "alert restart");
  EXPECT_EQ(p.feed(Kind::restart_done), "");
  EXPECT_EQ(p.feed(Kind::probe_failed, 10), "") << "now it recovers";
}

TEST(Health, AsksForASwitchoverWhenTurnedOn) {
  HealthConfig config;
  config.rules[2].enabled = true;
  Patient p(config);
  p.feed(Kind::probe_ok);
  EXPECT_EQ(p.feed(Kind::probe_failed, 3), "alert restart");
  EXPECT_EQ(p.feed(Kind::restart_failed), "alert restart");
  EXPECT_EQ(p.feed(Kind::restart_failed), "alert switchover");
  EXPECT_EQ(p.feed(Kind::stopped), "");
  EXPECT_EQ(p.feed(Kind::probe_failed, 9), "");
}

TEST(Health, CrashRecoveryIsNotAFailure) {
  Patient p;
  EXPECT_EQ(p.feed(Kind::probe_failed, 59), "");
  EXPECT_EQ(p.health.state(), HealthState::starting);
  EXPECT_EQ(p.feed(Kind::probe_failed, 3), "alert restart") << "but not for ever";
}

TEST(Health, OneGoodProbeInBetweenStartsTheCountAgain) {
  Patient p;
  p.feed(Kind::probe_ok);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(p.feed(Kind::probe_failed, 2), "");
    EXPECT_EQ(p.feed(Kind::probe_ok), "");
  }
  EXPECT_EQ(p.health.failures(), 0);
}

TEST(Health, OldFailuresAreForgotten) {
  Patient p;
  p.feed(Kind::probe_ok);
  p.feed(Kind::probe_failed, 3);
  p.feed(Kind::restart_done);
  p.feed(Kind::probe_ok, 500);
  EXPECT_EQ(p.health.failures(), 1);
  p.feed(Kind::probe_ok, 110);
  EXPECT_EQ(p.health.failures(), 0);
}

TEST(Health, WorksAgainByItself) {
  Patient p(HealthConfig{.rules = {{FailureAction::alert, true}}});
  p.feed(Kind::probe_ok);
  EXPECT_EQ(p.feed(Kind::probe_failed, 3), "alert");
  EXPECT_EQ(p.feed(Kind::probe_ok), "alert");
  EXPECT_EQ(p.health.state(), HealthState::healthy);
}

}  // namespace
}  // namespace holdfast::apps
