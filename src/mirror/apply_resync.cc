// SPDX-License-Identifier: Apache-2.0
#include "mirror/apply_resync.h"

#include <algorithm>

#include "log/ship.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;
using ports::Grave;

Result<bool> ResyncApply::known(const FileId& id) {
  HF_ASSIGN(const auto there, tree_.attributes(id));
  return there.has_value();
}

// A change of, or in, something that is not here. In a full resync it comes with its folder.
Status ResyncApply::skip(const FileId& unknown) {
  if (memory_.partial && memory_.asked.insert(unknown).second) ask(unknown);
  return {};
}

// The object was made without them. In a full resync they come, unless a live change made it when all had been looked at.
void ResyncApply::ask_for_contents(const FileId& id, std::uint64_t offset) {
  memory_.made.insert(id);
  if (memory_.partial) ask(id, offset);
}

void ResyncApply::note_name(const FileId& dir, std::string_view name, bool there) {
  const auto it = memory_.listings.find(dir);
  if (it == memory_.listings.end()) return;
  if (there)
    it->second.emplace(name);
  else
    it->second.erase(std::string(name));
}

Result<bool> ResyncApply::clear(const FileId& dir, std::string_view name, const FileId& keep) {
  HF_ASSIGN(const auto found, tree_.lookup(dir, name));
  if (!found) return false;
  if (!keep.is_none() && found->id == keep) return true;
  // In limbo nobody finds what has no durable id.
  if (staged_.ids_later) HF_TRY(tree_.commit_ids());
  if (!found->id.is_none() && !is_folder(found->mode)) {
    HF_ASSIGN(const auto there, tree_.attributes(found->id));
    if (there && there->links > 1) {  // it stays reachable by another name, in the tree or in limbo
      HF_TRY(tree_.unlink(dir, name));
      return false;
    }
  }
  HF_TRY(tree_.bury(dir, name, found->id, Grave::limbo));
  return false;
}

Status ResyncApply::bring(const FileId& id, const FileId& dir, std::string_view name) {
  Status done = tree_.bring(id, dir, name);
  if (done || done.error().code != ErrorCode::invalid) return done;
  // `dir` still lies below the folder that must come into it: in this tree only. Its own place is asked for: it may have been said already.
  if (staged_.ids_later) HF_TRY(tree_.commit_ids());
  HF_TRY(tree_.set_aside(dir));
  ask(dir, nak_with_parent);
  return tree_.bring(id, dir, name);
}

Status ResyncApply::make_placeholder(const FileId& id, std::uint32_t type, const FileId& dir, std::string_view name) {
  HF_TRY(tree_.stage(id, placeholder(type)));
  HF_TRY(tree_.commit_ids());
  if (is_folder(type)) memory_.bare.insert(id);
  ask_for_contents(id);
  return tree_.place(id, dir, name);
}

// The object stands at the name afterwards, whatever was there; what it is not known to be is asked for again.
Status ResyncApply::put(const FileId& id, std::uint32_t type, const FileId& dir, std::string_view name) {
  HF_ASSIGN(const bool there, clear(dir, name, id));
  if (there) return {};
  HF_ASSIGN(const bool is_known, known(id));
  if (is_known) return bring(id, dir, name);
  if (is_regular(type) || is_folder(type)) return make_placeholder(id, type, dir, name);
  if (memory_.partial) ask(id);  // first: it must be known before it is named
  memory_.relist.insert(dir);
  ask(dir);
  return {};
}

// Names that a crash left done are not done again (apply_ops.h); what was seen of listings is.
Status ResyncApply::apply(const log::Record& r) {
  if (r.kind != Kind::ship_node && r.kind != Kind::ship_dir) staged_.dressed.erase(r.file);
  if (r.kind == Kind::write) {
    HF_ASSIGN(const bool there, known(r.file));
    return there ? batch_.write(r) : skip(r.file);
  }
  HF_TRY(batch_.flush_write());
  if (changes_names(r.kind) || r.kind == Kind::ship_dir) {
    if (batch_.names_done(r.sequence)) return note_done(r);
    HF_TRY(change_names(r));
    return batch_.names_reached(r.sequence);
  }
  switch (r.kind) {
    case Kind::ship_node:
      return ship_node(r);
    case Kind::ship_data:
      return ship_data(r);
    case Kind::ship_hash:
      return ship_hash(r);
    default:
      break;
  }
  HF_ASSIGN(const bool there, known(r.file));
  if (!there) return skip(r.file);
  // Bytes that are not what they should be yet move to where the copy, or an answer to a NAK, has been already: the file comes again. One that
  // has not its size yet stays as it is: the range may lie beyond its end.
  if (r.kind == Kind::fallocate && shifts_range(r.mode_flags)) {
    nak_({r.set, r.file, 0, 0});
    const std::uint64_t size_before = (r.mode_flags & fallocate_insert) ? r.size - r.length : r.size + r.length;
    HF_ASSIGN(const auto file, tree_.attributes(r.file));
    if (file->size != size_before) return {};
  }
  return apply_content(batch_, r);
}

