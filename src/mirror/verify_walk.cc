// SPDX-License-Identifier: Apache-2.0
// The walk and what it asks. Answers, findings and repairs: verify_repair.cc.
#include "mirror/verify_walk.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "log/hash.h"
#include "log/record_codec.h"
#include "log/ship.h"
#include "log/xattrs.h"
#include "mirror/file_type.h"
#include "mirror/node_record.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

constexpr std::uint64_t object_cost = 4096;
constexpr std::size_t listing_room = 64 * 1024;
constexpr std::size_t range_room = 64;
constexpr int skipped_blocks_a_step = 4096;  // of a sample, under one lock
// A time stamp that the kernel's cache still owns comes by itself, after the write: within its write-back, which is half a minute.
constexpr std::int64_t settled_ns = 120'000'000'000;
constexpr std::uint64_t most_not_compared = 100'000;

std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// As the passive's Tree::read_xattrs orders them.
Result<log::ContentHash> hash_of_xattrs(ByteView list) {
  HF_ASSIGN(auto xattrs, log::decode_xattrs(list));
  std::sort(xattrs.begin(), xattrs.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  Bytes sorted;
  log::encode_xattrs(xattrs, sorted);
  return log::content_hash(sorted);
}

}  // namespace

const char* to_string(VerifyKind kind) {
  return kind == VerifyKind::full ? "full" : kind == VerifyKind::sample ? "sample" : "scrub";
}

VerifyWalk::VerifyWalk(CaptureLog& log, ports::LiveTree& tree, ports::Times& times, VerifyPlan plan,
                       const VerifyPlace& from)
    : log_(log), tree_(tree), times_(times), plan_(plan), buffer_(verify_block_bytes) {
  for (const auto& level : from.levels) {
    Frame frame;
    frame.id = level.id;
    frame.name = level.name;
    frame.cookie = level.cookie;
    frame.index = level.index;
    frame.checked = &level != &from.levels.back() || level.index != 0 || level.cookie != 0;
    frames_.push_back(std::move(frame));
  }
  if (frames_.empty()) {
    frames_.emplace_back();
    frames_.back().id = FileId::root(plan_.set);
  }
  if (!from.file.is_none()) {
    Op rest;
    rest.id = from.file;
    rest.path = path_of(from.file_name);
    rest.stage = Stage::data;
    rest.offset = from.offset;
    ops_.push_back(std::move(rest));
  }
}

std::string VerifyWalk::path_of(const std::string& leaf) const {
  std::string path;
  for (const Frame& frame : frames_)
    if (!frame.name.empty()) path += frame.name + "/";
  return path + leaf;
}

void VerifyWalk::acked(const Ack& ack) { applied_ = std::max(applied_, ack.applied); }

void VerifyWalk::differs(const Differs& d) {
  const auto it = asked_.find(d.sequence);
  if (it != asked_.end() && it->second.op.id == d.file) it->second.what |= d.what;
}

void VerifyWalk::moved(const FileId& id) {
  if (plan_.kind == VerifyKind::scrub || moved_.size() >= max_findings || !moved_.insert(id).second) return;
  Op op;
  op.id = id;
  op.path = id.to_hex();  // its name is not known here
  urgent_.push_back(std::move(op));
}

// A listing that was being said is said from its beginning: the peer may have forgotten it.
void VerifyWalk::session_began() {
  for (auto& entry : asked_) {
    Asked& asked = entry.second;
    const auto said_anew = [&](const Op& op) { return op.begun && op.id == asked.op.id; };
    if (asked.op.task == Task::check_listing && (!asked.last || std::any_of(ops_.begin(), ops_.end(), said_anew))) {
      no_more_pending(asked.op);
      continue;
    }
    urgent_.push_back(std::move(asked.op));
  }
  asked_.clear();
  listing_what_.clear();
  applied_ = Sequence(0);
  for (Op& op : ops_)
    if (op.stage == Stage::listing || op.task == Task::fix_listing) op.begun = false;
}

Result<VerifyWalk::Step> VerifyWalk::step() {
  settle();
  if (too_many()) return Step::done;
  if (not_compared_ > most_not_compared)
    return fail(ErrorCode::unavailable, "the peer can't compare: it says so again and again");
  if (asked_.size() >= max_asked) return Step::waits_for_peer;
  const bool in_listing = !ops_.empty() && ops_.back().begun;
  if (!urgent_.empty() && !in_listing) {
    ops_.push_back(std::move(urgent_.front()));
    urgent_.pop_front();
  }
  if (ops_.empty()) {
    HF_ASSIGN(const bool more, next_op());
    if (!more) return asked_.empty() ? Step::done : Step::waits_for_peer;
    if (ops_.empty()) return Step::worked;
  }
  // By index: what is found may make the vector grow.
  const std::size_t at = ops_.size() - 1;
  auto ran = run(ops_[at]);
  if (!ran) {
    const Op op = std::move(ops_[at]);
    ops_.erase(ops_.begin() + static_cast<long>(at));
    if (ran.error().code == ErrorCode::not_found)
      gone(op);
    else if (ran.error().code == ErrorCode::io)
      unreadable_here(op, ran.error().message);
    else
      return tl::unexpected(std::move(ran).error());
    return Step::worked;
  }
  if (!*ran) return Step::waits_for_space;
  if (ops_[at].stage == Stage::finished) {
    no_more_pending(ops_[at]);
    ops_.erase(ops_.begin() + static_cast<long>(at));
  }
  return Step::worked;
}

