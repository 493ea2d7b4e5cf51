// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_set.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "base/check.h"
#include "base/id_block.h"
#include "base/log.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint32_t nobodys_generation = ~std::uint32_t{0};  // no cell holds it: everything asks, and hears no

HotNote note_of(SetNumber set, const HotGate::Object& object) {
  return {object.folder ? HotKind::folder : HotKind::file, set, object.id};
}

}  // namespace

// --- what is on the disk

Result<std::unique_ptr<HotSet>> HotSet::open(HotSetPorts ports, HotSetOptions options) {
  CHECK(options.slots > options.kept_slots && options.kept_slots >= 16, "a hot set of {} slots", options.slots);
  std::unique_ptr<HotSet> made(new HotSet(std::move(ports), options));
  HF_TRY(made->recover());
  return made;
}

// Truth table: two sound headers -> the later one; one -> that (the other was torn, or there was only one yet); none -> the file is new, or
// nothing that it says can be believed: it is made anew, and its owner, who asks for notes of its own last epoch, finds none of that epoch.
Status HotSet::recover() {
  if (ports_.file.size() < hot_file_bytes(options_.slots))
    return fail(ErrorCode::corrupt, "the file of the hot set is too short: remove it, it is made anew");
  std::optional<HotHeader> found;
  for (std::uint64_t page = 0; page < 2; ++page) {
    std::array<std::uint8_t, hot_header_bytes> bytes{};
    HF_TRY(ports_.file.read_at(page * hot_header_spacing, bytes));
    auto header = decode_hot_header(bytes, options_.slots);
    if (!header && header.error().code == ErrorCode::refused)
      log_warning("{}: it is made anew", header.error().message);
    if (header && (!found || header->serial > found->serial)) found = *header;
  }
  if (!found) return make_anew();
  header_ = *found;
  highest_ = header_.released;
  Bytes slots(std::size_t{options_.slots} * hot_slot_bytes);
  for (std::uint32_t parity = 0; parity < 2; ++parity) {
    HF_TRY(ports_.file.read_at(hot_slot_offset(options_.slots, parity, 0), slots));
    for (std::size_t at = 0; at < slots.size(); at += hot_slot_bytes) {
      HotNote note;
      const std::uint32_t generation = decode_hot_slot(slots.data() + at, note);
      if (generation <= header_.released) continue;
      highest_ = std::max(highest_, generation);
      if (header_.epoch != Epoch(0)) left_over_.push_back(note);
    }
  }
  // At most two generations are noted at a time. With a third the header that says so was written, and can't be read any more.
  if (highest_ <= header_.released + 2) return {};
  log_warning("the newest header of the hot set can't be read: it is made anew");
  left_over_.clear();
  header_ = {};
  highest_ = 0;
  return make_anew();
}

// Slots first: a header that vouches for slots of who knows when must not be there before they are gone.
Status HotSet::make_anew() {
  const Bytes zeros(std::size_t{1} << 16);
  for (std::size_t at = 0; at < hot_file_bytes(options_.slots); at += zeros.size()) {
    const ByteView piece = ByteView(zeros).first(std::min(zeros.size(), hot_file_bytes(options_.slots) - at));
    HF_TRY(ports_.file.write_at(at, std::span(&piece, 1)));
  }
  HF_TRY(ports_.file.sync());
  Lock lock(mutex_);
  hold_file(lock);
  const Status done = write_header(lock, {});
  give_file();
  return done;
}

HotHeader HotSet::header() const {
  const std::lock_guard lock(mutex_);
  return header_;
}

Result<std::vector<HotNote>> HotSet::notes() const {
  const std::lock_guard lock(mutex_);
  if (generation() != 0 && !sealed_) return fail(ErrorCode::busy, "this node's epoch goes on");
  if (has_guards(0) || has_guards(1)) return fail(ErrorCode::busy, "a change of the ended epoch is still under way");
  std::vector<HotNote> all = left_over_;
  for (const Generation& g : generations_)
    for (const auto& [note, durable] : g.notes) all.push_back(note);
  return all;
}

// --- one user of the file at a time

void HotSet::hold_file(Lock& lock) {
  written_.wait(lock, [&] { return !writing_; });
  writing_ = true;
}

void HotSet::give_file() {
  writing_ = false;
  written_.notify_all();
}

