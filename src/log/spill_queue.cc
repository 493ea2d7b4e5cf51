// SPDX-License-Identifier: Apache-2.0
#include "log/spill_queue.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "log/record_codec.h"

namespace holdfast::log {

Result<SpillQueue::Batch> SpillQueue::write(Batch batch, ByteView records, std::uint64_t limit_bytes) {
  const std::uint64_t need = group_head_bytes + records.size();
  CHECK(need <= segment_bytes_ && records.size() <= max_group_bytes, "a batch of {} bytes in segments of {}",
        records.size(), segment_bytes_);
  if (!file_ || used_ + need > segment_bytes_) {
    if ((on_disk_.size() + 1) * segment_bytes_ > limit_bytes)
      return fail(ErrorCode::refused, "its bound of {} MiB is reached", limit_bytes >> 20);
    HF_ASSIGN(std::shared_ptr<ports::SegmentFile> file, store_->create(last_number_ + 1, segment_bytes_));
    file_ = std::move(file);
    used_ = 0;
    on_disk_.push_back(++last_number_);
    segment_count_ = on_disk_.size();
  }
  std::array<std::uint8_t, group_head_bytes> head;
  encode({static_cast<std::uint32_t>(records.size()), batch.count, batch.first.sequence, batch.last.sequence, {}},
         head.data());
  const std::array<ByteView, 2> pieces = {ByteView(head), records};
  HF_TRY(file_->write_at(used_, pieces));
  batch.segment = last_number_;
  batch.offset = used_;
  batch.bytes = records.size();
  batch.file = file_;
  used_ += need;
  return batch;
}

std::vector<std::uint64_t> SpillQueue::take_given_up() {
  const auto needed =
      batches_.empty() ? on_disk_.end() : std::lower_bound(on_disk_.begin(), on_disk_.end(), batches_.front().segment);
  std::vector<std::uint64_t> given_up(on_disk_.begin(), needed);
  on_disk_.erase(on_disk_.begin(), needed);
  if (on_disk_.empty()) file_.reset();
  return given_up;
}

Status SpillQueue::remove(const std::vector<std::uint64_t>& segments) {
  Status status;
  std::vector<std::uint64_t> left;
  for (const std::uint64_t number : segments) {
    if (Status removed = store_->remove(number); !removed) {
      status = removed;
      left.push_back(number);
    }
  }
  on_disk_.insert(on_disk_.begin(), left.begin(), left.end());
  segment_count_ = on_disk_.size();
  return status;
}

void SpillQueue::add(Batch batch) {
  CHECK(batches_.empty() || batch.first.sequence == back().last.sequence.next(), "sequence {} is spilled after {}",
        batch.first.sequence.value, back().last.sequence.value);
  bytes_ += batch.bytes;
  batches_.push_back(std::move(batch));
}

void SpillQueue::trim(Sequence upto) {
  for (; !batches_.empty() && batches_.front().last.sequence <= upto; batches_.pop_front())
    bytes_ -= batches_.front().bytes;
}

void SpillQueue::clear() {
  batches_.clear();
  bytes_ = 0;
}

const SpillQueue::Batch* SpillQueue::find(Sequence sequence) const {
  const auto it = std::lower_bound(batches_.begin(), batches_.end(), sequence,
                                   [](const Batch& b, Sequence s) { return b.last.sequence < s; });
  return it == batches_.end() || it->first.sequence > sequence ? nullptr : &*it;
}

Result<Bytes> SpillQueue::read(const Batch& batch) {
  std::array<std::uint8_t, group_head_bytes> head_bytes;
  Bytes records(batch.bytes);
  HF_ASSIGN(const std::size_t head_read, batch.file->read_at(batch.offset, head_bytes));
  HF_ASSIGN(const std::size_t read, batch.file->read_at(batch.offset + group_head_bytes, records));
  GroupHead head;
  bool sound = head_read == head_bytes.size() && read == records.size() && decode_group_head(head_bytes, head) &&
               head.first == batch.first.sequence && head.last == batch.last.sequence && head.count == batch.count;
  Position last = batch.before;
  for (ByteView rest = records; sound && !rest.empty();) {
    RecordHead record;
    sound =
        inspect(rest, record) == Found::record && record.sequence == last.sequence.next() && record.epoch >= last.epoch;
    last = {record.epoch, record.sequence};
    rest = rest.subspan(record.length);
  }
  if (!sound || last != batch.last)
    return fail(ErrorCode::corrupt, "what was written to its segment {} at {} reads otherwise", batch.segment,
                batch.offset);
  return records;
}

}  // namespace holdfast::log
