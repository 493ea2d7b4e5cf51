// SPDX-License-Identifier: Apache-2.0
#include "platform/postgresql_probe.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "platform/process.h"

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;

TEST(PgLsclusters, Parses) {
  const auto clusters = parse_pg_lsclusters(
      "15  main 5432 online postgres /var/lib/postgresql/15/main /var/log/postgresql/postgresql-15-main.log\n"
      "15  old  5433 down,recovery postgres /srv/pg/old /var/log/x.log\n\n");
  ASSERT_TRUE(clusters);
  ASSERT_EQ(clusters->size(), 2U);
  EXPECT_EQ((*clusters)[0].unit(), "postgresql@15-main.service");
  EXPECT_TRUE((*clusters)[0].online);
  EXPECT_FALSE((*clusters)[1].online);
  EXPECT_EQ((*clusters)[1].port, 5433);
  EXPECT_EQ((*clusters)[1].data_dir, "/srv/pg/old");
  EXPECT_TRUE(parse_pg_lsclusters("")->empty());
  EXPECT_FALSE(parse_pg_lsclusters("15 main port online postgres /x\n"));
  EXPECT_FALSE(parse_pg_lsclusters("15 main\n"));
}

TEST(PostgresqlProbe, AbsentHelperIsAnError) {
  PostgresqlProbe probe;
  probe.helper = "/nonexistent/helper";
  probe.owner = "root";
  EXPECT_EQ(probe_postgresql(probe).error().code, ErrorCode::not_found);
}

// A real server of its own in a temporary folder, run by the user postgres.
class PostgresqlServer : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: runs a server as postgres";
    for (const auto& entry : fs::directory_iterator("/usr/lib/postgresql", ec)) bin = entry.path() / "bin";
    if (bin.empty()) GTEST_SKIP() << "needs the Debian package postgresql";
    probe.helper = fs::read_symlink("/proc/self/exe").parent_path() / "holdfast-postgresql-probe";
    if (access(probe.helper.c_str(), X_OK) != 0) probe.helper = postgresql_probe_helper;
    if (access(probe.helper.c_str(), X_OK) != 0)
      GTEST_SKIP() << "needs holdfast-postgresql-probe beside the test or installed";
    // The build folder may be closed to the user postgres: run a copy.
    base = fs::temp_directory_path() / ("hf_pg_" + std::to_string(getpid()));
    fs::create_directories(base);
    fs::copy_file(probe.helper, base / "probe", fs::copy_options::overwrite_existing);
    probe.helper = base / "probe";
    probe.socket_dir = base;
    probe.port = 54'321;
    probe.node = "n1";
    probe.timeout_ms = 5'000;
    as_postgres({"chown", "-R", "postgres", base}, "");
    as_postgres({bin / "initdb", "-D", base / "data", "-A", "peer", "--no-sync"});
    std::ofstream(base / "data/postgresql.conf", std::ios::app)
        << "port=54321\nlisten_addresses=''\nunix_socket_directories='" << base.string() << "'\nfsync=off\n";
    as_postgres({bin / "pg_ctl", "-D", base / "data", "-l", base / "log", "-w", "start"});
  }
  void TearDown() override {
    if (base.empty()) return;
    (void)run_command(
        {.argv = {bin / "pg_ctl", "-D", base / "data", "-m", "immediate", "-w", "stop"}, .user = "postgres"});
    fs::remove_all(base);
  }
  void as_postgres(std::vector<std::string> argv, const std::string& user = "postgres") {
    const auto r = run_checked({.argv = std::move(argv), .timeout_ms = 60'000, .user = user});
    ASSERT_TRUE(r) << r.error().message;
  }
  std::string sql(const std::string& text) {
    const auto r = run_checked(
        {.argv = {bin / "psql", "-h", base, "-p", "54321", "-d", "postgres", "-Atc", text}, .user = "postgres"});
    return r ? *r : r.error().message;
  }
  std::error_code ec;
  fs::path bin, base;
  PostgresqlProbe probe;
};

TEST_F(PostgresqlServer, WritesCommitsAndFindsTablespaces) {
  for (int i = 0; i < 3; ++i) {
    const auto health = probe_postgresql(probe);
    ASSERT_TRUE(health) << health.error().message;
    EXPECT_GT(health->commit_ms, 0);
    EXPECT_TRUE(health->tablespaces.empty());
  }
  EXPECT_EQ(sql("SELECT count(*), min(node) FROM holdfast.heartbeat"), "1|n1\n");
  EXPECT_EQ(sql("SELECT now() - at < interval '1 minute' FROM holdfast.heartbeat"), "t\n");
  as_postgres({"mkdir", base / "space"});
  sql("CREATE TABLESPACE fast LOCATION '" + (base / "space").string() + "'");
  EXPECT_EQ(probe_postgresql(probe)->tablespaces, std::vector<std::string>{base / "space"});
}

TEST_F(PostgresqlServer, ReadsThatWorkAreNotEnough) {
  ASSERT_TRUE(probe_postgresql(probe));
  sql("ALTER SYSTEM SET default_transaction_read_only = on");
  sql("SELECT pg_reload_conf()");
  // The reload reaches new sessions a moment after the call: watch for it by its effect.
  for (int i = 0; i < 200 && sql("SHOW default_transaction_read_only") != "on\n"; ++i) {
  }
  const auto health = probe_postgresql(probe);
  ASSERT_FALSE(health);
  EXPECT_EQ(health.error().code, ErrorCode::io);
  EXPECT_NE(health.error().message.find("read-only"), std::string::npos) << health.error().message;
  EXPECT_EQ(sql("SELECT 1"), "1\n") << "reads do work";
}

TEST_F(PostgresqlServer, AStuckServerIsLeftInTime) {
  ASSERT_TRUE(probe_postgresql(probe));
  const int pid = std::stoi(run_checked({.argv = {"head", "-1", base / "data/postmaster.pid"}}).value());
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  probe.timeout_ms = 300;
  const auto stuck = probe_postgresql(probe);
  ASSERT_EQ(kill(pid, SIGCONT), 0);
  ASSERT_FALSE(stuck);
  EXPECT_EQ(stuck.error().code, ErrorCode::timeout);
  as_postgres({bin / "pg_ctl", "-D", base / "data", "-m", "immediate", "-w", "stop"});
  const auto stopped = probe_postgresql(probe);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace holdfast::platform
