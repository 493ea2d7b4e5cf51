// SPDX-License-Identifier: Apache-2.0
#include "mirror/predict.h"

#include "log/ship.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

void entry(ports::Touches& out, const FileId& dir, std::string_view name) {
  out.objects.push_back(dir);
  out.names.emplace_back(dir, name);
}

// A folder that is brought to another place leaves the one where it stands.
Status place(ports::Tree& tree, const FileId& id, ports::Touches& out) {
  if (id.is_none() || id.is_root()) return {};
  HF_ASSIGN(const auto there, tree.attributes(id));
  if (!there || !is_folder(there->mode)) return {};
  HF_ASSIGN(const auto where, tree.place_of(id));
  if (where) entry(out, where->first, where->second);
  return {};
}

Status listing(const log::Record& r, ports::Tree& tree, ports::Touches& out) {
  out.objects.push_back(r.file);
  log::ShipEntryReader reader(r.payload);
  for (;;) {
    HF_ASSIGN(const auto e, reader.next());
    if (!e) return {};
    out.names.emplace_back(r.file, e->name);
    HF_ASSIGN(const auto there, tree.attributes(e->id));
    if (!there) out.objects.push_back(e->id);
    if (there && is_folder(there->mode)) HF_TRY(place(tree, e->id, out));
  }
}

}  // namespace

//   write ship_data               data of the range
//   truncate                      data from the new size on
//   fallocate                     the object; punch, zero: the range; collapse, insert: from the offset on
//   set_attributes xattrs         the object
//   create mkdir symlink mknod    the object (absent), the name, the folder
//   link unlink rmdir rename      the names, the folders
//   ship_node                     data from the new size on
//   ship_dir                      the folder, each name, objects to be made
//   in a resync                   also where each folder that is named stands now
//   repair_*                      as ship_*
//   ship_hash, check_*, marks     nothing
Status predict(const log::Record& r, bool resync, ports::Tree& tree, ports::Touches& out) {
  switch (r.kind) {
    case Kind::write:
      out.data.push_back({r.file, r.offset, r.payload.size()});
      return {};
    case Kind::ship_data:
    case Kind::repair_data:
      out.data.push_back({r.file, r.offset, r.payload.empty() ? r.length : r.payload.size()});
      return {};
    case Kind::truncate:
    case Kind::ship_node:
    case Kind::repair_node:
      out.data.push_back({r.file, r.length, ports::to_end});
      return {};
    case Kind::fallocate:
      if (shifts_range(r.mode_flags))
        out.data.push_back({r.file, r.offset, ports::to_end});
      else if (clears_range(r.mode_flags))
        out.data.push_back({r.file, r.offset, r.length});
      else
        out.objects.push_back(r.file);
      return {};
    case Kind::set_attributes:
    case Kind::set_xattr:
    case Kind::remove_xattr:
      out.objects.push_back(r.file);
      return {};
    case Kind::create:
    case Kind::mkdir:
    case Kind::symlink:
    case Kind::mknod:
      out.objects.push_back(r.file);
      if (!r.parent.is_none()) entry(out, r.parent, r.name);
      return resync ? place(tree, r.file, out) : Status{};
    case Kind::link:
    case Kind::unlink:
    case Kind::rmdir:
      entry(out, r.parent, r.name);
      return resync && r.kind == Kind::link ? place(tree, r.file, out) : Status{};
    case Kind::rename:
      entry(out, r.parent, r.name);
      entry(out, r.parent2, r.name2);
      if (!resync) return {};
      HF_TRY(place(tree, r.file, out));
      return place(tree, r.replaced, out);
    case Kind::ship_dir:
    case Kind::repair_dir:
      return listing(r, tree, out);
    default:
      return {};
  }
}

}  // namespace holdfast::mirror
