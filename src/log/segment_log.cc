// SPDX-License-Identifier: Apache-2.0
#include "log/segment_log.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "log/record_codec.h"

namespace holdfast::log {
namespace {

Status read_exactly(ports::SegmentFile& file, std::uint64_t offset, std::span<std::uint8_t> into) {
  HF_ASSIGN(const std::size_t n, file.read_at(offset, into));
  if (n != into.size())
    return fail(ErrorCode::corrupt, "a log segment is shorter than its header says: this copy must be made anew");
  return {};
}

// Walks the records of a group. False when they don't make up `head`.
bool sound_group(ByteView records, const GroupHead& head, Position& end) {
  Sequence next = head.first;
  Position last = end;
  while (!records.empty()) {
    RecordHead record;
    if (inspect(records, record) != Found::record || record.sequence != next || record.epoch < last.epoch) return false;
    last = {record.epoch, record.sequence};
    next = next.next();
    records = records.subspan(record.length);
  }
  if (last.sequence != head.last) return false;
  end = last;
  return true;
}

}  // namespace

SegmentLog::SegmentLog(ports::SegmentStore& store, std::uint64_t segment_bytes, LogName name)
    : store_(store), segment_bytes_(segment_bytes), name_(std::move(name)) {
  CHECK(segment_bytes_ >= segment_header_bytes + group_head_bytes + max_group_bytes, "segments of {} bytes",
        segment_bytes_);
}

// Files and headers only; what is in them is looked at by scan().
Result<std::vector<SegmentLog::Segment>> SegmentLog::open_segments(Sequence known_durable) {
  HF_ASSIGN(const std::vector<std::uint64_t> numbers, store_.list());
  std::vector<Segment> segments;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    HF_ASSIGN(std::unique_ptr<ports::SegmentFile> file, store_.open(numbers[i]));
    Segment segment;
    segment.file = std::move(file);
    Bytes head(segment_header_bytes);  // zeros where the file ends: it was being made when the disk was full
    HF_ASSIGN([[maybe_unused]] const std::size_t n, segment.file->read_at(0, head));
    auto header = decode_segment_header(head);
    const bool is_last = i + 1 == numbers.size();
    // The crash came between the file's name and its header, which is one sector: it is zeros, or of an earlier life. Nothing can have been
    // appended to it. If something was, the end that is found then lies before `known_durable`, or before what a group of the segment before it
    // says was durable.
    const bool never_begun = header ? header->number != numbers[i]
                                    : std::all_of(head.begin(), head.end(), [](std::uint8_t b) { return b == 0; });
    if (is_last && i > 0 && (never_begun || !header)) {
      Segment& before = segments.back();
      Position end = before.header.before;
      std::uint64_t cut = 0;
      HF_TRY(scan(before, true, known_durable, end, cut));
      if (known_durable <= end.sequence) {
        HF_TRY(store_.remove(numbers[i]));
        break;
      }
    }
    if (is_last && i == 0 && never_begun && known_durable == Sequence(0)) {
      HF_TRY(store_.remove(numbers[i]));
      break;
    }
    if (!header)
      return tl::unexpected(
          with_hint(Error{ErrorCode::corrupt,
                          fmt::format("segment {} of the {}: {}", numbers[i], name_.name, header.error().message),
                          {},
                          0},
                    name_.what_to_do));
    segment.header = *header;
    if (segment.header.number != numbers[i])
      return fail(ErrorCode::corrupt, "segment {} of the {} says it is number {}: {}", numbers[i], name_.name,
                  segment.header.number, name_.what_to_do);
    segments.push_back(std::move(segment));
  }
  return segments;
}

Result<Recovery> SegmentLog::recover(Sequence known_durable, bool trust_closed) {
  segments_.clear();
  Recovery result;
  HF_ASSIGN(std::vector<Segment> found, open_segments(known_durable));
  for (std::size_t i = 0; i < found.size(); ++i) {
    Segment& segment = found[i];
    const bool is_last = i + 1 == found.size();
    if (i == 0) end_ = segment.header.before;
    if (segment.header.before != end_)
      return fail(ErrorCode::corrupt, "segment {} of the {} continues sequence {}, but the one before ends at {}: {}",
                  segment.header.number, name_.name, segment.header.before.sequence.value, end_.sequence.value,
                  name_.what_to_do);
    if (!is_last && (trust_closed || found[i + 1].header.before.sequence <= known_durable)) {
      end_ = found[i + 1].header.before;
      segment.last = end_.sequence;
      segment.used = segment.file->size();
    } else {
      HF_TRY(scan(segment, is_last, known_durable, end_, result.cut_bytes));
    }
    segments_.push_back(std::move(segment));
  }
  result.found = !segments_.empty();
  result.end = end_;
  if (result.found) first_kept_ = segments_.front().header.first_sequence.value;
  if (result.found && end_.sequence < known_durable)
    return fail(ErrorCode::corrupt, "the {} ends at sequence {}, but {} was durable once: {}", name_.name,
                end_.sequence.value, known_durable.value, name_.what_to_do);
  durable_ = end_.sequence.value;
  unsynced_ = true;  // what the last life wrote may sit in the page cache only: the first sync covers it
  if (result.found) HF_TRY(sync());
  return result;
}

