// SPDX-License-Identifier: Apache-2.0
// Writing and finding again; what redo needs is in undo_redo.cc, what may be given up in undo_bounds.cc.
#include "mirror/undo_journal.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "log/record_codec.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

constexpr std::uint8_t head_version = 1;
constexpr Epoch journal_epoch{1};
constexpr std::size_t group_target_bytes = std::size_t{2} << 20;  // what is gathered before it is written
// Of a batch's head record; a bigger one (more than 300 sets) is read whole.
constexpr std::size_t head_start_bytes = 1024;
// A history that was given up goes on far above any number that may stand on a grave.
constexpr std::uint64_t number_gap = std::uint64_t{1} << 40;

Bytes encode_head(const UndoHead& h, std::int64_t made_ns, std::uint64_t previous) {
  Bytes out;
  ByteWriter w(out);
  w.u8(head_version);
  w.u8(static_cast<std::uint8_t>(h.why));
  w.u64(h.life);
  for (const Position& p : {h.before, h.after}) {
    w.u64(p.epoch.value);
    w.u64(p.sequence.value);
  }
  w.u64(static_cast<std::uint64_t>(h.first_time_ns));
  w.u64(static_cast<std::uint64_t>(h.last_time_ns));
  w.u64(static_cast<std::uint64_t>(made_ns));
  w.u8(static_cast<std::uint8_t>((h.consistent ? 1 : 0) | (h.unclean ? 2 : 0)));
  w.u64(previous);
  w.u64(h.target);
  for (const auto* sets : {&h.sets, &h.partial}) {
    w.varint(sets->size());
    for (const SetNumber s : *sets) w.u16(s);
  }
  return out;
}

Result<std::uint64_t> decode_head(const log::Record& record, UndoBatch& batch) {  // the number of the one before
  ByteReader r(record.payload);
  const std::uint8_t version = r.u8();
  if (version != head_version)
    return fail(ErrorCode::refused, "undo batch {} is of version {}; this program reads {}", record.sequence.value,
                version, head_version);
  batch.number = record.sequence.value;
  UndoHead& h = batch.head;
  const std::uint8_t why = r.u8();
  h.why = static_cast<BatchWhy>(why);
  h.life = r.u64();
  for (Position* p : {&h.before, &h.after}) {
    p->epoch = Epoch(r.u64());
    p->sequence = Sequence(r.u64());
  }
  h.first_time_ns = static_cast<std::int64_t>(r.u64());
  h.last_time_ns = static_cast<std::int64_t>(r.u64());
  batch.made_ns = static_cast<std::int64_t>(r.u64());
  const std::uint8_t flags = r.u8();
  h.consistent = (flags & 1) != 0;
  h.unclean = (flags & 2) != 0;
  const std::uint64_t previous = r.u64();
  h.target = r.u64();
  for (auto* sets : {&h.sets, &h.partial}) {
    const std::uint64_t n = r.varint();
    for (std::uint64_t i = 0; i < n && r.ok(); ++i) sets->insert(r.u16());
  }
  if (!r.ok() || r.left() || why < static_cast<std::uint8_t>(BatchWhy::apply) ||
      why > static_cast<std::uint8_t>(BatchWhy::jump))
    return fail(ErrorCode::corrupt, "the head of undo batch {} has unsound fields", record.sequence.value);
  return previous;
}

// The records of a group; the group was checked.
template <class F>
Status for_each_record(ByteView records, F&& f) {
  while (!records.empty()) {
    const std::size_t length = log::head_of(records.data()).length;
    HF_ASSIGN(const log::Record record, log::decode(records.first(length)));
    HF_TRY(f(record));
    records = records.subspan(length);
  }
  return {};
}

}  // namespace

UndoJournal::UndoJournal(ports::SegmentStore& store, ports::Times& times, UndoSettings settings,
                         std::uint64_t segment_bytes)
    : store_(store),
      times_(times),
      log_(store, segment_bytes, {"undo history", "earlier points are lost, the history begins anew"}),
      settings_(settings) {}