Status ResyncApply::change_names(const log::Record& r) {
  if (r.kind != Kind::ship_dir) {
    memory_.bare.erase(r.parent);
    memory_.bare.erase(r.parent2);
  }
  switch (r.kind) {
    case Kind::ship_dir:
      return ship_dir(r);
    case Kind::link:
      return link(r);
    case Kind::unlink:
    case Kind::rmdir:
      return remove(r);
    case Kind::rename:
      return rename(r);
    default:
      return make(r);
  }
}

Status ResyncApply::note_done(const log::Record& r) {
  if (r.kind != Kind::ship_dir) {
    const bool gone = r.kind == Kind::unlink || r.kind == Kind::rmdir ||
                      (r.kind == Kind::rename && (r.flags & log::flag_rename_exchange) == 0);
    note_name(r.parent, r.name, !gone);
    if (r.kind == Kind::rename) note_name(r.parent2, r.name2, true);
    batch_.touched(r.parent, r.parent_mtime_ns);
    batch_.touched(r.parent2, r.parent2_mtime_ns);
    return {};
  }
  batch_.touched(r.file, r.mtime_ns);
  if (r.flags & log::flag_last_chunk) {
    memory_.listings.erase(r.file);
    return {};
  }
  if (r.flags & log::flag_first_chunk) memory_.listings[r.file].clear();
  const auto listing = memory_.listings.find(r.file);
  if (listing == memory_.listings.end()) return {};  // its last chunk will say that the beginning is missing
  log::ShipEntryReader reader(r.payload);
  for (;;) {
    HF_ASSIGN(const auto entry, reader.next());
    if (!entry) return {};
    listing->second.emplace(entry->name);
  }
}

Status ResyncApply::make(const log::Record& r) {
  const bool staged = staged_.created.contains(r.file);
  if (r.flags & log::flag_orphan) return staged ? tree_.place_in_grave(r.file, Grave::orphan) : Status{};
  HF_ASSIGN(const bool parent_known, known(r.parent));
  if (!parent_known) return skip(r.parent);
  HF_ASSIGN(const bool there, clear(r.parent, r.name, r.file));
  note_name(r.parent, r.name, true);
  batch_.touched(r.parent, r.parent_mtime_ns);
  if (there) return {};
  if (!staged) {
    HF_ASSIGN(const bool is_known, known(r.file));
    if (is_known) return bring(r.file, r.parent, r.name);
    HF_TRY(tree_.stage(r.file, new_node(r)));
    HF_TRY(tree_.commit_ids());
  }
  batch_.touched(r.file, r.mtime_ns);
  return tree_.place(r.file, r.parent, r.name);
}

Status ResyncApply::link(const log::Record& r) {
  HF_ASSIGN(const bool parent_known, known(r.parent));
  if (!parent_known) return skip(r.parent);
  note_name(r.parent, r.name, true);
  batch_.touched(r.parent, r.parent_mtime_ns);
  return put(r.file, r.mode, r.parent, r.name);
}

Status ResyncApply::remove(const log::Record& r) {
  HF_ASSIGN(const bool parent_known, known(r.parent));
  if (!parent_known) return skip(r.parent);
  note_name(r.parent, r.name, false);
  batch_.touched(r.parent, r.parent_mtime_ns);
  HF_ASSIGN([[maybe_unused]] const bool there, clear(r.parent, r.name, FileId{}));
  return {};
}

Status ResyncApply::rename(const log::Record& r) {
  if (r.file == r.replaced) return {};
  HF_ASSIGN(const bool from_known, known(r.parent));
  HF_ASSIGN(const bool to_known, known(r.parent2));
  const bool exchange = (r.flags & log::flag_rename_exchange) != 0;
  if (!from_known) HF_TRY(skip(r.parent));
  if (!to_known) HF_TRY(skip(r.parent2));
  if (from_known) {
    note_name(r.parent, r.name, exchange);
    batch_.touched(r.parent, r.parent_mtime_ns);
  }
  if (to_known) {
    note_name(r.parent2, r.name2, true);
    batch_.touched(r.parent2, r.parent2_mtime_ns);
  }
  // Take both names away first: the objects wait in limbo (or under another name), and come to where they belong now.
  if (from_known) {
    HF_ASSIGN([[maybe_unused]] const bool there, clear(r.parent, r.name, FileId{}));
  }
  if (to_known) HF_TRY(put(r.file, r.mode, r.parent2, r.name2));
  if (!exchange || !from_known) return {};
  HF_ASSIGN(const auto replaced, tree_.attributes(r.replaced));
  return put(r.replaced, replaced ? replaced->mode & type_mask : 0, r.parent, r.name);
}