Result<bool> SegmentLog::scan(Segment& segment, bool is_last, Sequence known_durable, Position& end,
                              std::uint64_t& cut) {
  Bytes content(segment.file->size());
  HF_TRY(read_exactly(*segment.file, 0, content));
  std::size_t at = segment_header_bytes;
  for (;;) {
    GroupHead head;
    const ByteView rest = ByteView(content).subspan(at);
    Position after = end;
    if (rest.size() < group_head_bytes || !decode_group_head(rest, head) || head.first != end.sequence.next() ||
        head.length > rest.size() - group_head_bytes ||
        !sound_group(rest.subspan(group_head_bytes, head.length), head, after))
      break;
    end = after;
    at += group_head_bytes + head.length;
  }
  segment.used = at;
  segment.last = end.sequence;
  HF_TRY(judge_tail(segment, content, at, end.sequence.next(), is_last, known_durable, cut));
  if (is_last && cut > 0) HF_TRY(zero_tail(segment, content, at));
  return true;
}

// Truth table of what follows the last sound group (expected = the sequence that is missing):
//   a later sound group of this life says synced >= expected, or the checkpoint does   -> damage: stop
//   not the last segment, and the next one does not continue here                      -> damage (recover() compares `before`)
//   no head of a group of this life                                                    -> clean end (zeros, or an earlier life's bytes)
//   heads of this life, which nothing proves to have been durable                      -> torn tail: cut
Status SegmentLog::judge_tail(const Segment& segment, ByteView content, std::size_t at, Sequence expected, bool is_last,
                              Sequence known_durable, std::uint64_t& cut) {
  bool proven = known_durable >= expected && is_last;
  bool written_in_this_life = false;
  for (std::size_t i = at; i + group_head_bytes <= content.size() && !proven; i += 8) {
    GroupHead head;
    if (content[i] != 'H' || !decode_group_head(content.subspan(i), head)) continue;
    if (head.first < segment.header.first_sequence) continue;  // an earlier life
    written_in_this_life = true;
    proven = head.synced >= expected;
  }
  if (proven)
    return fail(ErrorCode::corrupt,
                "segment {} of the {} is damaged at byte {}: sequence {} was durable and cannot be read: {}",
                segment.header.number, name_.name, at, expected.value, name_.what_to_do);
  if (written_in_this_life) cut = content.size() - at;
  return {};
}

// Torn bytes must not come back to life behind records that will be written over their first part.
Status SegmentLog::zero_tail(Segment& segment, ByteView content, std::size_t at) {
  const Bytes zeros(content.size() - at);
  const ByteView piece(zeros);
  HF_TRY(segment.file->write_at(at, {&piece, 1}));
  log_info("{}: an incomplete tail after sequence {} was cut", name_.name, segment.last.value);
  return segment.file->sync();
}

// The reader's thread may drop segments at the other end meanwhile; the last one stays where it is.
SegmentLog::Segment* SegmentLog::last_segment() {
  const std::lock_guard lock(segments_mutex_);
  return segments_.empty() ? nullptr : &segments_.back();
}

Status SegmentLog::reset(Position position) {
  {
    const std::lock_guard lock(segments_mutex_);
    segments_.clear();
  }
  HF_TRY(store_.remove_all());
  end_ = position;
  durable_ = position.sequence.value;
  unsynced_ = false;
  read_number_ = 0;
  first_kept_ = position.sequence.value + 1;
  return add_segment(position);
}

