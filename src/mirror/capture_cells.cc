// SPDX-License-Identifier: Apache-2.0
#include "mirror/capture_cells.h"

#include <algorithm>

#include "mirror/file_type.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint64_t big_range_bytes = std::uint64_t{1} << 20;
constexpr std::uint64_t ask_again_bytes = std::uint64_t{64} << 20;

}  // namespace

Status CellCapture::add(const Cell& cell) {
  ++captured_;
  return undo_.add(cell);
}

Status CellCapture::object(const FileId& id) {
  CoveredSet& set = covered_[tree_.set()];
  if (set.objects.contains(id)) return {};
  ObjectCell cell{tree_.set(), id, false, {}, {}};
  HF_ASSIGN(const auto there, tree_.attributes(id));
  if (there) {
    cell.attributes = *there;
    HF_ASSIGN(cell.xattrs, tree_.read_xattrs(id));
  } else {
    cell.absent = true;
  }
  HF_TRY(add(cell));
  set.objects[id] = {cell.absent, there && is_regular(there->mode) ? there->size : 0, {}};
  return {};
}

Status CellCapture::name(const FileId& dir, std::string_view name) {
  CoveredSet& set = covered_[tree_.set()];
  auto& names = set.names[dir];
  if (names.contains(std::string(name))) return {};
  NameCell cell{tree_.set(), dir, std::string(name), {}, 0};
  // A folder that was not there before the batch had no names, whatever stands in it by now.
  const auto covered_dir = set.objects.find(dir);
  bool had_names = covered_dir == set.objects.end() || !covered_dir->second.absent;
  if (had_names) {
    HF_ASSIGN(const auto there, tree_.attributes(dir));
    had_names = there.has_value();
  }
  if (had_names) {
    HF_ASSIGN(const auto found, tree_.lookup(dir, name));
    if (found) {
      cell.id = found->id;
      cell.type = found->mode & type_mask;
    }
    if (found && cell.id.is_none()) {
      HF_ASSIGN(cell.id, tree_.identify(dir, name));
    }
  }
  HF_TRY(add(cell));
  names.emplace(name);
  return {};
}

Status CellCapture::entry(const FileId& dir, std::string_view entry_name) {
  HF_TRY(object(dir));
  return name(dir, entry_name);
}

Status CellCapture::data(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  HF_TRY(object(id));
  auto& object = covered_[tree_.set()].objects[id];
  const std::uint64_t end = length > object.size || offset > object.size - length ? object.size : offset + length;
  if (object.absent || offset >= end) return {};
  HF_TRY(object.data.for_each_missing<Status>(
      offset, end, [&](std::uint64_t b, std::uint64_t e) -> Status { return range(id, b, e); }));
  object.data.add(offset, end);
  return {};
}

// Looks for extents only, and no further than to what is refused: a file may have millions of them.
Result<std::uint64_t> CellCapture::estimate(const ports::Touches& touches) {
  std::unordered_map<FileId, RangeSet> wanted;
  for (const auto& d : touches.data) {
    if (d.length < big_range_bytes) continue;
    HF_ASSIGN(const auto there, tree_.attributes(d.id));
    if (!there || !is_regular(there->mode) || d.offset >= there->size) continue;
    wanted[d.id].add(d.offset, d.offset + std::min(d.length, there->size - d.offset));
  }
  std::uint64_t sum = 0, asked = 0;
  const auto count = [&](const FileId& id, std::uint64_t begin, std::uint64_t end) -> Status {
    while (begin < end) {
      HF_ASSIGN(const std::uint64_t data, tree_.next_data(id, begin));
      if (data >= end) return {};
      begin = std::max(begin, data);
      HF_ASSIGN(std::uint64_t hole, tree_.next_hole(id, begin));
      hole = std::min(hole, end);
      if (hole <= begin) hole = end;
      sum += hole - begin;
      begin = hole;
      if (sum - asked < ask_again_bytes) continue;
      asked = sum;
      HF_TRY(undo_.expect(sum));
    }
    return {};
  };
  const CoveredSet& set = covered_[tree_.set()];
  for (const auto& w : wanted) {
    const FileId& id = w.first;
    const auto covered = set.objects.find(id);
    const bool known = covered != set.objects.end();
    if (known && covered->second.absent) continue;
    for (const auto& [begin, end] : w.second) {
      if (!known) {
        HF_TRY(count(id, begin, end));
        continue;
      }
      HF_TRY(covered->second.data.for_each_missing<Status>(
          begin, std::min(end, covered->second.size),
          [&](std::uint64_t b, std::uint64_t e) -> Status { return count(id, b, e); }));
    }
  }
  return sum;
}

// Holes stay holes: they are noted as such, and punched again.
Status CellCapture::range(const FileId& id, std::uint64_t begin, std::uint64_t end) {
  while (begin < end) {
    HF_ASSIGN(std::uint64_t data, tree_.next_data(id, begin));
    data = std::clamp(data, begin, end);
    if (data > begin) HF_TRY(add(DataCell{tree_.set(), id, begin, data - begin, {}}));
    if (data == end) return {};
    HF_ASSIGN(std::uint64_t hole, tree_.next_hole(id, data));
    hole = std::clamp(hole, data, end);
    if (hole == data) hole = end;
    HF_TRY(bytes(id, data, hole));
    begin = hole;
  }
  return {};
}

Status CellCapture::bytes(const FileId& id, std::uint64_t begin, std::uint64_t end) {
  while (begin < end) {
    const std::size_t n = std::min<std::uint64_t>(end - begin, max_data_cell_bytes);
    buffer_.resize(n);
    HF_ASSIGN(const std::size_t got, tree_.read(id, begin, buffer_));
    if (got != n)
      return fail(ErrorCode::corrupt, "set {}: the object {} ends before byte {}, which undo must keep", tree_.set(),
                  id.to_hex(), begin + n);
    HF_TRY(add(DataCell{tree_.set(), id, begin, n, buffer_}));
    begin += n;
  }
  return {};
}

}  // namespace holdfast::mirror