Result<std::unique_ptr<UndoJournal>> UndoJournal::open(ports::SegmentStore& store, ports::Times& times,
                                                       UndoSettings settings, std::uint64_t segment_bytes, bool on) {
  std::unique_ptr<UndoJournal> made(new UndoJournal(store, times, std::move(settings), segment_bytes));
  if (!on) {
    HF_ASSIGN(const auto segments, store.list());
    if (segments.empty()) return made;
  }
  HF_TRY(made->recover());
  made->opened_ = made->on_ = true;
  return made;
}

// What was kept before the gap stays on the disk only as far as it shares a segment with it.
Status UndoJournal::turn(bool on) {
  if (on == on_) return {};
  if (!opened_) HF_TRY(recover());
  opened_ = true;
  HF_TRY(gap(0, on ? "the history begins here" : "the history was switched off"));
  if (!on) starved_ = hopeless_ = false;
  on_ = on;
  return {};
}

Status UndoJournal::recover() {
  auto recovery = log_.recover(Sequence(0), true);
  if (recovery && !recovery->found) return log_.reset({journal_epoch, Sequence(0)});
  Status indexed = recovery ? build_index() : Status(tl::unexpected(recovery.error()));
  if (indexed) return {};
  if (indexed.error().code != ErrorCode::corrupt) return indexed;
  return start_anew(indexed.error().to_string());
}

Status UndoJournal::start_anew(std::string damage) {
  log_error("{}", damage);
  std::uint64_t highest = 0;
  HF_ASSIGN(const auto numbers, store_.list());
  for (const std::uint64_t n : numbers) {
    HF_ASSIGN(const auto file, store_.open(n));
    Bytes head(log::segment_header_bytes);
    HF_ASSIGN(const std::size_t got, file->read_at(0, head));
    if (got != head.size()) continue;
    if (const auto header = log::decode_segment_header(head))
      highest = std::max(highest, header->before.sequence.value);
  }
  {
    const std::lock_guard lock(mutex_);
    damage_ = std::move(damage);
    batches_.clear();
    gaps_.clear();
  }
  last_is_gap_ = false;
  return log_.reset({journal_epoch, Sequence(highest + number_gap)});
}

// From the heads of groups and of batches; contents are not read, but for the last batch's: is it sealed?
Status UndoJournal::build_index() {
  std::deque<UndoBatch> batches;
  std::deque<UndoGap> gaps;
  bool gap_last = false;
  HF_TRY(log_.for_each_group(head_start_bytes, [&](log::Place place, const log::GroupHead&, ByteView start) -> Status {
    const log::RecordHead head = log::head_of(start.data());
    if (head.kind != Kind::undo_batch && head.kind != Kind::undo_gap) return {};
    log::RecordHead checked;
    std::optional<log::Group> whole;
    if (log::inspect(start, checked) != log::Found::record) {  // cut short, or damaged
      log::Place at = place;
      HF_ASSIGN(whole, log_.read_group(at));
      if (!whole || log::inspect(whole->records, checked) != log::Found::record)
        return fail(ErrorCode::corrupt, "the undo history is damaged at the head of batch {}", head.sequence.value);
      start = whole->records;
    }
    HF_ASSIGN(const log::Record record, log::decode(start.first(checked.length)));
    if (record.kind == Kind::undo_gap) {
      gaps.push_back({record.sequence.value, record.set, std::string(as_text(record.payload)), record.time_ns});
      if (record.set == 0) gap_last = true;
      return {};
    }
    UndoBatch batch;
    batch.place = place;
    HF_ASSIGN(const std::uint64_t previous, decode_head(record, batch));
    while (!batches.empty() && batches.back().number > previous) batches.pop_back();
    batches.push_back(std::move(batch));
    gap_last = false;
    return {};
  }));
  if (!batches.empty()) {
    HF_ASSIGN(const bool sealed, is_sealed(batches.back()));
    // A gap before a void head is still the last thing that counts.
    if (!sealed) {
      batches.pop_back();
      gap_last =
          !gaps.empty() && gaps.back().set == 0 && (batches.empty() || gaps.back().number > batches.back().number);
    }
  }
  const std::lock_guard lock(mutex_);
  batches_ = std::move(batches);
  gaps_ = std::move(gaps);
  last_is_gap_ = gap_last;
  segment_began_ns_ = batches_.empty() ? 0 : batches_.back().made_ns;
  return {};
}

