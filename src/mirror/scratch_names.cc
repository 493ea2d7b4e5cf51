// SPDX-License-Identifier: Apache-2.0
// Names of a scratch view: what is made, moved, linked and removed.
#include <algorithm>

#include "log/record.h"
#include "mirror/file_type.h"
#include "mirror/posix_acl.h"
#include "mirror/scratch_view.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint32_t set_group_id = 02000;
constexpr std::uint64_t links_of_a_folder = 2;

bool is_hidden(const FileId& dir, std::string_view name) { return dir.is_root() && name == ports::hidden_name; }

FileId id_of(const std::optional<ports::TreeEntry>& entry) { return entry ? entry->id : FileId{}; }

}  // namespace

// The number is what makes the inode number.
FileId ScratchView::fresh() {
  constexpr std::uint64_t mark = 0x5c00000000000000;
  FileId id;
  const std::uint64_t number = mark | ++last_id_;
  std::memcpy(id.bytes.data(), &number, sizeof number);
  std::memcpy(id.bytes.data() + sizeof number, "scratch", sizeof number);
  return id;
}

const ScratchView::Name* ScratchView::find_name(SetNumber set, const FileId& dir, std::string_view name) const {
  const auto layer = layers_.find(set);
  if (layer == layers_.end()) return nullptr;
  const auto names = layer->second.names.find(dir);
  if (names == layer->second.names.end()) return nullptr;
  const auto it = names->second.find(name);
  return it == names->second.end() ? nullptr : &it->second;
}

// Not known here and not asked for: the folder was made here, or the name was, and went again.
ScratchView::Entry ScratchView::standing(SetNumber set, const FileId& dir, std::string_view name,
                                         const Told& told) const {
  if (const Name* here = find_name(set, dir, name)) {
    if (here->id.is_none()) return std::nullopt;
    return ports::TreeEntry{std::string(name), here->id, here->type};
  }
  const auto then = told.names.find({dir, std::string(name)});
  return then == told.names.end() ? std::nullopt : then->second;
}

void ScratchView::set_name(SetNumber set, const FileId& dir, std::string_view name, const Entry& to, const Told& told) {
  Names& names = layer(set).names[dir];
  names_ -= names.size();
  const auto it = names.find(name);
  const auto then = told.names.find({dir, std::string(name)});
  const bool in_past = it != names.end() ? it->second.in_past : then != told.names.end() && then->second;
  if (it != names.end()) names.erase(it);
  if (to)
    names[std::string(name)] = {to->id, to->mode & type_mask, in_past};
  else if (in_past)
    names[std::string(name)] = {FileId{}, 0, true};
  names_ += names.size();
  if (names.empty()) layer(set).names.erase(dir);
}

Result<ScratchView::Object*> ScratchView::touch_folder(SetNumber set, const FileId& id, const Told& told) {
  HF_ASSIGN(Object * dir, touch(set, id, told));
  if (!is_folder(dir->a.mode)) return fail(ErrorCode::invalid, "{} is no folder", id.to_hex());
  if (dir->removed) return fail(ErrorCode::not_found, "the folder {} was removed", id.to_hex());
  return dir;
}

bool ScratchView::is_empty(SetNumber set, const FileId& dir, const Told& told) const {
  if (const auto layer = layers_.find(set); layer != layers_.end())
    if (const auto names = layer->second.names.find(dir); names != layer->second.names.end())
      if (std::any_of(names->second.begin(), names->second.end(), [](const auto& n) { return !n.second.id.is_none(); }))
        return false;
  const auto then = told.lists.find(dir);
  return then == told.lists.end() || std::all_of(then->second.begin(), then->second.end(), [&](const auto& entry) {
           return find_name(set, dir, entry.name) != nullptr;
         });
}

void ScratchView::changed_in(Object& dir) { dir.a.mtime_ns = dir.a.ctime_ns = times_.realtime_ns(); }

// Where nobody knows how many names there were, one may be left.
void ScratchView::lose_name(Object& object) {
  if (object.a.links > 1 || object.a.links_known) object.a.links -= object.a.links != 0 ? 1 : 0;
  object.a.ctime_ns = times_.realtime_ns();
}

void ScratchView::lose_folder(Object& parent, Object& folder) {
  folder.removed = true;
  folder.a.links = 0;
  folder.a.ctime_ns = times_.realtime_ns();
  leave_folder(parent);
}

void ScratchView::leave_folder(Object& parent) {
  if (parent.a.links > links_of_a_folder) --parent.a.links;
}

Result<std::optional<ports::TreeEntry>> ScratchView::lookup(SetNumber set, const FileId& dir, std::string_view name) {
  Told told;
  Entry stands;
  HF_TRY(ask_name(set, dir, name, told, stands));
  return stands;
}

Result<std::vector<ports::TreeEntry>> ScratchView::list(SetNumber set, const FileId& dir) {
  Told told;
  HF_TRY(ask_list(set, dir, told));
  std::vector<ports::TreeEntry>& then = told.lists[dir];
  const std::lock_guard lock(mutex_);
  const auto layer = layers_.find(set);
  if (layer == layers_.end()) return std::move(then);
  const auto names = layer->second.names.find(dir);
  if (names == layer->second.names.end()) return std::move(then);
  std::erase_if(then, [&](const auto& entry) { return names->second.contains(entry.name); });
  for (const auto& [name, here] : names->second)
    if (!here.id.is_none()) then.push_back({name, here.id, here.type});
  return std::move(then);
}

