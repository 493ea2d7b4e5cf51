// SPDX-License-Identifier: Apache-2.0
// Commands that only look.
#include <algorithm>
#include <chrono>
#include <ostream>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/views.h"
#include "control/metrics.h"

namespace holdfast::cli {
namespace {

using nlohmann::json;
using namespace control;

constexpr int second_ms = 1000;
constexpr std::size_t page_size = 1000;

Result<ClusterStatus> fetch_status(Session& session, json* raw = nullptr) {
  auto answer = session.get("/v1/status", 5000);
  if (!answer) return tl::unexpected(std::move(answer).error());
  if (raw != nullptr) *raw = *answer;
  return cluster_status_from_json(*answer);
}

// Drawn over the last one without clearing first, in one write: no flicker. What doesn't fit is said, not scrolled away.
std::string as_screen(const std::string& view, int rows) {
  std::string out = "\x1b[H";
  int line = 0;
  const auto total = static_cast<int>(std::count(view.begin(), view.end(), '\n'));
  for (std::size_t at = 0; at < view.size();) {
    const std::size_t end = view.find('\n', at);
    if (line == rows - 1 && total > rows) {
      out += fmt::format("\x1b[2m ... {} more lines: enlarge the window\x1b[0m\x1b[K", total - line);
      break;
    }
    if (line > 0) out += "\r\n";
    out += view.substr(at, end - at) + "\x1b[K";
    at = end + 1;
    ++line;
  }
  return out + "\x1b[J";
}

int watch(Session& session) {
  const Surroundings& around = session.around();
  const bool screen = around.out_is_terminal && !session.json;
  around.hold_signals();
  if (screen) session.print("\x1b[?1049h\x1b[?25l");  // the alternate screen keeps the shell's history as it was
  for (;;) {
    json raw;
    const auto status = fetch_status(session, &raw);
    if (session.json) {
      const json line =
          status ? raw
                 : json{{"error", {{"code", to_string(status.error().code)}, {"message", status.error().message}}}};
      session.print(line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
    } else {
      Page trouble(around.look());
      if (!status) trouble.wrapped(status.error().to_string() + " (trying again every second)", 1, Style::bad);
      const std::string view = status ? status_view(*status, around.look()) : trouble.text();
      session.print(screen ? as_screen(view, around.rows()) : view + "\n");
    }
    if (!around.out) break;  // nobody reads any more
    auto woken = around.pause(second_ms);
    if (woken == Surroundings::Woken::interrupted) break;
  }
  if (screen) session.print("\x1b[?25h\x1b[?1049l");
  return exit_ok;
}

bool settled(const ClusterStatus& s) {
  const bool passives =
      std::any_of(s.nodes.begin(), s.nodes.end(), [](const NodeStatus& n) { return n.role == "passive"; });
  return passives && std::all_of(s.nodes.begin(), s.nodes.end(), [](const NodeStatus& n) { return n.synchronized; });
}

std::string progress_line(const ClusterStatus& s, const Look& look) {
  Line line(look);
  for (const NodeStatus& n : s.nodes) {
    if (n.role == "active") continue;
    if (line.width() > 0) line.add("   ");
    line.add(n.name + " ");
    if (n.synchronized)
      line.add("synchronized", Style::good);
    else if (n.sync_progress)
      line.add(n.sync_progress->kind + " ")
          .add(progress_bar(n.sync_progress->percent, 20, look.unicode), Style::busy)
          .add(fmt::format(" {:.0f} %  {}", n.sync_progress->percent, human_bytes(n.sync_progress->bytes)));
    else
      line.add("not synchronized", Style::warn);
  }
  return line.width() == 0 ? "no passive node yet" : line.text();
}

// --since: a position of an earlier answer, a time, or how long ago.
struct Since {
  EventCursor cursor;
  std::int64_t from_ms = 0;
};

Result<Since> parse_since(const std::string& text) {
  Since since;
  if (text.empty()) return since;
  if (auto ms = from_iso_time(text)) {
    since.from_ms = *ms;
  } else if (auto seconds = parse_duration(text)) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    since.from_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count() - *seconds * 1000;
  } else if (auto cursor = event_cursor_from_text(text)) {
    since.cursor = *cursor;
  } else {
    return tl::unexpected(Error{ErrorCode::invalid, fmt::format("\"{}\" is no time, duration or position", text),
                                "write for example --since 2h or --since 2026-01-31T12:00:00Z", 0});
  }
  return since;
}

Result<EventPage> fetch_events(Session& session, const EventCursor& cursor, int wait_s) {
  auto answer = session.get(fmt::format("/v1/events?limit={}&wait_s={}&since={}", page_size, wait_s, to_text(cursor)),
                            (wait_s + 15) * second_ms);
  if (!answer) return tl::unexpected(std::move(answer).error());
  return event_page_from_json(*answer);
}

void print_event(Session& session, const Event& event) {
  if (session.json)
    session.print(to_json(event).dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
  else
    session.print(event_line(event, session.around().look()));
}

int follow_events(Session& session, EventCursor cursor) {
  for (;;) {
    const auto page = fetch_events(session, cursor, 20);
    if (!page && page.error().code != ErrorCode::unavailable && page.error().code != ErrorCode::timeout)
      return session.failure(page.error());
    if (page) {
      cursor = page->next;
      for (const Event& event : page->events) print_event(session, event);
    }
    if (!session.around().out) return exit_ok;
    // The answer itself is what is waited for; a pause only when the daemon is away.
    if (session.around().pause(page ? 0 : second_ms) == Surroundings::Woken::interrupted) return exit_ok;
  }
}

}  // namespace

int status_command(Session& session, const StatusOptions& options) {
  if (options.watch) return watch(session);
  json raw;
  const auto status = fetch_status(session, &raw);
  if (!status) return session.failure(status.error());
  if (session.json)
    session.print_json(raw);
  else
    session.print(status_view(*status, session.around().look()));
  return exit_ok;
}

int metrics_command(Session& session) {
  json raw;
  const auto status = fetch_status(session, &raw);
  if (!status) return session.failure(status.error());
  if (session.json)
    session.print_json(raw);
  else
    session.print(prometheus_text(*status));
  return exit_ok;
}

int wait_command(Session& session) {
  const bool live = session.around().out_is_terminal && !session.json;
  session.around().hold_signals();
  std::string last;
  for (int waited_ms = 0;;) {
    json raw;
    const auto status = fetch_status(session, &raw);
    if (!status && status.error().code != ErrorCode::unavailable && status.error().code != ErrorCode::timeout)
      return session.failure(status.error());
    const std::string line = status ? progress_line(*status, session.around().look()) : status.error().message;
    if (live)
      session.print("\r" + line + "\x1b[K");
    else if (!session.json && line != last)
      session.print(line + "\n");
    last = line;
    if (status && settled(*status)) {
      if (live) session.print("\n");
      if (session.json) session.print_json(raw);
      return exit_ok;
    }
    if (session.around().pause(second_ms) == Surroundings::Woken::interrupted) return exit_interrupted;
    waited_ms += second_ms;
    if (session.timeout_s > 0 && waited_ms >= session.timeout_s * second_ms) {
      if (live) session.print("\n");
      if (!status) return session.failure(status.error());
      return session.failure({ErrorCode::timeout,
                              fmt::format("not every passive is synchronized after {} s", session.timeout_s),
                              "see holdfast status", 0});
    }
  }
}

int events_command(Session& session, const EventsOptions& options) {
  const auto since = parse_since(options.since);
  if (!since) return session.failure(since.error());
  EventCursor cursor = since->cursor;
  std::vector<Event> events;
  for (;;) {  // to the end of what is there
    const auto page = fetch_events(session, cursor, 0);
    if (!page) return session.failure(page.error());
    cursor = page->next;
    for (const Event& event : page->events)
      if (event.time_ms >= since->from_ms) events.push_back(event);
    if (page->events.size() < page_size) break;
  }
  const auto most = static_cast<std::size_t>(std::max(0, options.last));
  if (options.since.empty() && events.size() > most)
    events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(most));
  if (session.json && !options.follow) {
    session.print_json(to_json(EventPage{events, cursor}));
    return exit_ok;
  }
  for (const Event& event : events) print_event(session, event);
  return options.follow ? follow_events(session, cursor) : exit_ok;
}

int config_show_command(Session& session) {
  const auto answer = session.get("/v1/config");
  const auto config = answer ? config_reply_from_json(*answer) : Result<ConfigReply>(tl::unexpected(answer.error()));
  if (!config) return session.failure(config.error());
  if (session.json)
    session.print_json(*answer);
  else
    session.print(config_view(*config, session.around().look()));
  return exit_ok;
}

int config_get_command(Session& session, const std::string& key) {
  const auto answer = session.get("/v1/config");
  const auto config = answer ? config_reply_from_json(*answer) : Result<ConfigReply>(tl::unexpected(answer.error()));
  if (!config) return session.failure(config.error());
  for (std::size_t i = 0; i < config->items.size(); ++i) {
    if (config->items[i].key != key) continue;
    if (session.json)
      session.print_json(answer->at("items").at(i));
    else
      session.print(config->items[i].value + "\n");
    return exit_ok;
  }
  return session.failure({ErrorCode::not_found, fmt::format("there is no setting \"{}\"", key),
                          "list them with: holdfast config show", 0});
}

}  // namespace holdfast::cli