Result<bool> UndoJournal::is_sealed(const UndoBatch& batch) {
  bool sealed = false;
  for (log::Place at = batch.place; !sealed;) {
    HF_ASSIGN(const auto group, log_.read_group(at));
    if (!group) break;
    HF_TRY(for_each_record(group->records, [&](const log::Record& r) -> Status {
      if (r.kind == Kind::undo_seal) sealed = true;
      return {};
    }));
  }
  return sealed;
}

// --- writing

static_assert(group_target_bytes + log::max_record_bytes <= log::max_group_bytes);

Status UndoJournal::append(const log::Record& record) {
  CHECK(record.sequence.value == log_.end().sequence.value + group_count_ + 1, "undo record out of order");
  const Bytes bytes = log::encode(record);
  group_.insert(group_.end(), bytes.begin(), bytes.end());
  ++group_count_;
  open_bytes_ += bytes.size();
  return {};
}

Status UndoJournal::flush_group() {
  if (group_count_ == 0) return {};
  const Position last{journal_epoch, Sequence(log_.end().sequence.value + group_count_)};
  // A full disk is met when a segment is made, before anything is written: what was gathered waits for the next try.
  Status written = log_.append(group_, group_count_, last);
  starved_ = !written && written.error().code == ErrorCode::no_space;
  hopeless_ = false;
  if (!written) return written;
  if (is_open_ && !placed_) {
    open_.place = log_.last_place();
    placed_ = true;
  }
  group_.clear();
  group_count_ = 0;
  return {};
}

namespace {
log::Record record_of(Kind kind, Sequence end, std::uint32_t pending, std::int64_t now) {
  log::Record r;
  r.kind = kind;
  r.epoch = journal_epoch;
  r.sequence = Sequence(end.value + pending + 1);
  r.time_ns = now;
  return r;
}
}  // namespace

Status UndoJournal::write_head(const UndoHead& head) {
  CHECK(group_count_ == 0, "an undo batch begins within a group");
  open_ = {};
  open_.number = log_.end().sequence.value + 1;
  open_.head = head;
  open_.made_ns = times_.realtime_ns();
  is_open_ = true;
  placed_ = sealed_ = has_cells_ = false;
  open_bytes_ = 0;
  std::uint64_t previous = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!batches_.empty()) previous = batches_.back().number;
  }
  const Bytes payload = encode_head(head, open_.made_ns, previous);
  log::Record r = record_of(Kind::undo_batch, log_.end().sequence, 0, open_.made_ns);
  r.payload = payload;
  return append(r);
}

Status UndoJournal::begin(const UndoHead& head) {
  resuming_ = false;
  group_.clear();  // of a batch that was given up for want of space
  group_count_ = 0;
  HF_TRY(check_room(0));
  return write_head(head);
}

Status UndoJournal::check_room(std::uint64_t bytes) {
  starved_ = !has_room(bytes);
  hopeless_ = false;
  if (starved_) return fail(ErrorCode::no_space, "the undo history would take the space that the receive log needs");
  return {};
}

std::uint64_t UndoJournal::most_of_a_batch() const {
  const std::lock_guard lock(mutex_);
  return pins_.empty() ? settings_.max_bytes : std::numeric_limits<std::uint64_t>::max();
}

// What a batch has written when it is refused stays on the disk until the history behind it is left.
Status UndoJournal::expect(std::uint64_t bytes) {
  if (const std::uint64_t most = most_of_a_batch(); open_bytes_ + bytes > most) {
    hopeless_ = starved_ = true;
    return fail(ErrorCode::no_space, "one batch changes more than the undo history may hold ({} MiB)", most >> 20);
  }
  return check_room(bytes);
}