Status SegmentLog::add_segment(Position before) {
  Segment segment;
  segment.header = {last_segment() ? last_segment()->header.number + 1 : 1, before.sequence.next(), before,
                    segment_bytes_};
  segment.last = before.sequence;
  HF_ASSIGN(std::unique_ptr<ports::SegmentFile> file, store_.create(segment.header.number, segment_bytes_));
  segment.file = std::move(file);
  Bytes header = encode(segment.header);
  const ByteView piece(header);
  if (Status written = segment.file->write_at(0, {&piece, 1}); !written) {
    if (written.error().code == ErrorCode::no_space) HF_TRY(store_.remove(segment.header.number));
    return written;
  }
  HF_TRY(segment.file->sync());
  const std::lock_guard lock(segments_mutex_);
  segments_.push_back(std::move(segment));
  return {};
}

Status SegmentLog::append(ByteView records, std::uint32_t count, Position last) {
  CHECK(last_segment() != nullptr && records.size() <= max_group_bytes &&
            last.sequence.value == end_.sequence.value + count,
        "append of {} records to sequence {} at {}", count, last.sequence.value, end_.sequence.value);
  if (last_segment()->used + group_head_bytes + records.size() > segment_bytes_) {
    HF_TRY(sync());  // a later segment's existence proves that the earlier ones are durable
    HF_TRY(add_segment(end_));
  }
  Segment& segment = *last_segment();
  std::uint8_t head[group_head_bytes];
  encode(GroupHead{static_cast<std::uint32_t>(records.size()), count, end_.sequence.next(), last.sequence, durable()},
         head);
  const ByteView pieces[2] = {{head, sizeof head}, records};
  HF_TRY(segment.file->write_at(segment.used, pieces));
  last_place_ = {segment.header.number, segment.used};
  {
    const std::lock_guard lock(segments_mutex_);
    segment.used += sizeof head + records.size();
    segment.last = last.sequence;
  }
  end_ = last;
  unsynced_ = true;
  return {};
}

Status SegmentLog::sync() {
  if (!unsynced_) return {};
  HF_TRY(last_segment()->file->sync());
  unsynced_ = false;
  durable_ = end_.sequence.value;
  return {};
}

Status SegmentLog::rotate() {
  if (last_segment()->used == segment_header_bytes) return {};
  HF_TRY(sync());
  return add_segment(end_);
}

Result<Bytes> SegmentLog::read(Sequence after, std::size_t max_bytes) {
  Bytes out;
  const Sequence until = durable();
  Sequence next = after.next();
  if (read_number_ == 0 || read_next_ != next) {  // find the place; scanning a segment's group heads is cheap
    const std::lock_guard lock(segments_mutex_);
    read_number_ = 0;
    for (const auto& s : segments_)
      if (s.header.first_sequence <= next) read_number_ = s.header.number;
    if (read_number_ == 0)
      return fail(ErrorCode::corrupt, "the {} no longer holds sequence {}", name_.name, next.value);
    read_offset_ = segment_header_bytes;
  }
  while (next <= until && out.size() < max_bytes) {
    std::shared_ptr<ports::SegmentFile> file;
    std::uint64_t used = 0;
    Sequence last;
    bool has_next = false;
    {
      const std::lock_guard lock(segments_mutex_);
      for (const auto& s : segments_) {
        if (s.header.number == read_number_) file = s.file, used = s.used, last = s.last;
        if (s.header.number == read_number_ + 1) has_next = true;
      }
    }
    if (!file) return fail(ErrorCode::corrupt, "segment {} of the {} is gone", read_number_, name_.name);
    if (read_offset_ >= used || (has_next && next > last)) {
      if (!has_next) break;
      ++read_number_;
      read_offset_ = segment_header_bytes;
      continue;
    }
    std::uint8_t head_bytes[group_head_bytes];
    HF_TRY(read_exactly(*file, read_offset_, head_bytes));
    GroupHead head;
    if (!decode_group_head(head_bytes, head))
      return fail(ErrorCode::corrupt, "segment {} of the {} is damaged at byte {}: {}", read_number_, name_.name,
                  read_offset_, name_.what_to_do);
    if (head.last > until) break;
    if (head.last >= next) {
      const std::size_t at = out.size();
      out.resize(at + head.length);
      HF_TRY(read_exactly(*file, read_offset_ + group_head_bytes, std::span(out).subspan(at)));
      Position before{Epoch(0), head.first.value == 0 ? Sequence(0) : Sequence(head.first.value - 1)};
      if (!sound_group(ByteView(out).subspan(at), head, before))
        return fail(ErrorCode::corrupt, "segment {} of the {} is damaged after byte {} (sequences {} to {}): {}",
                    read_number_, name_.name, read_offset_, head.first.value, head.last.value, name_.what_to_do);
      next = head.last.next();
    }
    read_offset_ += group_head_bytes + head.length;
  }
  read_next_ = next;
  return out;
}

