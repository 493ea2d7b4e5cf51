// SPDX-License-Identifier: Apache-2.0
#include "control/events.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>

#include "base/check.h"
#include "base/log.h"
#include "control/api_routes.h"
#include "control/json_fields.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

constexpr std::size_t longest_line = 16 * 1024;
constexpr std::string_view extension = ".jsonl";

// A node's name becomes part of a file name, and comes from other nodes: nothing but letters, digits and -._ inside.
bool is_file_safe(const std::string& name) {
  return !name.empty() && name.size() <= 64 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.'; });
}

std::string clipped(std::string text, std::size_t most) {
  if (text.size() > most) text.resize(most);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return text;
}

bool earlier(const Event& a, const Event& b) {
  return std::tie(a.time_ms, a.node, a.counter) < std::tie(b.time_ms, b.node, b.counter);
}

struct FileName {
  std::string node;
  std::uint64_t first = 0;
};

bool parse_file_name(const std::string& name, FileName& out) {
  if (!name.ends_with(extension)) return false;
  const std::string stem = name.substr(0, name.size() - extension.size());
  const std::size_t dot = stem.rfind('.');
  if (dot == std::string::npos) return false;
  const auto [end, error] = std::from_chars(stem.data() + dot + 1, stem.data() + stem.size(), out.first);
  out.node = stem.substr(0, dot);
  return error == std::errc{} && end == stem.data() + stem.size() && is_file_safe(out.node);
}

}  // namespace

template <class V>
void fields(V& v, Event& t) {
  v("node", t.node), v("counter", t.counter), v("time", WallTime{t.time_ms}), v("severity", t.severity),
      v("code", t.code);
  v("actor", t.actor), v("text", t.text);
}

nlohmann::json to_json(const Event& event) { return write_fields(event); }
Result<Event> event_from_json(const nlohmann::json& json) {
  return read_fields<Event>(json, "event", Unknown::ignored);
}

nlohmann::json to_json(const EventPage& page) {
  nlohmann::json events = nlohmann::json::array();
  for (const Event& event : page.events) events.push_back(to_json(event));
  return {{"events", std::move(events)}, {"next", to_text(page.next)}};
}

Result<EventPage> event_page_from_json(const nlohmann::json& json) {
  if (!json.is_object() || !json.contains("events") || !json["events"].is_array() || !json.contains("next") ||
      !json["next"].is_string())
    return fail(ErrorCode::corrupt, "not a page of events");
  EventPage page;
  for (const auto& item : json["events"]) {
    HF_ASSIGN(Event event, event_from_json(item));
    page.events.push_back(std::move(event));
  }
  HF_ASSIGN(page.next, event_cursor_from_text(json["next"].get<std::string>()));
  return page;
}

std::string to_text(const EventCursor& cursor) {
  std::string text;
  for (const auto& [node, counter] : cursor) text += fmt::format("{}{}:{}", text.empty() ? "" : ",", node, counter);
  return text;
}

Result<EventCursor> event_cursor_from_text(std::string_view text) {
  EventCursor cursor;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t colon = item.rfind(':');
    std::uint64_t counter = 0;
    const std::string_view number = colon == std::string_view::npos ? "" : item.substr(colon + 1);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), counter);
    if (error != std::errc{} || end != number.data() + number.size() ||
        !is_file_safe(std::string(item.substr(0, colon))))
      return fail(ErrorCode::invalid, "since must be a position that an earlier answer gave as \"next\"");
    cursor[std::string(item.substr(0, colon))] = counter;
  }
  return cursor;
}

// One node's events, in counter order; all of what its files hold is in memory (bounded by the limits).
struct EventStore::NodeLog {
  struct File {
    std::string path;
    std::size_t bytes = 0;
    std::size_t count = 0;  // events at the front of `events` for the oldest file, and so on
  };
  std::string node;
  std::deque<File> files;
  std::deque<Event> events;
  std::uint64_t last = 0;
};

EventStore::EventStore(std::string dir, std::string self, EventLimits limits, WallClock clock)
    : dir_(std::move(dir)), self_(std::move(self)), limits_(limits), clock_(std::move(clock)) {}
EventStore::~EventStore() = default;

Result<std::unique_ptr<EventStore>> EventStore::open(std::string dir, std::string self, EventLimits limits,
                                                     WallClock clock) {
  if (!is_file_safe(self))
    return fail(ErrorCode::invalid, "node name {} may hold letters, digits, '-', '_' and '.' only", self);
  HF_TRY(platform::make_private_dir(dir));
  std::unique_ptr<EventStore> store(new EventStore(std::move(dir), std::move(self), limits, std::move(clock)));
  HF_TRY(store->load());
  NodeLog& own = store->log_of(store->self_);
  if (own.last == 0) own.last = static_cast<std::uint64_t>(std::max<std::int64_t>(0, store->clock_() / 1000));
  return store;
}

EventStore::NodeLog& EventStore::log_of(const std::string& node) {
  auto& log = logs_[node];
  if (!log) {
    log = std::make_unique<NodeLog>();
    log->node = node;
  }
  return *log;
}

