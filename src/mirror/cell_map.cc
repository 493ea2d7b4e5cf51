// SPDX-License-Identifier: Apache-2.0
#include "mirror/cell_map.h"

#include <algorithm>

namespace holdfast::mirror {

using log::Kind;

namespace {
constexpr std::size_t bytes_of_a_cell = 128;
}

Result<std::optional<CellMap>> CellMap::merge(UndoJournal& journal, std::uint64_t from, CellPart part,
                                              std::size_t most) {
  CellMap map;
  const Status read = journal.read(from, [&](const UndoBatch&, const log::Record& r) -> Status {
    if (r.kind == Kind::undo_name ? !part.has(r.parent, r.name) : !part.has(r.file)) return {};
    if (r.kind == Kind::undo_name) {
      if (map.sets[r.set].names.try_emplace({r.parent, std::string(r.name)}, SetCells::Name{r.file, r.mode}).second)
        map.cells += 1 + r.name.size() / bytes_of_a_cell;
    } else if (r.kind == Kind::undo_object) {
      auto [it, fresh] = map.sets[r.set].objects.try_emplace(r.file);
      if (fresh) {
        auto& a = it->second.attributes;
        it->second.absent = (r.flags & log::flag_absent) != 0;
        a.size = r.length, a.mode = r.mode, a.uid = r.uid, a.gid = r.gid;
        a.mtime_ns = r.mtime_ns, a.atime_ns = r.atime_ns;
        it->second.xattrs.assign(r.payload.begin(), r.payload.end());
        map.cells += 1 + r.payload.size() / bytes_of_a_cell;
      }
    } else if (r.kind == Kind::undo_bytes || r.kind == Kind::undo_hole) {
      // The object's cell stands before its data. A later batch may hold old bytes of what an earlier one appended: not within the old size.
      auto& object = map.sets[r.set].objects[r.file];
      const std::size_t before = object.data.size();
      const std::uint64_t length = r.kind == Kind::undo_bytes ? r.payload.size() : r.length;
      if (!object.absent) object.data.add(r.offset, std::min(r.offset + length, object.attributes.size));
      map.cells += object.data.size() - std::min(before, object.data.size());
      map.data_bytes += r.payload.size();
    }
    if (map.cells > most) return fail(ErrorCode::busy, "more than {} cells", most);
    return {};
  });
  if (map.cells > most) return std::optional<CellMap>();
  HF_TRY(read);
  return std::optional<CellMap>(std::move(map));
}

}  // namespace holdfast::mirror
