// SPDX-License-Identifier: Apache-2.0
// The event store: what happened, on every node, kept by every node. An event is named by (node, counter), so stores merge
// without agreement and without duplicates; the time is for people and for the order of display only.
// Files: JSON lines in DIR/<node>.<first counter>.jsonl, bounded in size and number; the oldest file goes first. A torn
// last line (power cut) is cut when the store opens; a damaged line elsewhere is skipped and said so.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace holdfast::control {

struct EventDraft {
  std::string severity;  // info | warning | error
  std::string code;      // stable word for scripts
  std::string actor;     // user, "holdfastd", ...
  std::string text;      // one line
};

struct Event {
  std::string node;
  std::uint64_t counter = 0;  // rising by one on its node; a new store begins at the clock's seconds, so a re-installed
                              // node does not repeat what others hold of it
  std::int64_t time_ms = 0;   // wall clock of its node
  std::string severity;
  std::string code;
  std::string actor;
  std::string text;
};

// Position in the merged stream: the last counter seen of each node. Text form "a:17,b:4"; empty = from the beginning.
using EventCursor = std::map<std::string, std::uint64_t>;
std::string to_text(const EventCursor& cursor);
Result<EventCursor> event_cursor_from_text(std::string_view text);

struct EventPage {
  std::vector<Event> events;  // by time, then node, then counter; each node's own in counter order
  EventCursor next;
};

nlohmann::json to_json(const Event& event);
nlohmann::json to_json(const EventPage& page);
Result<Event> event_from_json(const nlohmann::json& json);
Result<EventPage> event_page_from_json(const nlohmann::json& json);

struct EventLimits {
  std::size_t file_bytes = 512 * 1024;
  std::size_t files_per_node = 8;
};

// Any thread.
class EventStore {
 public:
  using WallClock = std::function<std::int64_t()>;  // ms since 1970

  // Opens or creates DIR (0700); `self` names this node's own events.
  static Result<std::unique_ptr<EventStore>> open(std::string dir, std::string self, EventLimits limits,
                                                  WallClock clock);
  ~EventStore();

  // Durable when it returns. An error means that the disk refuses: the caller logs the text so that it is not lost.
  Result<Event> append(const EventDraft& draft);
  // Events of other nodes, in any order, with repetitions. Those of `self` are ignored (its own files are the truth).
  Status ingest(const std::vector<Event>& events);

  EventPage after(const EventCursor& since, std::size_t limit) const;
  // As after(), but waits until there is one, at most wait_ms; returns at once when stop() was called.
  EventPage wait_after(const EventCursor& since, std::size_t limit, int wait_ms) const;
  EventCursor end() const;  // what this store holds of each node: what to ask the others after
  void stop();

 private:
  struct NodeLog;
  EventStore(std::string dir, std::string self, EventLimits limits, WallClock clock);
  Status load();
  Status write(NodeLog& log, const Event& event);
  NodeLog& log_of(const std::string& node);

  const std::string dir_;
  const std::string self_;
  const EventLimits limits_;
  const WallClock clock_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::map<std::string, std::unique_ptr<NodeLog>> logs_;
  bool stopped_ = false;
};

}  // namespace holdfast::control