// Makes the object known (in limbo if no listing has named it yet), and gives it its attributes.
Status ResyncApply::ship_node(const log::Record& r) {
  if (const auto it = staged_.dressed.find(r.file); it != staged_.dressed.end()) {
    const Staged::Dressed dressed = it->second;
    staged_.dressed.erase(it);
    if (dressed.by == r.sequence) return ship_dressed(r, dressed.sized);
  }
  HF_ASSIGN(auto there, tree_.attributes(r.file));
  if (!there) {
    ports::NewNode node = new_node(r);
    node.mode = r.mode;
    if (is_regular(r.mode) || is_folder(r.mode)) node.rdev = 0;
    node.target = r.name2;
    node.xattrs = r.payload;
    HF_TRY(tree_.stage(r.file, node));
    HF_TRY(tree_.commit_ids());
    HF_TRY(tree_.place_in_grave(r.file, Grave::limbo));
    if (is_folder(r.mode)) memory_.bare.insert(r.file);
  } else if (((there->mode ^ r.mode) & type_mask) != 0) {
    return fail(ErrorCode::corrupt, "set {}: the object {} is of another type here", r.set, r.file.to_hex());
  }
  HF_TRY(become(r, there ? &*there : nullptr));
  is_shipped(r);
  // The active took it for known here, and ships only a part.
  if (!there && is_regular(r.mode) && r.length > 0 && !all_follows(r)) ask_for_contents(r.file, nak_contents);
  if (!there && is_folder(r.mode) && !all_follows(r)) ask_for_contents(r.file);
  batch_.touched(r.file, r.mtime_ns);
  return {};
}

// In this order: a change of size or owner takes capabilities away, and an ACL rewrites the mode's group bits. What is so already is left alone:
// each change costs the file system a journal entry.
Status ResyncApply::become(const log::Record& r, const ports::NodeAttributes* there) {
  const bool resized = is_regular(r.mode) && (there ? there->size : 0) != r.length;
  if (resized) HF_TRY(tree_.truncate(r.file, r.length));
  if (!there && !resized) return {};
  ports::NodeAttributes to;
  to.mode = r.mode;
  to.uid = r.uid;
  to.gid = r.gid;
  if (there && (there->uid != r.uid || there->gid != r.gid)) HF_TRY(tree_.set_attributes(r.file, log::valid_owner, to));
  HF_TRY(tree_.replace_xattrs(r.file, r.payload));
  HF_ASSIGN(const auto now, tree_.attributes(r.file));
  return now && now->mode == r.mode ? Status{} : tree_.set_attributes(r.file, log::valid_mode, to);
}

// Made with these attributes (stage_ahead.h).
Status ResyncApply::ship_dressed(const log::Record& r, bool sized) {
  if (!sized) HF_TRY(become(r, nullptr));
  is_shipped(r);
  batch_.touched(r.file, r.mtime_ns);
  return {};
}

void ResyncApply::is_shipped(const log::Record& node) {
  memory_.asked.erase(node.file);
  if (!is_folder(node.mode) && (!is_regular(node.mode) || all_follows(node))) memory_.made.erase(node.file);
}

Status ResyncApply::ship_dir(const log::Record& r) {
  HF_ASSIGN(const bool folder_known, known(r.file));
  if (!folder_known) {
    nak_({r.set, r.file, 0, 0});
    return {};
  }
  if (r.flags & log::flag_first_chunk) {
    if (!memory_.listings[r.file].empty()) memory_.bare.erase(r.file);  // it is listed once more
    memory_.listings[r.file].clear();
    memory_.relist.erase(r.file);
    memory_.made.erase(r.file);
  }
  if (!memory_.listings.contains(r.file)) {
    memory_.broken = true;
    return {};
  }
  HF_TRY(name_all(r));
  if (r.flags & log::flag_last_chunk) HF_TRY(finish_listing(r));
  batch_.touched(r.file, r.mtime_ns);
  return {};
}