// The next object of the walk becomes an op. False: the walk is at its end.
Result<bool> VerifyWalk::next_op() {
  while (!frames_.empty()) {
    Frame& frame = frames_.back();
    if (!std::exchange(frame.checked, true)) {
      Op op;
      op.id = frame.id;
      op.path = path_of("");
      ops_.push_back(std::move(op));
      return true;
    }
    if (!frame.loaded) {
      frame.entries.clear();
      Status listed = tree_.with_object(plan_.set, frame.id, [&](ports::LiveObject& object) -> Status {
        HF_ASSIGN(auto listing, object.list(frame.cookie, log::max_ship_entries, listing_room));
        frame.entries = std::move(listing.entries);
        frame.next_cookie = listing.cookie;
        frame.end = listing.end;
        return {};
      });
      cost_ += object_cost;
      if (!listed) {  // gone, with what is in it; or found unreadable when it was checked
        frames_.pop_back();
        if (listed.error().code == ErrorCode::not_found || listed.error().code == ErrorCode::io) continue;
        return tl::unexpected(std::move(listed).error());
      }
      frame.loaded = true;
      return true;
    }
    if (frame.index < frame.entries.size()) {
      const ports::TreeEntry entry = frame.entries[frame.index++];
      if (is_folder(entry.mode)) {
        Frame below;
        below.id = entry.id;
        below.name = entry.name;
        frames_.push_back(std::move(below));
        continue;
      }
      Op op;
      op.id = entry.id;
      op.path = path_of(entry.name);
      op.all = full_folders_.contains(frame.id);
      ops_.push_back(std::move(op));
      return true;
    }
    if (frame.end) {
      frames_.pop_back();
      continue;
    }
    frame.cookie = frame.next_cookie;
    frame.index = 0;
    frame.loaded = false;
  }
  return false;
}

std::optional<VerifyPlace> VerifyWalk::place() const {
  if (!asked_.empty() || !urgent_.empty() || ops_.size() > 1 || frames_.empty()) return std::nullopt;
  VerifyPlace place;
  for (const Frame& frame : frames_)
    place.levels.push_back({frame.id, frame.name, frame.cookie, static_cast<std::uint32_t>(frame.index)});
  if (ops_.empty()) return place;
  const Op& op = ops_.back();
  if (op.task != Task::check || op.phase != Phase::first) return std::nullopt;
  if (op.stage == Stage::data) {
    place.file = op.id;
    place.file_name = op.path.substr(op.path.rfind('/') + 1);
    place.offset = op.offset;
  } else if (place.levels.back().index > 0) {
    --place.levels.back().index;
  }
  return place;
}

Result<bool> VerifyWalk::run(Op& op) {
  switch (op.task) {
    case Task::check:
      if (op.stage == Stage::node) return check_node(op);
      return op.stage == Stage::listing ? check_listing(op) : check_data(op);
    case Task::check_range:
      return check_data(op);
    case Task::check_listing:
      return check_listing(op);
    case Task::fix: {
      HF_ASSIGN(const bool done, fix_node(op.id));
      if (done) op.stage = Stage::finished;
      return done;
    }
    case Task::fix_range:
      return fix_range(op);
    case Task::fix_listing:
      return fix_listing(op);
  }
  return true;
}

// Space before any lock (R22).
Result<bool> VerifyWalk::with_object(const FileId& id, std::size_t room,
                                     const std::function<Status(ports::LiveObject&)>& body) {
  if (!log_.try_reserve(room)) return false;
  room_ = room;
  Status done = tree_.with_object(plan_.set, id, body);
  if (room_ != 0) log_.give_back(std::exchange(room_, 0));
  HF_TRY(done);
  cost_ += object_cost;
  return true;
}

Sequence VerifyWalk::append(Record& r) {
  CHECK(room_ != 0, "no space was reserved for {}", log::to_string(r.kind));
  r.set = plan_.set;
  r.addressed_to = plan_.peer;
  return log_.append(r, std::exchange(room_, 0));
}

void VerifyWalk::ask(Record& r, const Op& again, bool last) {
  asked_[append(r)] = {again, last, 0};
  if (again.phase == Phase::after) ++findings_[again.id].pending;
}