Status SegmentLog::trim(Sequence applied) {
  for (;;) {
    std::uint64_t number = 0;
    {
      const std::lock_guard lock(segments_mutex_);
      if (segments_.size() < 2 || segments_.front().last > applied || segments_.front().header.number == read_number_)
        return {};
      number = segments_.front().header.number;
      first_kept_ = segments_[1].header.first_sequence.value;
    }
    HF_TRY(store_.remove(number));
    const std::lock_guard lock(segments_mutex_);
    segments_.pop_front();
  }
}

Result<std::optional<Group>> SegmentLog::read_group(Place& at) {
  for (;;) {
    std::shared_ptr<ports::SegmentFile> file;
    std::uint64_t used = 0;
    Sequence last;
    bool has_next = false;
    {
      const std::lock_guard lock(segments_mutex_);
      for (const auto& s : segments_) {
        if (s.header.number == at.segment) file = s.file, used = s.used, last = s.last;
        if (s.header.number == at.segment + 1) has_next = true;
      }
    }
    if (!file) return fail(ErrorCode::not_found, "segment {} of the {} was given up", at.segment, name_.name);
    Group group;
    std::uint8_t head_bytes[group_head_bytes];
    bool sound = false;
    if (at.offset + group_head_bytes <= used) {
      HF_TRY(read_exactly(*file, at.offset, head_bytes));
      sound = decode_group_head(head_bytes, group.head) && group.head.last <= last &&
              at.offset + group_head_bytes + group.head.length <= used;
    }
    if (at.offset >= used) {
      if (!has_next) return std::optional<Group>{};
      at = {at.segment + 1, segment_header_bytes};
      continue;
    }
    if (sound) {
      group.records.resize(group.head.length);
      HF_TRY(read_exactly(*file, at.offset + group_head_bytes, group.records));
      Position before{Epoch(0), group.head.first};
      sound = sound_group(group.records, group.head, before);
    }
    if (!sound)
      return fail(ErrorCode::corrupt, "segment {} of the {} is damaged at byte {}: {}", at.segment, name_.name,
                  at.offset, name_.what_to_do);
    // Behind the last group of a segment that was not read at the start there may be bytes of an earlier life: never looked at.
    at = has_next && group.head.last == last ? Place{at.segment + 1, segment_header_bytes}
                                             : Place{at.segment, at.offset + group_head_bytes + group.head.length};
    return std::optional(std::move(group));
  }
}

Status SegmentLog::for_each_group(std::size_t start_bytes, const GroupVisit& visit) {
  std::vector<Segment> segments;
  {
    const std::lock_guard lock(segments_mutex_);
    segments.assign(segments_.begin(), segments_.end());
  }
  Bytes bytes(group_head_bytes + start_bytes);
  for (const auto& s : segments) {
    Sequence next = s.header.first_sequence;
    for (std::uint64_t at = segment_header_bytes; next <= s.last;) {
      HF_ASSIGN(const std::size_t n, s.file->read_at(at, bytes));
      GroupHead head;
      if (n < group_head_bytes || !decode_group_head(ByteView(bytes).first(n), head) || head.first != next ||
          head.last > s.last)
        return fail(ErrorCode::corrupt, "segment {} of the {} is damaged at byte {}: {}", s.header.number, name_.name,
                    at, name_.what_to_do);
      HF_TRY(visit({s.header.number, at}, head,
                   ByteView(bytes).first(n).subspan(group_head_bytes,
                                                    std::min<std::size_t>(n - group_head_bytes, head.length))));
      next = head.last.next();
      at += group_head_bytes + head.length;
    }
  }
  return {};
}

std::optional<Sequence> SegmentLog::oldest_segment_end() const {
  const std::lock_guard lock(segments_mutex_);
  return segments_.size() < 2 ? std::nullopt : std::optional(segments_.front().last);
}

std::uint64_t SegmentLog::size_bytes() const {
  const std::lock_guard lock(segments_mutex_);
  return segments_.size() * segment_bytes_;
}

std::uint64_t SegmentLog::size_bytes_below(Sequence applied) const {
  const std::lock_guard lock(segments_mutex_);
  std::uint64_t n = 0;
  for (std::size_t i = 0; i + 1 < segments_.size() && segments_[i].last <= applied; ++i) ++n;
  return n * segment_bytes_;
}

}  // namespace holdfast::log
