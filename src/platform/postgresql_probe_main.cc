// SPDX-License-Identifier: Apache-2.0
// holdfast-postgresql-probe SOCKET_DIR PORT OWNER TIMEOUT_MS NODE [checkpoint]: one write, or a checkpoint; one answer on stdout; run by
// holdfastd as the owner.
// A program of its own, so that libpq is not in the daemons and a server that hangs takes nothing but this with it.
#include <libpq-fe.h>
#include <poll.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "platform/postgresql_probe.h"

namespace holdfast::platform {
namespace {

using clock = std::chrono::steady_clock;
using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;
using Rows = std::unique_ptr<PGresult, decltype(&PQclear)>;

std::string first_line(const char* text) {
  std::string_view t = text == nullptr ? "" : text;
  while (!t.empty() && (t.back() == '\n' || t.back() == ' ')) t.remove_suffix(1);
  return std::string(t.substr(0, t.find('\n')));
}

int left_ms(clock::time_point deadline) {
  return static_cast<int>(
      std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count()));
}

Result<Connection> connect(const PostgresqlProbe& probe, clock::time_point deadline) {
  const std::string port = std::to_string(probe.port);
  const std::string options =
      fmt::format("-c statement_timeout={} -c lock_timeout={}", probe.timeout_ms, probe.timeout_ms);
  const char* keys[] = {"host", "port", "dbname", "user", "application_name", "options", nullptr};
  const char* values[] = {probe.socket_dir.c_str(), port.c_str(),    "postgres", probe.owner.c_str(),
                          "holdfast-probe",         options.c_str(), nullptr};
  Connection c(PQconnectStartParams(keys, values, 0), PQfinish);
  if (!c) return fail(ErrorCode::internal, "out of memory while connecting to PostgreSQL");
  // libpq's own connect_timeout counts in seconds, two at least.
  for (PostgresPollingStatusType next = PGRES_POLLING_WRITING; next != PGRES_POLLING_OK;) {
    if (next == PGRES_POLLING_FAILED || PQstatus(c.get()) == CONNECTION_BAD)
      return fail(ErrorCode::unavailable, "PostgreSQL on port {} does not accept connections: {}", probe.port,
                  first_line(PQerrorMessage(c.get())));
    pollfd p{PQsocket(c.get()), static_cast<short>(next == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0};
    if (poll(&p, 1, left_ms(deadline)) <= 0)
      return fail(ErrorCode::timeout, "PostgreSQL on port {} did not answer a connection within {} ms", probe.port,
                  probe.timeout_ms);
    next = PQconnectPoll(c.get());
  }
  return c;
}

Result<Rows> query(PGconn* c, const PostgresqlProbe& probe, clock::time_point deadline, const char* sql,
                   std::vector<const char*> parameters = {}) {
  const int count = static_cast<int>(parameters.size());
  if (PQsendQueryParams(c, sql, count, nullptr, parameters.data(), nullptr, nullptr, 0) != 1)
    return fail(ErrorCode::unavailable, "PostgreSQL on port {} closed the connection: {}", probe.port,
                first_line(PQerrorMessage(c)));
  Rows last(nullptr, PQclear);
  for (;;) {
    while (PQisBusy(c) != 0) {
      pollfd p{PQsocket(c), POLLIN, 0};
      if (poll(&p, 1, left_ms(deadline)) <= 0)
        return fail(ErrorCode::timeout, "PostgreSQL on port {} did not commit a write within {} ms", probe.port,
                    probe.timeout_ms);
      if (PQconsumeInput(c) != 1)
        return fail(ErrorCode::unavailable, "PostgreSQL on port {} broke the connection: {}", probe.port,
                    first_line(PQerrorMessage(c)));
    }
    PGresult* more = PQgetResult(c);
    if (more == nullptr) break;
    last.reset(more);
  }
  const ExecStatusType status = PQresultStatus(last.get());
  if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return last;
  const char* state = PQresultErrorField(last.get(), PG_DIAG_SQLSTATE);
  Error e{ErrorCode::io,
          fmt::format("PostgreSQL on port {} refused it: {}", probe.port, first_line(PQresultErrorMessage(last.get()))),
          {},
          0};
  if (state != nullptr && std::string_view(state) == "42P01")
    e.code = ErrorCode::not_found;  // undefined_table
  else if (state != nullptr && std::string_view(state) == "57014")
    e.code = ErrorCode::timeout;  // query_canceled: statement_timeout
  return tl::unexpected(std::move(e));
}

Status create_heartbeat(PGconn* c, const PostgresqlProbe& probe, clock::time_point deadline) {
  HF_TRY(query(c, probe, deadline, "CREATE SCHEMA IF NOT EXISTS holdfast"));
  HF_TRY(
      query(c, probe, deadline,
            "CREATE TABLE IF NOT EXISTS holdfast.heartbeat "
            "(id int PRIMARY KEY CHECK (id = 1), node text NOT NULL, at timestamptz NOT NULL) WITH (fillfactor = 10)"));
  return {};
}

Result<PostgresqlHealth> write_heartbeat(const PostgresqlProbe& probe) {
  const auto deadline = clock::now() + std::chrono::milliseconds(probe.timeout_ms);
  HF_ASSIGN(const Connection c, connect(probe, deadline));
  // An upsert of the one row: a table that an administrator emptied does not make the probe fail, and nothing grows.
  constexpr const char* beat =
      "INSERT INTO holdfast.heartbeat (id, node, at) VALUES (1, $1, clock_timestamp()) "
      "ON CONFLICT (id) DO UPDATE SET node = EXCLUDED.node, at = EXCLUDED.at";
  // Whatever the server's default is, "committed" here means flushed to its log.
  HF_TRY(query(c.get(), probe, deadline, "SET synchronous_commit = local"));
  auto start = clock::now();
  Result<Rows> wrote = query(c.get(), probe, deadline, beat, {probe.node.c_str()});
  if (!wrote && wrote.error().code == ErrorCode::not_found) {
    HF_TRY(create_heartbeat(c.get(), probe, deadline));
    start = clock::now();
    wrote = query(c.get(), probe, deadline, beat, {probe.node.c_str()});
  }
  if (!wrote) return tl::unexpected(wrote.error());
  PostgresqlHealth health;
  health.commit_ms = std::chrono::duration<double, std::milli>(clock::now() - start).count();
  HF_ASSIGN(const Rows rows,
            query(c.get(), probe, deadline,
                  "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'"));
  for (int i = 0; i < PQntuples(rows.get()); ++i) health.tablespaces.emplace_back(PQgetvalue(rows.get(), i, 0));
  return health;
}

Result<PostgresqlHealth> checkpoint(const PostgresqlProbe& probe) {
  const auto deadline = clock::now() + std::chrono::milliseconds(probe.timeout_ms);
  HF_ASSIGN(const Connection c, connect(probe, deadline));
  const auto start = clock::now();
  HF_TRY(query(c.get(), probe, deadline, "CHECKPOINT"));
  return PostgresqlHealth{std::chrono::duration<double, std::milli>(clock::now() - start).count(), {}};
}

}  // namespace
}  // namespace holdfast::platform

int main(int argc, char** argv) {
  using namespace holdfast;
  const bool checkpoint = argc == 7 && std::string_view(argv[6]) == "checkpoint";
  if (argc != 6 && !checkpoint) {
    std::fprintf(stderr, "usage: %s SOCKET_DIR PORT OWNER TIMEOUT_MS NODE [checkpoint]\n", argv[0]);
    return 2;
  }
  platform::PostgresqlProbe probe;
  probe.socket_dir = argv[1];
  probe.port = std::atoi(argv[2]);
  probe.owner = argv[3];
  probe.timeout_ms = std::atoi(argv[4]);
  probe.node = argv[5];
  const Result<platform::PostgresqlHealth> health =
      checkpoint ? platform::checkpoint(probe) : platform::write_heartbeat(probe);
  if (!health) {
    std::printf("error %s\n%s\n", to_string(health.error().code), health.error().message.c_str());
    return 1;
  }
  std::printf("ok %.3f\n", health->commit_ms);
  for (const std::string& location : health->tablespaces) std::printf("%s\n", location.c_str());
  return 0;
}
