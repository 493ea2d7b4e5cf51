// SPDX-License-Identifier: Apache-2.0
#include "platform/digest_ahead.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "log/hash.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t most_jobs = 256;  // each holds a descriptor
constexpr unsigned threads = 6;         // of small files each waits for the disk longer than it computes

}  // namespace

DigestAhead::~DigestAhead() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  wanted_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void DigestAhead::ask(const FileId& id, UniqueFd file, std::uint64_t offset, std::uint64_t length) {
  auto job = std::make_shared<Job>();
  job->id = id;
  job->file = std::move(file);
  job->offset = offset;
  job->length = length;
  add(std::move(job));
}

void DigestAhead::ask_big(const FileId& id, const std::function<std::shared_ptr<ReadOnce>()>& open,
                          std::uint64_t offset, std::uint64_t length) {
  if (!big_ || big_id_ != id) {
    big_ = open();
    big_id_ = id;
  }
  if (!big_) return;
  big_is_used_ = true;
  auto job = std::make_shared<Job>();
  job->id = id;
  job->big = big_;
  job->offset = offset;
  job->length = length;
  add(std::move(job));
}

void DigestAhead::add(std::shared_ptr<Job> job) {
  CHECK(job->length <= ports::most_digest_bytes, "a digest of too much");
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() == most_jobs) jobs_.pop_front();
    jobs_.push_back(std::move(job));
    try {
      while (threads_.size() < threads) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // no more threads: whoever asks does it himself
    }
  }
  wanted_.notify_one();
}

std::optional<ports::Digest> DigestAhead::take(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  std::unique_lock lock(mutex_);
  const auto it = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto& job) {
    return job->id == id && job->offset == offset && job->length == length;
  });
  if (it == jobs_.end()) return {};
  const std::shared_ptr<Job> job = *it;
  jobs_.erase(jobs_.begin(), it + 1);
  if (job->state == State::waiting) return {};  // nobody has begun: faster done than waited for
  done_.wait(lock, [&] { return job->state == State::done; });
  return job->digest;
}

void DigestAhead::forget(const FileId& id) {
  if (big_id_ == id) big_ = nullptr;
  const std::lock_guard lock(mutex_);
  std::erase_if(jobs_, [&](const auto& job) { return job->id == id; });
}

void DigestAhead::forget_all() {
  if (!std::exchange(big_is_used_, false)) big_ = nullptr;
  const std::lock_guard lock(mutex_);
  jobs_.clear();
}

void DigestAhead::work() {
  Bytes buffer;
  std::unique_lock lock(mutex_);
  for (;;) {
    std::shared_ptr<Job> job;
    wanted_.wait(lock, [&] {
      const auto it =
          std::find_if(jobs_.begin(), jobs_.end(), [](const auto& j) { return j->state == State::waiting; });
      if (it != jobs_.end()) job = *it;
      return stops_ || job;
    });
    if (stops_) return;
    job->state = State::in_work;
    lock.unlock();
    auto digest = compute(*job, buffer);
    job->file = {};
    job->big = nullptr;
    lock.lock();
    job->digest = digest;
    job->state = State::done;
    done_.notify_all();
  }
}

std::optional<ports::Digest> DigestAhead::compute(const Job& job, Bytes& buffer) {
  buffer.resize(std::max<std::size_t>(buffer.size(), job.length));
  std::size_t n = 0;
  if (job.big) {
    const std::int64_t got = job.big->read(job.offset, std::span(buffer).first(job.length));
    if (got < 0) return {};
    n = static_cast<std::size_t>(got);
  }
  while (!job.big && n < job.length) {
    const ssize_t got = ::pread(job.file.get(), buffer.data() + n, job.length - n, static_cast<off_t>(job.offset + n));
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {};  // whoever asked reads it himself, and says what is wrong
    n += static_cast<std::size_t>(got);
  }
  return ports::Digest{log::content_hash(ByteView(buffer).first(n)), n};
}

}  // namespace holdfast::platform