Result<bool> VerifyWalk::check_node(Op& op) {
  return with_object(op.id, log::max_target_bytes + sizeof(log::ContentHash), [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    HF_ASSIGN(const Bytes xattrs, object.xattrs());
    HF_ASSIGN(const auto hash, hash_of_xattrs(xattrs));
    std::string target;
    HF_ASSIGN(Record r, node_record(Kind::check_node, op.id, attributes, hash, object, target));
    const std::int64_t age = times_.realtime_ns() - attributes.mtime_ns;
    if (age > settled_ns || age < -settled_ns) r.valid = log::valid_mtime;
    Op again = op;
    again.contents = false;
    ask(r, again);
    if (op.phase == Phase::first) ++objects_;
    op.stage = !op.contents                                                 ? Stage::finished
               : is_folder(attributes.mode)                                 ? Stage::listing
               : is_regular(attributes.mode) && attributes.size > op.offset ? Stage::data
                                                                            : Stage::finished;
    return {};
  });
}

bool VerifyWalk::sampled(const FileId& id, std::uint64_t offset) const {
  std::uint64_t h = plan_.seed;
  for (const std::size_t half : {std::size_t{0}, std::size_t{8}}) {
    std::uint64_t part = 0;
    std::memcpy(&part, id.bytes.data() + half, sizeof part);
    h = mix(h ^ part);
  }
  return mix(h ^ (offset / verify_block_bytes)) % 100 == 0;
}

Result<bool> VerifyWalk::check_data(Op& op) {
  return with_object(op.id, range_room, [&](ports::LiveObject& object) -> Status {
    bool appended = false;
    for (int skipped = 0; !appended && op.stage != Stage::finished && skipped < skipped_blocks_a_step; ++skipped)
      HF_TRY(ask_extent(object, op, appended));
    return {};
  });
}

// One extent from op.offset on: a hole, a hash, or a block that a sample leaves out.
Status VerifyWalk::ask_extent(ports::LiveObject& object, Op& op, bool& appended) {
  HF_ASSIGN(const auto attributes, object.attributes());
  const std::uint64_t end = std::min(op.end, attributes.size);
  if (!is_regular(attributes.mode) || op.offset >= end) {
    op.stage = Stage::finished;
    return {};
  }
  Record r;
  r.kind = Kind::check_data;
  r.file = op.id;
  r.offset = op.offset;
  r.size = attributes.size;
  r.mtime_ns = attributes.mtime_ns;
  Op again = op;
  again.task = Task::check_range;
  again.stage = Stage::data;
  log::ContentHash hash{};
  HF_ASSIGN(const std::uint64_t data, object.next_data(op.offset));
  if (data > op.offset) {
    r.length = std::min(data, end) - op.offset;
  } else {
    HF_ASSIGN(const std::uint64_t hole, object.next_hole(op.offset));
    const std::uint64_t block_end = op.offset - op.offset % verify_block_bytes + verify_block_bytes;
    const std::uint64_t length = std::min({hole, end, block_end}) - op.offset;
    if (plan_.kind == VerifyKind::sample && !op.all && op.phase == Phase::first && !sampled(op.id, op.offset)) {
      op.offset += length;
      return {};
    }
    HF_ASSIGN(const std::size_t n, object.read_aside(op.offset, std::span(buffer_).first(length)));
    if (n == 0) {
      op.stage = Stage::finished;
      return {};
    }
    hash = log::content_hash(ByteView(buffer_).first(n));
    r.length = n;
    r.payload = hash;
    cost_ += n;
    if (op.phase == Phase::first) bytes_ += n;
  }
  again.end = op.offset = r.offset + r.length;
  ask(r, again);
  appended = true;
  if (op.offset >= end) op.stage = Stage::finished;
  return {};
}

Result<bool> VerifyWalk::check_listing(Op& op) {
  if (!op.begun) op.cookie = 0;
  op.stage = Stage::listing;
  return with_object(op.id, listing_room, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    if (!is_folder(attributes.mode)) {
      op.stage = Stage::finished;
      return {};
    }
    HF_ASSIGN(const auto listing, object.list(op.cookie, log::max_ship_entries, listing_room));
    Bytes payload;
    for (const auto& e : listing.entries) log::append_ship_entry(payload, {e.id, e.mode & type_mask, e.name});
    Record r;
    r.kind = Kind::check_dir;
    r.file = op.id;
    r.flags = (op.begun ? 0 : log::flag_first_chunk) | (listing.end ? log::flag_last_chunk : 0);
    r.payload = payload;
    Op again = op;
    again.task = Task::check_listing;
    again.begun = false;
    ask(r, again, listing.end);
    op.begun = !listing.end;
    op.cookie = listing.cookie;
    if (listing.end) op.stage = Stage::finished;
    return {};
  });
}

}  // namespace holdfast::mirror