Status HotSet::write_header(Lock& lock, HotHeader header) {
  if (failed_) return tl::unexpected(*failed_);
  header.serial = header_.serial + 1;
  lock.unlock();
  const Bytes bytes = encode_hot_header(header, options_.slots);
  const ByteView piece = bytes;
  Status done = ports_.file.write_at((header.serial & 1) * hot_header_spacing, std::span(&piece, 1));
  if (done) done = ports_.file.sync();
  lock.lock();
  if (done)
    header_ = header;
  else
    failed_ = done.error();
  return done;
}

Status HotSet::write_slots(std::vector<Queued>& batch) {
  std::sort(batch.begin(), batch.end(), [](const Queued& a, const Queued& b) {
    return std::pair(a.generation, a.slot) < std::pair(b.generation, b.slot);
  });
  Bytes run;
  for (std::size_t from = 0, to = 0; from < batch.size(); from = to) {
    run.clear();
    for (; to < batch.size() && batch[to].generation == batch[from].generation &&
           batch[to].slot == batch[from].slot + (to - from);
         ++to) {
      run.resize(run.size() + hot_slot_bytes);
      encode_hot_slot(batch[to].generation, batch[to].note, run.data() + run.size() - hot_slot_bytes);
    }
    const ByteView piece = run;
    HF_TRY(ports_.file.write_at(hot_slot_offset(options_.slots, batch[from].generation, batch[from].slot),
                                std::span(&piece, 1)));
  }
  return ports_.file.sync();
}

// By whoever finds the file free: for itself and for all that queued up while the last one wrote.
void HotSet::write_queued(Lock& lock) {
  hold_file(lock);
  std::vector<Queued> batch = std::exchange(queue_, {});
  // A generation may have been dropped since: its slots are another's now.
  std::erase_if(batch, [&](const Queued& q) { return generations_[q.generation & 1].number != q.generation; });
  if (!batch.empty() && !failed_) {
    lock.unlock();
    const Status done = write_slots(batch);
    lock.lock();
    if (!done) failed_ = done.error();
    ++commits_;
    notes_ += batch.size();
    for (const Queued& q : batch) {
      Generation& g = generations_[q.generation & 1];
      if (!done || g.number != q.generation) continue;
      g.notes[q.note] = true;
      if (q.note.kind == HotKind::set) g.whole.insert(q.note.set);
    }
  }
  give_file();
}

// --- notes

std::uint32_t HotSet::limit(HotKind kind) const {
  const std::uint32_t objects = options_.slots - options_.kept_slots;
  switch (kind) {
    case HotKind::file:
    case HotKind::folder:
      return objects;
    case HotKind::block:
      return objects + options_.kept_slots / 16;
    case HotKind::set:
      return options_.slots;
  }
  return 0;
}

bool HotSet::is_durable(const Generation& g, const HotNote& note) const {
  if (note.set != 0 && g.whole.contains(note.set)) return true;
  const auto found = g.notes.find(note);
  return found != g.notes.end() && found->second;
}

// False: there is no slot left for it.
bool HotSet::queue(Generation& g, const HotNote& note) {
  if (g.notes.contains(note)) return true;
  if (g.used >= limit(note.kind)) return false;
  g.notes.emplace(note, false);
  queue_.push_back({g.number, g.used++, note});
  if (g.used == limit(HotKind::file) / 4 * 3) {
    const std::lock_guard due(due_mutex_);
    due_ = true;
    due_cv_.notify_all();
  }
  return true;
}

Status HotSet::make_durable(Lock& lock, std::uint32_t number, std::vector<HotNote> wanted) {
  for (;;) {
    if (failed_) return tl::unexpected(*failed_);
    Generation& g = generations_[number & 1];
    if (g.number != number) return {};
    std::erase_if(wanted, [&](const HotNote& note) { return is_durable(g, note); });
    if (wanted.empty()) return {};
    for (HotNote& note : wanted) {
      if (queue(g, note)) continue;
      if (note.set == 0) return fail(ErrorCode::no_space, "no slot is left for a block of ids");
      note = {HotKind::set, note.set, {}};
      CHECK(queue(g, note), "the hot set has no slot left for set {}", note.set);
    }
    if (writing_)
      written_.wait(lock);
    else
      write_queued(lock);
  }
}

bool HotSet::too_many_waits(SetNumber set) {
  const std::int64_t now = ports_.times.steady_ns();
  Waits& waits = waits_[set];
  if (now - waits.since_ns > options_.coarse_window_ns) waits = {now, 0};
  return ++waits.count > options_.coarse_after;
}