// Each entry of a chunk stands at its name afterwards. What is not here yet is made first, all of it, so that one commit makes all ids durable.
Status ResyncApply::name_all(const log::Record& r) {
  auto& listing = memory_.listings[r.file];
  const bool bare = memory_.bare.contains(r.file);
  std::vector<log::ShipEntry> to_place;
  bool any_new = false;
  log::ShipEntryReader reader(r.payload);
  for (std::size_t count = 0;; ++count) {
    HF_ASSIGN(const auto entry, reader.next());
    if (!entry) break;
    if (count == log::max_ship_entries)
      return fail(ErrorCode::corrupt, "set {}: a listing's chunk of more than {} entries", r.set,
                  log::max_ship_entries);
    listing.emplace(entry->name);
    std::optional<ports::TreeEntry> found;
    if (!bare) {
      HF_ASSIGN(found, tree_.lookup(r.file, entry->name));
      if (found && found->id == entry->id) continue;
    }
    const bool can_be_filled = is_regular(entry->mode) || is_folder(entry->mode);
    // One entry may name what another of this chunk makes (hard links): only the first makes it.
    const bool again = std::any_of(to_place.begin(), to_place.end(), [&](const auto& e) { return e.id == entry->id; });
    const bool ahead = staged_.ahead.erase(entry->id) != 0;
    bool is_known = again || ahead;
    if (!is_known) {
      HF_ASSIGN(is_known, known(entry->id));
      if (found && found->id.is_none() && !is_known && found->mode == entry->mode && can_be_filled) {
        HF_TRY(tree_.adopt(r.file, entry->name, entry->id));
        if (memory_.partial) ask_for_contents(entry->id);
        any_new = true;
        continue;
      }
    }
    if (!again && !ahead && (is_known || !can_be_filled)) {
      HF_TRY(put(entry->id, entry->mode, r.file, entry->name));
      continue;
    }
    if (found) {
      HF_ASSIGN([[maybe_unused]] const bool there, clear(r.file, entry->name, entry->id));
    }
    if (!is_known) {
      HF_TRY(tree_.stage(entry->id, placeholder(entry->mode)));
      any_new = true;
    }
    if (!again) {
      if (is_folder(entry->mode)) memory_.bare.insert(entry->id);
      if (memory_.partial) ask_for_contents(entry->id);
    }
    to_place.push_back(*entry);
  }
  if (any_new && !staged_.ids_later) HF_TRY(tree_.commit_ids());
  std::unordered_set<FileId> placed;
  for (const auto& entry : to_place)
    HF_TRY(placed.insert(entry.id).second ? tree_.place(entry.id, r.file, entry.name)
                                          : tree_.link(entry.id, r.file, entry.name));
  return {};
}

// What is in the folder and not in the listing does not belong there.
Status ResyncApply::finish_listing(const log::Record& r) {
  const auto listing = memory_.listings.find(r.file);
  if (memory_.bare.erase(r.file) != 0) {
    memory_.listings.erase(listing);
    return {};
  }
  std::vector<std::string> strangers;
  HF_TRY(tree_.for_each_name(r.file, [&](std::string_view name) {
    if (!listing->second.contains(std::string(name))) strangers.emplace_back(name);
  }));
  memory_.listings.erase(listing);
  ports::Touches touches;
  touches.objects.push_back(r.file);
  for (const auto& name : strangers) touches.names.emplace_back(r.file, name);
  if (!strangers.empty()) HF_TRY(tree_.about_to_change(touches));
  for (const auto& name : strangers) {
    HF_ASSIGN([[maybe_unused]] const bool there, clear(r.file, name, FileId{}));
  }
  return {};
}

Status ResyncApply::ship_data(const log::Record& r) {
  HF_ASSIGN(const bool there, known(r.file));
  if (!there) return {};
  batch_.touched(r.file, r.mtime_ns);
  return r.payload.empty() ? tree_.punch(r.file, r.offset, r.length) : batch_.write(r);
}

Status ResyncApply::ship_hash(const log::Record& r) {
  if (r.length > ports::most_digest_bytes)
    return fail(ErrorCode::corrupt, "set {}: a hash over {} bytes", r.set, r.length);
  HF_ASSIGN(const bool there, known(r.file));
  ports::Digest own;
  if (there) {
    HF_ASSIGN(own, tree_.digest(r.file, r.offset, r.length));
  }
  if (own.bytes != r.length || !std::equal(own.hash.begin(), own.hash.end(), r.payload.begin(), r.payload.end()))
    nak_({r.set, r.file, r.offset, r.length});
  return {};
}

}  // namespace holdfast::mirror
