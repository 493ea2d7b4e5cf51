// SPDX-License-Identifier: Apache-2.0
#include "cli/session.h"

#include <algorithm>
#include <istream>
#include <ostream>

#include <nlohmann/json.hpp>

#include "cli/views.h"

namespace holdfast::cli {
namespace {

using Json = nlohmann::json;

constexpr int poll_ms = 200;
constexpr int silence_s = 60;  // how long the daemon may be away (restart, moving roles) while a plan is followed

std::string indented(const Json& value) { return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

bool is_final(const std::string& state) { return state != "running" && state != "reverting"; }

// Steps that ended since the last look, one line each: for logs and pipes.
class StepLines {
 public:
  std::string news(const control::PlanStatus& plan) {
    std::string out;
    for (const auto& step : plan.steps) {
      const bool ended =
          step.state == "done" || step.state == "failed" || step.state == "undone" || step.state == "skipped";
      if (!ended || std::find(seen_.begin(), seen_.end(), step.name + step.state) != seen_.end()) continue;
      seen_.push_back(step.name + step.state);
      out += fmt::format("{}: {} ({:.1f} s)\n", printable(step.name), step.state, step.seconds);
    }
    return out;
  }

 private:
  std::vector<std::string> seen_;
};

}  // namespace

int exit_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid:
      return exit_usage;
    case ErrorCode::refused:
      return exit_refused;
    case ErrorCode::unavailable:
      return exit_unreachable;
    case ErrorCode::timeout:
      return exit_timeout;
    default:
      return exit_failed;
  }
}

std::string Session::actor() const {
  // Under sudo the user is root; who typed the command is what an audit wants to know.
  const std::string user = around_.user();
  const std::string behind = around_.environment("SUDO_USER");
  return user == "root" && !behind.empty() ? behind : user;
}

Result<Json> Session::get(const std::string& path, int timeout_ms) const {
  return client_.call("GET", path, nullptr, timeout_ms);
}

Result<Json> Session::send(const std::string& method, const std::string& path, Json body, int timeout_ms) const {
  body["actor"] = actor();
  return client_.call(method, path, body, timeout_ms);
}

void Session::print(const std::string& text) const { around_.out << text << std::flush; }
void Session::print_json(const Json& value) const { print(indented(value)); }

int Session::failure(const Error& error) const {
  if (json)
    print_json({{"error", {{"code", to_string(error.code)}, {"message", error.message}, {"hint", error.hint}}}});
  around_.err << "holdfast: " << printable(error.to_string()) << "\n" << std::flush;
  return exit_of(error.code);
}

Status Session::confirm(const std::string& what) const {
  if (assume_yes) return {};
  if (!around_.in_is_terminal)
    return tl::unexpected(Error{ErrorCode::invalid, what + " needs a confirmation", "add --yes", 0});
  around_.err << what << ". Type yes to go on: " << std::flush;
  std::string answer;
  std::getline(around_.in, answer);
  if (answer == "yes") return {};
  return tl::unexpected(Error{ErrorCode::refused, "not confirmed", "nothing was changed", 0});
}

int Session::follow_plan(const std::string& id, const std::string& done, const std::string& undo_with) const {
  const bool live = around_.out_is_terminal && !json;
  around_.hold_signals();
  StepLines lines;
  std::size_t drawn = 0;
  int waited_ms = 0, silent_ms = 0;
  for (;;) {
    const auto answer = get("/v1/plans/" + id, 5000);
    const auto plan =
        answer ? control::plan_status_from_json(*answer) : Result<control::PlanStatus>(tl::unexpected(answer.error()));
    const bool away = !plan && (plan.error().code == ErrorCode::unavailable || plan.error().code == ErrorCode::timeout);
    if (!plan && (!away || (silent_ms += poll_ms) > silence_s * 1000)) return failure(plan.error());
    if (plan) {
      silent_ms = 0;
      if (live) {
        const std::string view = plan_view(*plan, around_.look());
        // Redrawn over itself: up, each line cleared to its end, what is left below cleared.
        std::string out = drawn > 0 ? fmt::format("\x1b[{}A", drawn) : "";
        for (const char c : view) out += c == '\n' ? "\x1b[K\n" : std::string(1, c);
        print(out + "\x1b[J");
        drawn = static_cast<std::size_t>(std::count(view.begin(), view.end(), '\n'));
      } else if (!json) {
        print(lines.news(*plan));
      }
      if (is_final(plan->state)) {
        if (plan->state == "done") {
          if (json)
            print_json(*answer);
          else
            print(fmt::format("{} ({:.1f} s)\n{}", done, plan->seconds,
                              undo_with.empty() ? "" : "undo: " + undo_with + "\n"));
          return exit_ok;
        }
        const std::string what = plan->state == "reverted" ? "the cluster is as it was before"
                                 : plan->state == "abandoned" && plan->kind == "rollback" ? "it ended on the way"
                                 : plan->state == "abandoned" ? "the role was given up and is voted on anew"
                                                              : "the plan halted where it stands";
        return failure({ErrorCode::internal, fmt::format("{} did not succeed, {}: {}", plan->kind, what, plan->error),
                        fmt::format("see holdfast plan {}", id), 0});
      }
    }
    if (around_.pause(poll_ms) == Surroundings::Woken::interrupted) {
      around_.err << "holdfast: the plan goes on without you: follow it with: holdfast plan " << id << " --follow\n";
      return exit_interrupted;
    }
    waited_ms += poll_ms;
    if (timeout_s > 0 && waited_ms >= timeout_s * 1000)
      return failure({ErrorCode::timeout, fmt::format("plan {} has not ended within {} s and goes on", id, timeout_s),
                      fmt::format("follow it with: holdfast plan {} --follow", id), 0});
  }
}

}  // namespace holdfast::cli