Status UndoJournal::check_size(const Cell& cell) {
  const auto* object = std::get_if<ObjectCell>(&cell);
  const bool too_big = object && object->xattrs.size() > log::max_payload_bytes;
  const std::uint64_t max_bytes = most_of_a_batch();
  hopeless_ = starved_ = too_big || open_bytes_ > max_bytes;
  if (too_big)
    return fail(ErrorCode::no_space,
                "set {}: the extended attributes of the object {} are too big for the undo history", object->set,
                object->id.to_hex());
  if (hopeless_)
    return fail(ErrorCode::no_space, "one batch changes more than the undo history may hold ({} MiB)", max_bytes >> 20);
  return {};
}

Status UndoJournal::add(const Cell& cell) {
  if (resuming_ && !is_open_) {
    UndoHead head = last_batch()->head;
    head.why = BatchWhy::resume;
    head.consistent = false;
    HF_TRY(write_head(head));
  }
  CHECK(is_open_, "an undo cell outside of a batch");
  HF_TRY(check_size(cell));
  if (group_.size() >= group_target_bytes) {
    HF_TRY(check_room(0));
    HF_TRY(flush_group());
  }
  has_cells_ = true;
  log::Record r = record_of(Kind::undo_name, log_.end().sequence, group_count_, open_.made_ns);
  if (const auto* name = std::get_if<NameCell>(&cell)) {
    r.set = name->set;
    r.parent = name->dir;
    r.name = name->name;
    r.file = name->id;
    r.mode = name->type;
    return append(r);
  }
  if (const auto* object = std::get_if<ObjectCell>(&cell)) {
    r.kind = Kind::undo_object;
    r.set = object->set;
    r.file = object->id;
    r.flags = object->absent ? log::flag_absent : 0;
    r.length = object->attributes.size;
    r.mode = object->attributes.mode;
    r.uid = object->attributes.uid;
    r.gid = object->attributes.gid;
    r.mtime_ns = object->attributes.mtime_ns;
    r.atime_ns = object->attributes.atime_ns;
    r.payload = object->xattrs;
    return append(r);
  }
  const auto& data = std::get<DataCell>(cell);
  r.kind = data.bytes.empty() ? Kind::undo_hole : Kind::undo_bytes;
  r.set = data.set;
  r.file = data.id;
  r.offset = data.offset;
  r.length = data.length;
  r.payload = data.bytes;
  return append(r);
}

Status UndoJournal::seal() {
  CHECK(is_open_ && !sealed_, "no undo batch to seal");
  HF_TRY(append(record_of(Kind::undo_seal, log_.end().sequence, group_count_, open_.made_ns)));
  HF_TRY(flush_group());
  if (has_cells_) HF_TRY(log_.sync());
  sealed_ = true;
  last_is_gap_ = false;
  const std::lock_guard lock(mutex_);
  if (segment_began_ns_ == 0) segment_began_ns_ = open_.made_ns;
  batches_.push_back(open_);
  return {};
}

Status UndoJournal::flush_late() {
  if (resuming_ && !is_open_) return {};
  if (!sealed_) {
    if (!resuming_) return {};  // not late: the batch is still being foreseen
    return seal();
  }
  if (group_count_ == 0 && log_.durable() == log_.end().sequence) return {};
  ++late_groups_;
  HF_TRY(flush_group());
  return log_.sync();
}

Status UndoJournal::sync() { return on_ ? log_.sync() : Status{}; }

Status UndoJournal::gap(SetNumber set, std::string_view why) {
  is_open_ = resuming_ = false;
  group_.clear();
  group_count_ = 0;
  if (set == 0 && last_is_gap_) {  // nothing was captured since the last one
    HF_TRY(log_.sync());
    leave_past();
    return {};
  }
  log::Record r = record_of(Kind::undo_gap, log_.end().sequence, 0, times_.realtime_ns());
  r.set = set;
  r.payload = as_bytes(why);
  HF_TRY(append(r));
  if (Status written = flush_group(); !written) {
    if (set != 0 || pinned() || written.error().code != ErrorCode::no_space) return written;
    return begin_anew(fmt::format("{}, and there is no room to say so", why));
  }
  HF_TRY(log_.sync());
  if (set == 0) last_is_gap_ = true;
  log_info("undo history: a gap at {}: {}", r.sequence.value, why);
  {
    const std::lock_guard lock(mutex_);
    gaps_.push_back({r.sequence.value, set, std::string(why), r.time_ns});
  }
  if (set == 0) leave_past();
  return {};
}

