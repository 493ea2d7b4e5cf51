// SPDX-License-Identifier: Apache-2.0
#include "capture/uring_transport.h"

#include <liburing.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <thread>

#include "base/check.h"
#include "base/log.h"
#include "capture/buffers.h"

namespace holdfast::capture {
namespace {

unsigned possible_cpus() { return static_cast<unsigned>(get_nprocs_conf()); }

// Refused where a cgroup keeps us off that CPU, or it is offline.
bool stay_on(unsigned cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  if (cpu >= CPU_SETSIZE) return false;
  CPU_SET(cpu, &one);
  return sched_setaffinity(0, sizeof one, &one) == 0;
}

// One that is possible only, as virtual machines have them, has no folder.
bool is_online(unsigned cpu) {
  const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
  if (access(folder.c_str(), F_OK) != 0) return false;
  std::ifstream file(folder + "/online");
  char value = '1';  // the first one may have no such file
  return !(file >> value) || value == '1';
}

}  // namespace

bool uring_available() {
  std::ifstream parameter("/sys/module/fuse/parameters/enable_uring");
  std::string value;
  return parameter >> value && (value == "Y" || value == "1");
}

// Where a worker runs. Who makes a small request waits for it, on the CPU whose queue it is in: there the switch to the worker and back costs a few
// us, and several times that on a CPU that has to be woken up first. Bulk is copied side by side by all CPUs instead.
class UringTransport::Place {
 public:
  Place(unsigned cpu, const cpu_set_t& anywhere) : cpu_(cpu), anywhere_(anywhere), near_(stay_on(cpu)) {}
  void after(std::size_t bytes) {
    if (bytes >= bulk_bytes) {
      small_ = 0;
      if (near_) near_ = sched_setaffinity(0, sizeof anywhere_, &anywhere_) != 0;
    } else if (!near_ && ++small_ == small_in_a_row) {
      small_ = 0;
      near_ = stay_on(cpu_);
    }
  }

 private:
  static constexpr std::size_t bulk_bytes = 128 * 1024;
  static constexpr unsigned small_in_a_row = 16;
  const unsigned cpu_;
  const cpu_set_t& anywhere_;
  bool near_;
  unsigned small_ = 0;
};

// Who starts threads learns here how registering went.
struct UringTransport::Registration {
  std::mutex mutex;
  std::condition_variable changed;
  unsigned started = 0;
  int error = 0;
  void done(int sys_errno) {
    const std::lock_guard guard(mutex);
    ++started;
    if (sys_errno && !error) error = sys_errno;
    changed.notify_all();
  }
};

// A thread's own ring with its one entry.
struct UringTransport::Ring {
  explicit Ring(EntryBuffers& all) : buffers(all) {}
  EntryBuffers& buffers;
  std::optional<unsigned> slot;  // owned, unless its request is held
  io_uring ring{};
  iovec parts[2];
  bool open = false;

  ~Ring() {
    if (open) io_uring_queue_exit(&ring);
    if (slot) buffers.give_back(*slot);
  }
  fuse::UringHeader& head() { return *buffers.header(*slot); }
  std::span<std::uint8_t> payload() { return buffers.payload(*slot); }

  int init() {
    if (!slot) return ENOMEM;
    io_uring_params params{};
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    if (const int error = io_uring_queue_init_params(1, &ring, &params); error < 0) return -error;
    open = true;
    io_uring_register_ring_fd(&ring);
    parts[0] = {&head(), sizeof(fuse::UringHeader)};
    parts[1] = {payload().data(), payload().size()};
    return 0;
  }

  void prepare(int device, std::uint32_t command, unsigned queue, std::uint64_t commit_id) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    CHECK(sqe, "a ring of one entry is used twice");
    std::memset(static_cast<void*>(sqe), 0, 128);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = device;
    sqe->cmd_op = command;
    if (command == fuse::uring_register) {
      sqe->addr = reinterpret_cast<std::uint64_t>(parts);
      sqe->len = 2;
    }
    fuse::UringCommand area{0, commit_id, static_cast<std::uint16_t>(queue), {}};
    std::memcpy(&sqe->cmd, &area, sizeof area);
  }

  // Result of the entry's command: 0 = a request stands in the buffers.
  int wait() {
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      const int error = io_uring_submit_and_wait(&ring, 1);
      if (error < 0 && error != -EINTR && error != -EAGAIN) return error;
      if (io_uring_peek_cqe(&ring, &cqe) != 0) continue;
      const int result = cqe->res;
      io_uring_cqe_seen(&ring, cqe);
      return result;
    }
  }
};

