// SPDX-License-Identifier: Apache-2.0
#include "platform/postgresql_probe.h"

#include <charconv>
#include <cstdlib>
#include <sstream>
#include <string_view>

#include "platform/process.h"

namespace holdfast::platform {
namespace {

std::string first_line(const char* text) {
  std::string_view t = text == nullptr ? "" : text;
  while (!t.empty() && (t.back() == '\n' || t.back() == ' ')) t.remove_suffix(1);
  return std::string(t.substr(0, t.find('\n')));
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) result.push_back(line);
  return result;
}

Result<int> number(const std::string& text, const char* what) {
  int v = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (ec != std::errc{} || end != text.data() + text.size())
    return fail(ErrorCode::corrupt, "{} is not a number: {}", what, text);
  return v;
}

}  // namespace

namespace {

// The helper's answer: "ok MILLISECONDS" and a tablespace a line, or "error CODE" and the message on the second line.
Result<std::vector<std::string>> run_helper(const PostgresqlProbe& probe, std::vector<std::string> more) {
  Command command;
  command.argv = {
      probe.helper, probe.socket_dir, std::to_string(probe.port), probe.owner, std::to_string(probe.timeout_ms),
      probe.node};
  command.argv.insert(command.argv.end(), more.begin(), more.end());
  command.user = probe.owner;
  command.timeout_ms = probe.timeout_ms + 250;  // it gives up by itself before; this is for one that hangs
  HF_ASSIGN(const CommandResult run, run_command(command));
  if (run.timed_out)
    return fail(ErrorCode::timeout, "PostgreSQL on port {} did not answer within {} ms", probe.port, probe.timeout_ms);
  std::vector<std::string> answer = lines(run.out);
  if (run.ok() && !answer.empty() && answer[0].starts_with("ok ")) return answer;
  if (answer.size() < 2 || !answer[0].starts_with("error "))
    return fail(ErrorCode::internal, "the PostgreSQL probe ended with status {}: {}", run.exit_status,
                first_line(run.err.c_str()));
  for (const ErrorCode code : {ErrorCode::unavailable, ErrorCode::timeout, ErrorCode::io})
    if (answer[0] == std::string("error ") + to_string(code)) return fail(code, "{}", answer[1]);
  return fail(ErrorCode::internal, "{}", answer[1]);
}

}  // namespace

Result<PostgresqlHealth> probe_postgresql(const PostgresqlProbe& probe) {
  HF_ASSIGN(const std::vector<std::string> answer, run_helper(probe, {}));
  PostgresqlHealth health;
  health.commit_ms = std::strtod(answer[0].c_str() + 3, nullptr);
  health.tablespaces.assign(answer.begin() + 1, answer.end());
  return health;
}

Status checkpoint_postgresql(const PostgresqlProbe& probe) {
  HF_TRY(run_helper(probe, {"checkpoint"}));
  return {};
}

Result<std::vector<PostgresqlCluster>> parse_pg_lsclusters(const std::string& text) {
  std::vector<PostgresqlCluster> clusters;
  for (const std::string& line : lines(text)) {
    std::istringstream in(line);
    PostgresqlCluster c;
    std::string port, status;
    if (!(in >> c.version)) continue;
    if (!(in >> c.name >> port >> status >> c.owner >> c.data_dir))
      return fail(ErrorCode::corrupt, "pg_lsclusters printed a line of another form: {}", line);
    HF_ASSIGN(c.port, number(port, "the port of a PostgreSQL cluster"));
    c.online = status.starts_with("online");
    clusters.push_back(std::move(c));
  }
  return clusters;
}

Result<std::vector<PostgresqlCluster>> list_postgresql_clusters() {
  HF_ASSIGN(const std::string text, run_checked({.argv = {"pg_lsclusters", "--no-header"}, .timeout_ms = 10'000}));
  return parse_pg_lsclusters(text);
}

}  // namespace holdfast::platform
