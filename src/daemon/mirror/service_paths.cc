// SPDX-License-Identifier: Apache-2.0
// What is protected, over restarts of this process, and what was and is not any more.
#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/durable_file.h"

namespace holdfast::mirror_process {

std::optional<std::vector<Cover>> Service::known_covers() const {
  const auto text = platform::read_file(covers_file());
  return text ? decode_covers(as_text(*text)) : std::vector<Cover>{};
}

// For the next start of this process: covers stand before holdfastd says anything.
Status Service::remember_paths(const MirrorConfig& config) {
  CoversNow now = covers_now(known_covers().value_or(std::vector<Cover>{}), config);
  HF_TRY(let_go(now));
  const std::string text = encode_covers(now.stay);
  if (const auto old = platform::read_file(covers_file()); old && as_text(*old) == text) return {};
  return platform::write_file_durably(covers_file(), as_bytes(text));
}

// They are protected no more. Also those whose protection ended while this node was down, and that only its start has covered. What somebody holds
// stays as it is until the next time.
Status Service::let_go(CoversNow& now) {
  std::vector<std::string> free;
  for (const Cover& each : now.gone) {
    if (const Status uncovered = uncover_path(each.path); uncovered) {
      free.push_back(each.path);
    } else {
      log_warning("{}", uncovered.error().to_string());
      now.stay.push_back(each);
    }
  }
  return free.empty() ? Status{} : unmarker_.add(free);
}

Result<platform::StillProtected> Service::still_protected() const {
  platform::StillProtected out;
  out.index = index_.get();
  for (const auto& set : sets()) {
    HF_ASSIGN(const platform::UniqueFd root, set->duplicate_root());
    HF_TRY(out.add(root.get()));
  }
  return out;
}

void Service::cover_known_paths() {
  capture::LookMount::clear_dead();
  const auto covers = known_covers();
  if (!covers) return log_error("{} is damaged; folders are covered when holdfastd says which", covers_file());
  for (const Cover& each : *covers) {
    if (inherits(each.path)) continue;  // it lies below a capture that goes on
    if (auto done = cover_path(each.path); !done) log_error("{}", done.error().to_string());
  }
}

}  // namespace holdfast::mirror_process