// A new object in this folder, without a name yet.
Result<FileId> ScratchView::put_object(SetNumber set, const Object& dir, const ports::ScratchNode& node) {
  Object made;
  made.made = true;
  made.xattrs.emplace();
  std::uint32_t mode = node.mode;
  const bool folder = is_folder(mode), inherits_group = (dir.a.mode & set_group_id) != 0;
  if (inherits_group && folder) mode |= set_group_id;
  const auto inherited = dir.xattrs->find(default_acl);
  auto acl = inherited == dir.xattrs->end() || is_symlink(mode) ? std::nullopt : PosixAcl::decode(inherited->second);
  if (acl) {
    acl->inherit(mode);
    if (!acl->only_permissions()) made.xattrs->emplace(access_acl, acl->encode());
    if (folder) made.xattrs->emplace(default_acl, inherited->second);
  } else if (!is_symlink(mode)) {
    mode &= ~(node.umask & 0777);
  }
  std::uint64_t bytes = node.target.size();
  for (const auto& [name, value] : *made.xattrs) bytes += name.size() + value.size();
  HF_TRY(check_objects(2));
  if (!space_.set_aside(bytes)) return fail(ErrorCode::no_space, "the view of the past has no room left");
  made.target = node.target;
  made.a.mode = mode;
  made.a.uid = node.uid;
  made.a.gid = inherits_group ? dir.a.gid : node.gid;
  made.a.rdev = node.rdev;
  made.a.size = node.target.size();
  made.a.links = folder ? links_of_a_folder : 0;
  made.a.atime_ns = made.a.mtime_ns = made.a.ctime_ns = times_.realtime_ns();
  const FileId id = fresh();
  layer(set).objects.emplace(id, std::move(made));
  ++objects_;
  return id;
}

Result<FileId> ScratchView::make(SetNumber set, const FileId& dir, std::string_view name,
                                 const ports::ScratchNode& node) {
  if (is_hidden(dir, name)) return fail(ErrorCode::denied, "{} is Holdfast's own", name);
  Told told;
  Entry stands;
  HF_TRY(ask_object(set, dir, told));
  HF_TRY(ask_xattrs(set, dir, told));
  if (!name.empty()) HF_TRY(ask_name(set, dir, name, told, stands));
  const Held lock(*this);
  HF_ASSIGN(Object * parent, touch_folder(set, dir, told));
  HF_TRY(touch_xattrs(*parent, dir, told));
  if (!name.empty() && standing(set, dir, name, told)) return fail(ErrorCode::exists, "\"{}\" is taken", name);
  HF_ASSIGN(const FileId id, put_object(set, *parent, node));
  if (name.empty()) return id;
  if (is_folder(node.mode))
    ++parent->a.links;
  else
    layer(set).objects.at(id).a.links = 1;
  set_name(set, dir, name, ports::TreeEntry{std::string(name), id, node.mode}, told);
  changed_in(*parent);
  return id;
}

Status ScratchView::link(SetNumber set, const FileId& id, const FileId& dir, std::string_view name) {
  if (is_hidden(dir, name)) return fail(ErrorCode::denied, "{} is Holdfast's own", name);
  Told told;
  Entry stands;
  HF_TRY(ask_object(set, id, told));
  HF_TRY(ask_object(set, dir, told));
  HF_TRY(ask_name(set, dir, name, told, stands));
  const Held lock(*this);
  HF_ASSIGN(Object * parent, touch_folder(set, dir, told));
  HF_ASSIGN(Object * object, touch(set, id, told));
  if (is_folder(object->a.mode)) return fail(ErrorCode::invalid, "folders have one name");
  if (standing(set, dir, name, told)) return fail(ErrorCode::exists, "\"{}\" is taken", name);
  HF_TRY(check_objects(1));
  ++object->a.links;
  object->a.ctime_ns = times_.realtime_ns();
  set_name(set, dir, name, ports::TreeEntry{std::string(name), id, object->a.mode}, told);
  changed_in(*parent);
  return {};
}

Status ScratchView::remove(SetNumber set, const FileId& dir, std::string_view name, bool folder) {
  for (;;) {  // until nobody else changed the name in between
    Told told;
    Entry stands;
    HF_TRY(ask_object(set, dir, told));
    HF_TRY(ask_name(set, dir, name, told, stands));
    if (!stands) return fail(ErrorCode::not_found, "there is no \"{}\"", name);
    HF_TRY(ask_object(set, stands->id, told));
    if (folder) HF_TRY(ask_list(set, stands->id, told));
    const Held lock(*this);
    if (id_of(standing(set, dir, name, told)) != stands->id) continue;
    HF_ASSIGN(Object * parent, touch_folder(set, dir, told));
    HF_ASSIGN(Object * object, touch(set, stands->id, told));
    if (is_folder(object->a.mode) != folder) return fail(ErrorCode::invalid, "\"{}\" is of another type", name);
    if (folder && !is_empty(set, stands->id, told)) return fail(ErrorCode::busy, "\"{}\" is not empty", name);
    HF_TRY(check_objects(1));
    if (folder)
      lose_folder(*parent, *object);
    else
      lose_name(*object);
    set_name(set, dir, name, std::nullopt, told);
    changed_in(*parent);
    return {};
  }
}

