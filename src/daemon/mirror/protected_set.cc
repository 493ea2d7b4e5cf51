// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/protected_set.h"

#include <fcntl.h>

#include <filesystem>
#include <limits>
#include <map>
#include <vector>

#include "base/log.h"
#include "platform/descriptors.h"
#include "platform/graveyard_purge.h"
#include "platform/mounts.h"

namespace holdfast::mirror_process {
namespace {

// Processes with files of the real tree open, by its own device: those opened through a capture have another one.
Status refuse_holders_below(const std::string& path, int root_fd) {
  HF_ASSIGN(const std::string device, platform::device_of(root_fd));
  std::map<pid_t, std::string> found;
  for (const auto& holder : capture::find_tree_holders(device, path)) {
    if (holder.pid == ::getpid()) continue;
    found.emplace(holder.pid, fmt::format("{} (pid {}, {})", holder.command, holder.pid, holder.what));
  }
  if (found.empty()) return {};
  std::string names;
  for (const auto& [pid, text] : found) names += (names.empty() ? "" : ", ") + text;
  return tl::unexpected(with_hint(Error{ErrorCode::busy, fmt::format("{} is in use by {}", path, names), {}, 0},
                                  "stop what uses it; it was opened before the folder was protected"));
}

// Not what is in it: objects that a resynchronization displaced and did not finish with may be all that is left of a file.
void remove_hidden_folder(const std::string& path) {
  const std::filesystem::path hidden = std::filesystem::path(path) / ports::hidden_name;
  std::error_code error;
  const auto changed = std::filesystem::last_write_time(path, error);
  for (const auto& folder : {hidden / "new", hidden / "grave", hidden})
    if (!error) std::filesystem::remove(folder, error);
  if (!error) std::filesystem::last_write_time(path, changed, error);  // nobody's data changed
  if (error) log_warning("{} stays: {}", hidden.string(), error.message());
}

// As PosixTree::purge(), without a tree: a graveyard that nobody serves any more.
void remove_dead(const std::string& path) {
  const std::filesystem::path grave = std::filesystem::path(path) / ports::hidden_name / "grave";
  const platform::UniqueFd fd(::open(grave.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return;
  platform::GravePurge purge(0, [](int) { return Status(); });
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(grave, error), end; !error && it != end; it.increment(error))
    if (const std::string name = it->path().filename();
        name.starts_with("d-") || name.starts_with("o-") || name.starts_with("s-"))
      names.push_back(name);
  for (const std::string& name : names) {
    std::size_t all = std::numeric_limits<std::size_t>::max();
    if (auto gone = purge.remove(fd.get(), name.c_str(), all); !gone) log_warning("{}", gone.error().to_string());
  }
}

}  // namespace

Status uncover_path(const std::string& path) {
  HF_TRY(platform::uncover(path));
  remove_dead(path);
  remove_hidden_folder(path);
  return {};
}

Status cover_path(const std::string& path) {
  HF_TRY(platform::remove_dead_captures(path));
  return platform::cover(path);
}

Result<std::unique_ptr<ProtectedSet>> ProtectedSet::open(const SetConfig& config, platform::FileIndex& index,
                                                         bool keep_capture) {
  if (!keep_capture) HF_TRY(platform::remove_dead_captures(config.path));
  HF_ASSIGN(auto root, platform::clone_tree(config.path));
  HF_ASSIGN(const bool was_covered, platform::is_covered(config.path));
  HF_TRY(platform::cover(config.path));
  // Behind a cover that was there already nobody can have opened anything for writing.
  if (auto free = was_covered ? Status() : refuse_holders_below(config.path, root.get()); !free) {
    if (auto undone = platform::uncover(config.path); !undone) log_warning("{}", undone.error().to_string());
    return tl::unexpected(free.error());
  }
  HF_ASSIGN(platform::UniqueFd for_tree, platform::duplicate(root.get()));
  HF_ASSIGN(auto tree, platform::PosixTree::open(std::move(for_tree), config.set, index));
  return std::unique_ptr<ProtectedSet>(
      new ProtectedSet(config, std::move(root), std::shared_ptr<platform::PosixTree>(std::move(tree)), index));
}

Result<platform::UniqueFd> ProtectedSet::duplicate_root() const { return platform::duplicate(root_.get()); }

capture::SessionOptions ProtectedSet::options(std::shared_ptr<const mirror::LiveLimits> limits) const {
  capture::SessionOptions options;
  options.path = config_.path;
  options.root_fd = root_.get();
  options.set = config_.set;
  options.write_policy = config_.write_through ? capture::WritePolicy::write_through : capture::WritePolicy::write_back;
  options.limits = std::move(limits);
  return options;
}

Status ProtectedSet::mount(mirror::CaptureLog& log, mirror::LeaseGate& lease,
                           std::shared_ptr<const mirror::LiveLimits> limits,
                           std::function<void(const Error&)> on_fault) {
  ids_.use(log.hot(), config_.set);
  HF_ASSIGN(auto session, capture::Session::mount(options(std::move(limits)), log, lease, ids_, std::move(on_fault)));
  const std::lock_guard lock(mutex_);
  session_ = std::move(session);
  return {};
}

Status ProtectedSet::take_over(capture::Handover from, mirror::CaptureLog& log, mirror::LeaseGate& lease,
                               std::shared_ptr<const mirror::LiveLimits> limits,
                               std::function<void(const Error&)> on_fault) {
  ids_.use(log.hot(), config_.set);
  HF_ASSIGN(auto session, capture::Session::take_over(options(std::move(limits)), std::move(from), log, lease, ids_,
                                                      std::move(on_fault)));
  const std::lock_guard lock(mutex_);
  session_ = std::move(session);
  return {};
}

Result<capture::Handover> ProtectedSet::hand_over(std::chrono::milliseconds patience, std::size_t most_inodes) {
  const auto mounted = session();
  if (!mounted) return fail(ErrorCode::refused, "{} is not captured", config_.path);
  return mounted->hand_over(patience, most_inodes);
}

Status ProtectedSet::unmount(std::chrono::milliseconds patience, std::vector<capture::Holder>* holders) {
  const auto mounted = session();
  if (!mounted) return {};
  HF_TRY(mounted->unmount_and_wait(patience, holders));
  const std::lock_guard lock(mutex_);
  session_.reset();
  return {};
}

bool ProtectedSet::reap(std::chrono::milliseconds patience) {
  const auto mounted = session();
  if (!mounted) return true;
  if (!mounted->wait_reaped(patience)) return false;
  const std::lock_guard lock(mutex_);
  session_.reset();
  return true;
}

std::shared_ptr<capture::Session> ProtectedSet::session() const {
  const std::lock_guard lock(mutex_);
  return session_;
}

Status ProtectedSet::release() {
  for (const auto grave : {ports::Grave::deleted, ports::Grave::orphan})
    if (auto purged = tree_->purge(grave); !purged) log_warning("{}: {}", config_.path, purged.error().to_string());
  HF_TRY(platform::uncover(config_.path));
  remove_hidden_folder(config_.path);
  return {};
}

}  // namespace holdfast::mirror_process
