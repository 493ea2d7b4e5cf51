// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/pusher.h"

#include <sys/socket.h>

#include "base/log.h"

namespace holdfast::mirror_process {
namespace {
constexpr std::chrono::milliseconds round_patience(10000);
}

Pusher::Pusher(std::chrono::milliseconds every, std::function<std::vector<Mount>()> mounts,
               std::function<std::int64_t()> now_ns, std::function<void(std::int64_t)> completed)
    : every_(every), mounts_(std::move(mounts)), now_ns_(std::move(now_ns)), completed_(std::move(completed)) {
  thread_ = std::thread([this] { run(); });
}

Pusher::~Pusher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_cv_.notify_all();
  thread_.join();
  client_.reset();
}

void Pusher::run() {
  std::unique_lock lock(mutex_);
  while (!stop_cv_.wait_for(lock, every_, [this] { return stopping_; })) {
    lock.unlock();
    round();
    lock.lock();
  }
}

void Pusher::round() {
  const std::lock_guard one(round_mutex_);
  const std::int64_t began_ns = now_ns_();
  const auto mounts = mounts_();
  if (mounts.empty()) return;
  for (const auto& mount : mounts) {
    const auto pushed = push(mount);
    if (!pushed) return log_warning("{}: written data could not be pushed: {}", mount.path, pushed.error().to_string());
    if (pushed->failed != 0) return;  // the recovery point says so by growing
  }
  completed_(began_ns);
}

Result<capture::PushResult> Pusher::push(const Mount& mount) {
  const auto files = mount.session->open_for_write();
  if (files.empty()) return capture::PushResult{};
  if (!client_) {
    HF_ASSIGN(helper_, platform::SelfProcess::start({"push"}, SOCK_STREAM));
    client_ = std::make_unique<capture::PushClient>(helper_.release_socket());
  }
  auto result = client_->round(mount.path, files, round_patience);
  if (!result) {  // it hangs, or died: the next round has a new one
    client_.reset();
    helper_.kill();
    helper_ = platform::SelfProcess();
  }
  return result;
}

}  // namespace holdfast::mirror_process