UringTransport::UringTransport(int device, Handler& handler, unsigned threads_per_queue, unsigned most_threads,
                               std::unique_ptr<EntryBuffers> buffers, std::function<void()> touch)
    : device_(device),
      handler_(handler),
      threads_per_queue_(std::max(2U, threads_per_queue)),
      buffers_(std::move(buffers)),
      touch_(std::move(touch)) {
  if (sched_getaffinity(0, sizeof anywhere_, &anywhere_) != 0) CPU_ZERO(&anywhere_);  // then nobody gets off its CPU
  for (unsigned i = 0; i < possible_cpus(); ++i) {
    queues_.push_back(std::make_unique<QueueLoad>());
    queues_.back()->most = std::max(most_threads, threads_per_queue_);
  }
}

UringTransport::~UringTransport() { join(); }

std::size_t UringTransport::buffers_needed(unsigned threads_per_queue, unsigned most_threads) {
  return std::size_t{possible_cpus()} * std::max({2U, threads_per_queue, most_threads});
}

Status UringTransport::start(const std::vector<Parked>& parked) {
  bar_nudges(false, {});
  auto registration = std::make_shared<Registration>();
  const bool late = !parked.empty();
  unsigned wanted = 0;
  {
    const std::lock_guard guard(parked_mutex_);
    parked_.clear();
  }
  for (const Parked& one : parked) {
    if (one.queue >= queues_.size()) return fail(ErrorCode::corrupt, "there is no queue {} here", one.queue);
    queues_[one.queue]->threads.fetch_add(1);
    HF_TRY(workers_.add("hf-fuse-" + std::to_string(one.queue),
                        [this, one, registration] { go_on(one.queue, one.slot, registration); }));
    ++wanted;
  }
  for (unsigned q = 0; q < queues_.size(); ++q)
    for (unsigned t = queues_[q]->threads; t < threads_per_queue_; ++t) {
      queues_[q]->threads.fetch_add(1);
      HF_TRY(workers_.add("hf-fuse-" + std::to_string(q),
                          [this, q, registration, late] { serve(q, registration, late); }));
      ++wanted;
    }
  return wait_registered(*registration, wanted);
}

std::vector<UringTransport::Parked> UringTransport::parked() const {
  const std::lock_guard guard(parked_mutex_);
  return parked_;
}

std::vector<unsigned> UringTransport::unparked() const {
  std::vector<unsigned> count;
  for (unsigned q = 0; q < queues_.size(); ++q) count.push_back(is_online(q) ? queues_[q]->threads.load() : 0);
  return count;
}

// Some more: workers are added when others wait.
std::size_t UringTransport::folders_to_park() const {
  constexpr std::size_t more_a_queue = 4;
  std::size_t all = 0;
  for (const unsigned threads : unparked()) all += threads ? threads + more_a_queue : 0;
  return all;
}

Status UringTransport::park(std::vector<Descriptor> folders, std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds look_again{5};
  const auto until = std::chrono::steady_clock::now() + patience;
  bar_nudges(true, patience);
  {
    // One that is answered by the next process only would keep this one from ending.
    const std::lock_guard guard(nudges_mutex_);
    if (nudges_ != 0) return fail(ErrorCode::busy, "a request of capture's own is under way");
  }
  std::vector<unsigned> sent(queues_.size());
  for (;;) {
    bool all = true;
    const std::vector<unsigned> left = unparked();
    for (unsigned q = 0; q < queues_.size(); ++q) {
      if (left[q] == 0) continue;
      all = false;
      const auto ended = [&](const Parked& one) { return one.queue == q; };
      const std::vector<Parked> now = parked();
      const auto arrived = static_cast<unsigned>(std::count_if(now.begin(), now.end(), ended));
      for (; sent[q] < arrived + left[q] && !folders.empty(); ++sent[q]) {
        // The release goes to the queue of the CPU that it is made on.
        bool there = false;
        std::thread([&] {
          if (there = stay_on(q); there) folders.back() = Descriptor();
        }).join();
        if (!there) return fail(ErrorCode::busy, "capture may not use CPU {}", q);
        folders.pop_back();
      }
    }
    if (all) return {};
    if (std::chrono::steady_clock::now() > until)
      return fail(ErrorCode::busy, "requests are under way for longer than {} ms", patience.count());
    std::unique_lock lock(parked_mutex_);
    parked_changed_.wait_for(lock, look_again);
  }
}

Status UringTransport::wait_registered(Registration& registration, unsigned wanted) {
  std::unique_lock lock(registration.mutex);
  registration.changed.wait(lock, [&] { return registration.started == wanted || registration.error; });
  if (registration.error) return fail_errno(registration.error, "the kernel refused FUSE over io_uring");
  return {};
}

void UringTransport::wait_begins(unsigned queue) {
  if (!queues_[queue]->wait_begins()) return;
  auto registration = std::make_shared<Registration>();
  if (auto started = workers_.add("hf-fuse-more", [this, queue, registration] { serve(queue, registration, true); });
      !started) {
    queues_[queue]->threads.fetch_sub(1);
    log_warning("capture goes on with fewer threads: {}", started.error().to_string());
  }
}