// Behind a gap of all sets: nobody can go back over it, so what lies before it goes (shed()), as far as it shares no segment with it. But a way back
// without a way forth executes what it has just written a gap after.
void UndoJournal::leave_past() {
  if (pinned()) return;
  const std::lock_guard lock(mutex_);
  batches_.clear();
  shortened_.reset();
  segment_began_ns_ = 0;
}

// The disk has not even room for a segment: all of the history goes, and a new one begins in the room of it. Oldest first, so that a crash between
// leaves none that ends earlier than it did.
Status UndoJournal::begin_anew(std::string_view why) {
  log_warning("undo history: all of it is given up: {}", why);
  is_open_ = resuming_ = false;
  group_.clear();
  group_count_ = 0;
  HF_TRY(log_.sync());
  HF_TRY(log_.trim(log_.end().sequence));
  HF_TRY(log_.reset({journal_epoch, Sequence(log_.end().sequence.value + number_gap)}));
  starved_ = hopeless_ = last_is_gap_ = false;
  const std::lock_guard lock(mutex_);
  batches_.clear();
  gaps_.clear();
  segment_began_ns_ = 0;
  return {};
}

Status UndoJournal::jump(UndoHead head) {
  if (!on_) return {};
  {
    const std::lock_guard lock(mutex_);
    if (!last_is_gap_ && !batches_.empty() && batches_.back().head.why == BatchWhy::jump &&
        batches_.back().head.after == head.after && batches_.back().head.life == head.life)
      return {};
  }
  head.why = BatchWhy::jump;
  const auto say = [&](bool beside_reserve) -> Status {
    if (beside_reserve) {
      HF_TRY(begin(head));
    } else {
      group_.clear();
      group_count_ = 0;
      HF_TRY(write_head(head));
    }
    return seal();
  };
  Status said = say(true);
  while (!said && said.error().code == ErrorCode::no_space) {
    HF_ASSIGN(const bool dropped, drop_oldest("there was no space for it"));
    if (!dropped) break;
    said = say(true);
  }
  // The log was replaced already, so a node that could not say this would stop for want of history. Its few bytes find room where nothing else
  // may be written any more.
  if (!said && said.error().code == ErrorCode::no_space) said = say(false);
  starved_ = false;
  if (said) return log_.sync();
  if (said.error().code != ErrorCode::no_space) return said;
  return begin_anew("the log went on elsewhere, and there is no room to say so");
}

// --- reading

Status UndoJournal::read(std::uint64_t from, const Visit& visit) {
  std::map<std::uint64_t, UndoBatch> sealed;
  log::Place at;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& b : batches_)
      if (b.number >= from) sealed[b.number] = b;
    if (sealed.empty()) return {};
    at = sealed.begin()->second.place;
  }
  const UndoBatch* current = nullptr;
  for (;;) {
    HF_ASSIGN(const auto group, log_.read_group(at));
    if (!group) return {};
    HF_TRY(for_each_record(group->records, [&](const log::Record& r) -> Status {
      if (r.kind == Kind::undo_batch) {
        const auto it = sealed.find(r.sequence.value);
        current = it == sealed.end() ? nullptr : &it->second;
      }
      if (r.kind == Kind::undo_gap) current = nullptr;
      return current ? visit(*current, r) : Status{};
    }));
  }
}

Status UndoJournal::read_on(log::Place& at,
                            const std::function<Status(const log::Record& record, log::Place group)>& visit) {
  for (;;) {
    const log::Place here = at;
    HF_ASSIGN(const auto group, log_.read_group(at));
    if (!group) return {};
    HF_TRY(for_each_record(group->records, [&](const log::Record& r) { return visit(r, here); }));
  }
}

}  // namespace holdfast::mirror