Status HotSet::note(SetNumber set, Objects objects) {
  Lock lock(mutex_);
  const std::uint32_t number = generation();
  if (sealed_ || number == nobodys_generation) return fail(ErrorCode::stale, "the epoch has ended here");
  if (number != 0) {
    std::vector<HotNote> wanted;
    for (const Object& object : objects) wanted.push_back(note_of(set, object));
    std::erase_if(wanted, [&](const HotNote& note) { return is_durable(generations_[number & 1], note); });
    if (!wanted.empty()) {
      if (too_many_waits(set)) wanted = {{HotKind::set, set, {}}};
      HF_TRY(make_durable(lock, number, std::move(wanted)));
    }
  }
  // Meanwhile another generation may have begun: then the cells don't match it, and the caller asks again.
  for (const Object& object : objects) object.cell.store(number, std::memory_order_release);
  return {};
}

Status HotSet::with_whole_set(SetNumber set, const std::function<Status()>& body) {
  for (;;) {
    Guard guard;
    hold(guard);
    Lock lock(mutex_);
    const std::uint32_t number = generation();
    if (sealed_ && header_.epoch != Epoch(0)) return fail(ErrorCode::stale, "the epoch has ended here");
    if (sealed_ || number == 0 || generations_[number & 1].whole.contains(set)) {
      // Noted in the present generation; the guard holds that one or the one before, which is dropped first.
      lock.unlock();
      return body();
    }
    HF_TRY(make_durable(lock, number, {{HotKind::set, set, {}}}));
  }
}

// --- ids of what is made

Result<FileId> HotSet::fresh(SetNumber set) {
  for (;;) {
    {
      const std::lock_guard lock(block_mutex_);
      if (block_.next >= ids_in_block && ahead_ && ahead_->generation >= block_.generation) {
        block_ = *ahead_;
        ahead_.reset();
      }
      // Its generation is the present one or a later one, so its note lives at least as long as those of the caller's guard.
      if (block_.generation != 0 && block_.next < ids_in_block) {
        const FileId id = id_in_block(block_.base, block_.next);
        if (++block_.next == ids_in_block / 4 * 3) {
          const std::lock_guard due(due_mutex_);
          due_ = true;
          due_cv_.notify_all();
        }
        return id;
      }
    }
    Lock lock(mutex_);
    const std::uint32_t number = generation();
    if (sealed_) return fail(ErrorCode::stale, "the epoch has ended here");
    if (number == 0) {
      lock.unlock();
      return ports_.unused_block();
    }
    if (Status used = use_block(lock, number); !used) {
      if (used.error().code != ErrorCode::no_space || failed_) return tl::unexpected(used.error());
      HF_TRY(make_durable(lock, number, {{HotKind::set, set, {}}}));
      lock.unlock();
      return ports_.unused_block();
    }
  }
}

// The next block, noted and ready to be used.
Status HotSet::use_block(Lock& lock, std::uint32_t number) {
  lock.unlock();
  auto base = ports_.unused_block();
  lock.lock();
  if (!base) return tl::unexpected(std::move(base).error());
  HF_TRY(make_durable(lock, number, {{HotKind::block, 0, *base}}));
  if (generations_[number & 1].number != number) return {};  // dropped meanwhile: so is the note
  const std::lock_guard blocks(block_mutex_);
  if (block_.generation > number) return {};  // a younger generation has one already, whose note lives longer
  if (block_.generation < number || block_.next >= ids_in_block) {
    // What is left of the blocks of an older generation goes with it: its note does not live long enough.
    if (block_.generation < number) ahead_.reset();
    block_ = {number, *base, 0};
  } else if (block_.generation == number && !ahead_) {
    ahead_ = Block{number, *base, 0};
  }
  return {};
}

Status HotSet::prepare_block() {
  {
    const std::lock_guard lock(block_mutex_);
    if (block_.generation == 0 || block_.next < ids_in_block / 4 * 3 || ahead_) return {};
  }
  Lock lock(mutex_);
  const std::uint32_t number = generation();
  if (number == 0 || sealed_) return {};
  Status used = use_block(lock, number);
  if (!used && used.error().code == ErrorCode::no_space && !failed_)
    return {};  // the set is noted as a whole when it comes to it
  return used;
}

// --- epochs and generations

Result<HotMark> HotSet::draw(Epoch epoch) {
  HF_ASSIGN(const FileId random, ports_.unused_block());
  const Lock lock(mutex_);
  return HotMark{epoch, crc32c(random.bytes) | 1U, highest_};
}

HotMark HotSet::mark_now() const {
  const Lock lock(mutex_);
  return {header_.epoch, header_.drawn, highest_};
}

bool HotSet::is_of(const HotMark& mark) const {
  const Lock lock(mutex_);
  return header_.epoch == mark.epoch && header_.drawn == mark.drawn && !sealed_;
}