// One request from the queue's own CPU, in a thread of its own.
void UringTransport::nudge(unsigned queue) {
  {
    const std::lock_guard guard(nudges_mutex_);
    if (nudges_barred_) return;
    ++nudges_;
  }
  const auto ended = [this] {
    const std::lock_guard guard(nudges_mutex_);
    --nudges_;
    nudges_ended_.notify_all();
  };
  const auto started = workers_.add("hf-fuse-nudge", [this, queue, ended] {
    if (stay_on(queue)) touch_();
    ended();
  });
  if (!started) ended();
}

void UringTransport::bar_nudges(bool bar, std::chrono::milliseconds patience) {
  std::unique_lock lock(nudges_mutex_);
  nudges_barred_ = bar;
  if (bar) nudges_ended_.wait_for(lock, patience, [this] { return nudges_ == 0; });
}

void UringTransport::serve(unsigned queue, std::shared_ptr<Registration> registration, bool late) {
  Place place(queue, anywhere_);
  Ring ring(*buffers_);
  ring.slot = buffers_->take();
  if (open_entry(ring, queue, *registration, late)) serve_entry(ring, queue, place);
  queues_[queue]->threads.fetch_sub(1);
}

// With an entry that is there already: the request in it is the first one.
void UringTransport::go_on(unsigned queue, unsigned slot, std::shared_ptr<Registration> registration) {
  Place place(queue, anywhere_);
  Ring ring(*buffers_);
  ring.slot = slot;
  const int error = ring.init();
  registration->done(error);
  if (!error) serve_entry(ring, queue, place);
  queues_[queue]->threads.fetch_sub(1);
}

// True: a request stands in the entry.
bool UringTransport::open_entry(Ring& ring, unsigned queue, Registration& registration, bool late) {
  if (const int error = ring.init()) {
    registration.done(error);
    return false;
  }
  ring.prepare(device_, fuse::uring_register, queue, 0);
  // With deferred completions a refusal shows in the completion queue after the submission, an acceptance shows nothing.
  const int submitted = io_uring_submit_and_get_events(&ring.ring);
  io_uring_cqe* cqe = nullptr;
  int refusal = submitted < 0 ? -submitted : 0;
  if (!refusal && io_uring_peek_cqe(&ring.ring, &cqe) == 0 && cqe->res < 0) refusal = -cqe->res;
  registration.done(refusal);
  if (refusal) return false;
  if (late && !cqe) nudge(queue);
  if (!cqe) return ring.wait() == 0;
  io_uring_cqe_seen(&ring.ring, cqe);  // a request was there at once
  return true;
}

void UringTransport::serve_entry(Ring& ring, unsigned queue, Place& place) {
  do {
    std::size_t bytes = 0;
    if (!handle_entry(ring, queue, bytes)) {
      const std::lock_guard guard(parked_mutex_);
      parked_.push_back({*ring.slot, static_cast<std::uint16_t>(queue)});
      ring.slot.reset();  // it stays taken
      parked_changed_.notify_all();
      return;
    }
    place.after(bytes);
  } while (ring.wait() == 0);
}

bool UringTransport::handle_entry(Ring& ring, unsigned queue, std::size_t& bytes) {
  fuse::UringHeader& head = ring.head();
  Request request;
  std::memcpy(&request.head, head.in_out, sizeof request.head);
  const std::size_t fixed_bytes = fuse::fixed_size(request.op());
  // The kernel copies what it has of the fixed argument; stale bytes of the request before must not show behind it.
  request.fixed = head.op_in;
  request.args = ring.payload().subspan(0, std::min<std::size_t>(head.entry.payload_size, ring.payload().size()));
  request.reply = ring.payload();
  request.queue = queue;
  request.transport = this;
  const std::uint64_t commit_id = head.entry.commit_id;
  bytes = request.args.size();
  const Answer answer = handler_.handle(request);
  if (answer == held_answer) return false;
  fuse::OutHeader out{sizeof out, 0, request.head.unique};
  if (answer < 0 && answer != no_answer) out.error = static_cast<std::int32_t>(answer);
  const std::uint32_t body = answer > 0 ? static_cast<std::uint32_t>(answer) : 0;
  out.len += body;
  std::memcpy(head.in_out, &out, sizeof out);
  std::memset(head.op_in, 0, std::max<std::size_t>(fixed_bytes, 8));
  head.entry.payload_size = body;
  ring.prepare(device_, fuse::uring_commit_and_fetch, queue, commit_id);
  bytes = std::max<std::size_t>(bytes, body);
  return true;
}

}  // namespace holdfast::capture