// Nothing of it is done yet when this refuses.
Status ScratchView::check_replaced(SetNumber set, const ports::TreeEntry& moved, const Entry& replaced,
                                   std::uint32_t flags, const Told& told) const {
  if ((flags & log::flag_rename_exchange) != 0)
    return replaced ? Status{} : fail(ErrorCode::not_found, "there is nothing to exchange \"{}\" with", moved.name);
  if (!replaced) return {};
  if ((flags & log::flag_rename_noreplace) != 0) return fail(ErrorCode::exists, "\"{}\" is taken", replaced->name);
  if (is_folder(replaced->mode) != is_folder(moved.mode))
    return fail(ErrorCode::invalid, "\"{}\" is of another type", replaced->name);
  if (is_folder(replaced->mode) && !is_empty(set, replaced->id, told))
    return fail(ErrorCode::busy, "\"{}\" is not empty", replaced->name);
  return {};
}

Status ScratchView::rename(SetNumber set, const FileId& dir, std::string_view name, const FileId& dir2,
                           std::string_view name2, std::uint32_t flags, const ports::ScratchNode* left) {
  if (is_hidden(dir, name)) return fail(ErrorCode::not_found, "there is no \"{}\"", name);
  if (is_hidden(dir2, name2)) return fail(ErrorCode::denied, "{} is Holdfast's own", name2);
  const bool exchange = (flags & log::flag_rename_exchange) != 0;
  for (;;) {  // until nobody else changed the names in between
    Told told;
    Entry moved, replaced;
    HF_TRY(ask_object(set, dir, told));
    HF_TRY(ask_object(set, dir2, told));
    HF_TRY(ask_name(set, dir, name, told, moved));
    HF_TRY(ask_name(set, dir2, name2, told, replaced));
    if (!moved) return fail(ErrorCode::not_found, "there is no \"{}\"", name);
    HF_TRY(ask_object(set, moved->id, told));
    if (replaced) HF_TRY(ask_object(set, replaced->id, told));
    if (replaced && !exchange && is_folder(replaced->mode)) HF_TRY(ask_list(set, replaced->id, told));
    if (left) HF_TRY(ask_xattrs(set, dir, told));
    const Held lock(*this);
    if (id_of(standing(set, dir, name, told)) != moved->id ||
        id_of(standing(set, dir2, name2, told)) != id_of(replaced))
      continue;
    if (replaced && replaced->id == moved->id && !exchange) return {};  // POSIX: two names of one object stay
    HF_TRY(check_replaced(set, *moved, replaced, flags, told));
    HF_ASSIGN(Object * from, touch_folder(set, dir, told));
    HF_ASSIGN(Object * to, touch_folder(set, dir2, told));
    HF_ASSIGN(Object * object, touch(set, moved->id, told));
    Object* other = nullptr;
    if (replaced) {
      HF_ASSIGN(other, touch(set, replaced->id, told));
    }
    if (left) HF_TRY(touch_xattrs(*from, dir, told));
    HF_TRY(check_objects(4));
    Entry behind = exchange ? replaced : std::nullopt;
    if (left) {
      HF_ASSIGN(const FileId id, put_object(set, *from, *left));
      layer(set).objects.at(id).a.links = 1;
      behind = ports::TreeEntry{std::string(name), id, left->mode};
    }
    if (from != to && is_folder(moved->mode)) leave_folder(*from), ++to->a.links;
    if (from != to && exchange && is_folder(replaced->mode)) leave_folder(*to), ++from->a.links;
    if (other && !exchange) is_folder(replaced->mode) ? lose_folder(*to, *other) : lose_name(*other);
    set_name(set, dir, name, behind, told);
    set_name(set, dir2, name2, moved, told);
    changed_in(*from);
    changed_in(*to);
    object->a.ctime_ns = to->a.ctime_ns;
    if (other) other->a.ctime_ns = to->a.ctime_ns;
    return {};
  }
}

void ScratchView::forgotten(SetNumber set, const FileId& id) {
  const Held lock(*this);
  Layer& here = layer(set);
  const auto it = here.objects.find(id);
  if (it == here.objects.end() || it->second.a.links != 0) return;
  Object& object = it->second;
  runs_ -= object.data.runs();
  object.data.drop(where());
  std::uint64_t bytes = object.made ? object.target.size() : 0;
  if (object.xattrs)
    for (const auto& [name, value] : *object.xattrs) bytes += name.size() + value.size();
  space_.give_aside(bytes);
  if (const auto names = here.names.find(id); names != here.names.end()) {
    names_ -= names->second.size();
    here.names.erase(names);
  }
  here.objects.erase(it);
  --objects_;
}

}  // namespace holdfast::mirror
