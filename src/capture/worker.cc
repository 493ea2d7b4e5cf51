// SPDX-License-Identifier: Apache-2.0
#include "capture/worker.h"

#include <signal.h>

#include <memory>

#include "capture/caller.h"

namespace holdfast::capture {
namespace {

constexpr std::size_t stack_bytes = 256 * 1024;

struct Start {
  WorkerThreads* owner;
  std::string name;
  std::function<void()> body;
};

}  // namespace

void* WorkerThreads::run(void* raw) {
  const std::unique_ptr<Start> start(static_cast<Start*>(raw));
  pthread_setname_np(pthread_self(), start->name.substr(0, 15).c_str());
  prepare_worker_thread();
  start->body();
  WorkerThreads& owner = *start->owner;
  const std::lock_guard guard(owner.mutex_);
  if (owner.running_.fetch_sub(1) == 1) owner.idle_.notify_all();
  return nullptr;
}

bool WorkerThreads::wait_idle(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, patience, [this] { return running_ == 0; });
}

void WorkerThreads::interrupt(int signal) {
  const std::lock_guard guard(mutex_);
  for (const pthread_t thread : threads_) pthread_kill(thread, signal);
}

Status WorkerThreads::add(std::string name, std::function<void()> body) {
  auto start = std::make_unique<Start>(Start{this, std::move(name), std::move(body)});
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  running_.fetch_add(1);
  const int error = pthread_create(&thread, &attributes, run, start.get());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error) {
    running_.fetch_sub(1);
    return fail_errno(error, "cannot start a capture thread");
  }
  (void)start.release();  // the thread's own
  const std::lock_guard guard(mutex_);
  threads_.push_back(thread);
  return {};
}

void WorkerThreads::join() {
  for (;;) {
    pthread_t thread;
    {
      const std::lock_guard guard(mutex_);
      if (threads_.empty()) return;
      thread = threads_.back();
      threads_.pop_back();
    }
    pthread_join(thread, nullptr);
  }
}

}  // namespace holdfast::capture