Status HotSet::begin(const HotMark& mark, Position covered) {
  Lock lock(mutex_);
  hold_file(lock);
  CHECK(mark.released == highest_, "a mark of generation {}, and the newest one is {}", mark.released, highest_);
  const std::uint32_t number = highest_ + 1;
  const Status written = write_header(lock, {0, mark.epoch, mark.released, mark.drawn, covered});
  if (written) {
    left_over_.clear();
    queue_.clear();
    waits_.clear();
    generations_[0] = generations_[1] = {};
    generations_[number & 1].number = highest_ = number;
    closing_ = 0;
    sealed_ = false;
    const std::lock_guard blocks(block_mutex_);
    block_ = {};
    ahead_.reset();
  }
  give_file();
  HF_TRY(written);
  HF_TRY(use_block(lock, number));
  set_generation(number);
  return {};
}

Status HotSet::end(Position covered) {
  Lock lock(mutex_);
  hold_file(lock);
  const Status written = write_header(lock, {0, Epoch(0), highest_, 0, covered});
  if (written) {
    if (!sealed_) set_generation(0);
    left_over_.clear();
    queue_.clear();
    generations_[0] = generations_[1] = {};
    closing_ = 0;
    const std::lock_guard blocks(block_mutex_);
    block_ = {};
    ahead_.reset();
  }
  give_file();
  return written;
}

void HotSet::seal() {
  const std::lock_guard lock(mutex_);
  if (generation() == 0) return;
  sealed_ = true;
  set_generation(nobodys_generation);
  {
    const std::lock_guard blocks(block_mutex_);
    block_ = {};
    ahead_.reset();
  }
  wake();
}

Result<HotSet::Turn> HotSet::open_next(Epoch epoch) {
  Lock lock(mutex_);
  const std::uint32_t number = generation();
  // Before anything is changed: a turn of an epoch that is over must leave nothing behind in the next one.
  if (number == 0 || sealed_ || header_.epoch != epoch)
    return fail(ErrorCode::stale, "epoch {} has ended", epoch.value);
  CHECK(closing_ == 0, "generation {} of the hot set is not dropped yet", closing_);
  const std::uint32_t next = number + 1;
  CHECK(generations_[next & 1].number == 0, "three generations of the hot set");
  generations_[next & 1].number = highest_ = next;
  closing_ = number;
  HF_TRY(use_block(lock, next));
  if (header_.epoch != epoch || closing_ != number || sealed_) return fail(ErrorCode::stale, "the epoch has ended");
  set_generation(next);
  return Turn{{epoch, header_.drawn, number}};
}

void HotSet::wake() {
  wake_left();
  const std::lock_guard due(due_mutex_);
  due_ = true;
  due_cv_.notify_all();
}

Status HotSet::drop(const Turn& turn, Position covered) {
  Lock lock(mutex_);
  hold_file(lock);
  Status done;
  const HotMark& mark = turn.mark;
  if (header_.epoch != mark.epoch || closing_ != mark.released || sealed_)
    done = fail(ErrorCode::stale, "epoch {} has ended", mark.epoch.value);
  else
    done = write_header(lock, {0, mark.epoch, mark.released, mark.drawn, covered});
  if (done) {
    generations_[mark.released & 1] = {};
    closing_ = 0;
  }
  give_file();
  return done;
}

bool HotSet::wait_due(int wait_ms) {
  {
    std::unique_lock due(due_mutex_);
    due_cv_.wait_for(due, std::chrono::milliseconds(wait_ms), [&] { return due_; });
    due_ = false;
  }
  const std::lock_guard lock(mutex_);
  return closing_ == 0 && scarce_locked();
}

bool HotSet::scarce() const {
  const std::lock_guard lock(mutex_);
  return scarce_locked();
}

bool HotSet::scarce_locked() const {
  const std::uint32_t number = generation();
  return number != 0 && !sealed_ && generations_[number & 1].used >= limit(HotKind::file) / 4 * 3;
}

HotStatus HotSet::status() const {
  const std::lock_guard lock(mutex_);
  HotStatus s;
  s.generation = sealed_ ? 0 : generation();
  s.slots = options_.slots;
  s.commits = commits_;
  s.notes = notes_;
  s.releasing = closing_ != 0;
  if (s.generation == 0) return s;
  std::set<SetNumber> whole;
  for (const Generation& g : generations_) {
    s.used += g.used;
    whole.insert(g.whole.begin(), g.whole.end());
  }
  s.whole.assign(whole.begin(), whole.end());
  return s;
}

}  // namespace holdfast::mirror