Status EventStore::load() {
  std::vector<std::pair<FileName, std::string>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir_, error)) {
    FileName name;
    if (parse_file_name(entry.path().filename().string(), name)) found.emplace_back(name, entry.path().string());
  }
  if (error) return fail(ErrorCode::io, "cannot list {}: {}", dir_, error.message());
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first.node, a.first.first) < std::tie(b.first.node, b.first.first);
  });
  for (const auto& [name, path] : found) {
    HF_ASSIGN(const Bytes content, platform::read_file(path, limits_.file_bytes * 2 + longest_line));
    std::string_view rest = as_text(content);
    NodeLog& log = log_of(name.node);
    NodeLog::File file{path, content.size(), 0};
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      if (end == std::string_view::npos) {  // torn by a power cut: its append never returned
        file.bytes -= rest.size();
        HF_TRY(platform::write_file_durably(path, ByteView(content).first(file.bytes)));
        break;
      }
      const auto json = nlohmann::json::parse(rest.substr(0, end), nullptr, false);
      rest.remove_prefix(end + 1);
      auto event = json.is_object() ? event_from_json(json) : Result<Event>(fail(ErrorCode::corrupt, "not an event"));
      if (!event || event->node != name.node || event->counter <= log.last) {
        log_warning("{}: a damaged event line was skipped", path);
        continue;
      }
      log.last = event->counter;
      log.events.push_back(std::move(*event));
      ++file.count;
    }
    log.files.push_back(std::move(file));
  }
  return {};
}

Status EventStore::write(NodeLog& log, const Event& event) {
  const std::string line = dump(to_json(event)) + "\n";
  if (log.files.empty() || log.files.back().bytes + line.size() > limits_.file_bytes) {
    log.files.push_back({fmt::format("{}/{}.{:020}{}", dir_, log.node, event.counter, extension), 0, 0});
    while (log.files.size() > limits_.files_per_node) {
      HF_TRY(platform::remove_file_durably(log.files.front().path));
      log.events.erase(log.events.begin(), log.events.begin() + static_cast<std::ptrdiff_t>(log.files.front().count));
      log.files.pop_front();
    }
  }
  NodeLog::File& file = log.files.back();
  if (auto written = platform::append_durably(file.path, as_bytes(line)); !written) {
    // Half a line may stand there: the next event starts a new file, so that the reader meets a torn tail and nothing worse.
    file.bytes = limits_.file_bytes;
    return written;
  }
  file.bytes += line.size();
  ++file.count;
  log.events.push_back(event);
  log.last = event.counter;
  return {};
}

Result<Event> EventStore::append(const EventDraft& draft) {
  const std::lock_guard lock(mutex_);
  NodeLog& log = log_of(self_);
  // The counter moves on even when writing fails: a line that reached the disk after all must not share it.
  const Event event{self_,
                    ++log.last,
                    clock_(),
                    clipped(draft.severity, 16),
                    clipped(draft.code, 64),
                    clipped(draft.actor, 128),
                    clipped(draft.text, 2000)};
  HF_TRY(write(log, event));
  changed_.notify_all();
  return event;
}

Status EventStore::ingest(const std::vector<Event>& events) {
  std::vector<Event> sorted = events;
  std::sort(sorted.begin(), sorted.end(),
            [](const Event& a, const Event& b) { return std::tie(a.node, a.counter) < std::tie(b.node, b.counter); });
  const std::lock_guard lock(mutex_);
  for (Event& event : sorted) {
    if (event.node == self_ || !is_file_safe(event.node)) continue;
    if (!logs_.contains(event.node) && logs_.size() >= 16)
      continue;  // three nodes and their predecessors; not a stranger's flood
    NodeLog& log = log_of(event.node);
    if (event.counter <= log.last) continue;
    event.severity = clipped(event.severity, 16), event.code = clipped(event.code, 64);
    event.actor = clipped(event.actor, 128), event.text = clipped(event.text, 2000);
    HF_TRY(write(log, event));
  }
  changed_.notify_all();
  return {};
}

EventPage EventStore::after(const EventCursor& since, std::size_t limit) const {
  const std::lock_guard lock(mutex_);
  EventPage page;
  page.next = since;
  std::vector<std::pair<const NodeLog*, std::size_t>> heads;
  for (const auto& [node, log] : logs_) {
    const auto seen = since.find(node);
    const std::uint64_t counter = seen == since.end() ? 0 : seen->second;
    const auto first = std::upper_bound(log->events.begin(), log->events.end(), counter,
                                        [](std::uint64_t c, const Event& e) { return c < e.counter; });
    heads.emplace_back(log.get(), static_cast<std::size_t>(first - log->events.begin()));
  }
  // A merge of the nodes' own orders, so a page never jumps over an event of a node whose clock runs ahead.
  while (page.events.size() < limit) {
    std::pair<const NodeLog*, std::size_t>* best = nullptr;
    for (auto& head : heads) {
      if (head.second == head.first->events.size()) continue;
      if (best == nullptr || earlier(head.first->events[head.second], best->first->events[best->second])) best = &head;
    }
    if (best == nullptr) break;
    const Event& event = best->first->events[best->second++];
    page.next[event.node] = event.counter;
    page.events.push_back(event);
  }
  return page;
}

EventPage EventStore::wait_after(const EventCursor& since, std::size_t limit, int wait_ms) const {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
  {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [&] {
      if (stopped_) return true;
      return std::any_of(logs_.begin(), logs_.end(), [&](const auto& entry) {
        const auto seen = since.find(entry.first);
        return !entry.second->events.empty() &&
               entry.second->events.back().counter > (seen == since.end() ? 0 : seen->second);
      });
    });
  }
  return after(since, limit);
}

EventCursor EventStore::end() const {
  const std::lock_guard lock(mutex_);
  EventCursor cursor;
  for (const auto& [node, log] : logs_)
    if (!log->events.empty()) cursor[node] = log->last;
  return cursor;
}

void EventStore::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace holdfast::control
