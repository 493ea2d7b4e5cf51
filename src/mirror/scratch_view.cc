// SPDX-License-Identifier: Apache-2.0
// Reading, contents and attributes. Names: scratch_names.cc.
#include "mirror/scratch_view.h"

#include <algorithm>
#include <limits>

#include "log/xattrs.h"
#include "mirror/file_type.h"
#include "mirror/posix_acl.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint32_t set_user_id = 04000, set_group_id = 02000, group_runs = 010, permission_bits = 07777;
constexpr std::uint32_t keep_size = 0x01;
constexpr std::string_view capability = "security.capability", ours = "trusted.holdfast.";
constexpr std::uint64_t most_bytes_of_a_file = std::numeric_limits<std::int64_t>::max();

// What the past does not have any more was there when it was asked for first.
template <class T>
Result<T> still(Result<T> then) {
  if (!then && then.error().code == ErrorCode::not_found) then.error().code = ErrorCode::stale;
  return then;
}

std::uint64_t cost(std::string_view name, ByteView value) { return name.size() + value.size(); }

Status check_name(std::string_view name) {
  if (name.starts_with(ours)) return fail(ErrorCode::denied, "{} is Holdfast's own", name);
  for (const std::string_view kind : {"user.", "trusted.", "security."})
    if (name.starts_with(kind)) return {};
  if (name == access_acl || name == default_acl) return {};
  return fail(ErrorCode::refused, "there are no attributes like {}", name);
}

}  // namespace

// --- asking the past

Status ScratchView::ask_object(SetNumber set, const FileId& id, Told& told) {
  {
    const std::lock_guard lock(mutex_);
    if (find(set, id)) return {};
  }
  if (told.objects.contains(id)) return {};
  HF_ASSIGN(const auto then, still(past_->attributes(set, id)));
  told.objects.emplace(id, then);
  return {};
}

Status ScratchView::ask_name(SetNumber set, const FileId& dir, std::string_view name, Told& told, Entry& stands) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* folder = find(set, dir); find_name(set, dir, name) || (folder && folder->made)) {
      stands = standing(set, dir, name, told);
      return {};
    }
  }
  HF_ASSIGN(auto then, still(past_->lookup(set, dir, name)));
  stands = then;
  told.names[{dir, std::string(name)}] = std::move(then);
  return {};
}

Status ScratchView::ask_list(SetNumber set, const FileId& dir, Told& told) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* folder = find(set, dir); folder && folder->made) return {};
  }
  HF_ASSIGN(auto then, still(past_->list(set, dir)));
  told.lists[dir] = std::move(then);
  return {};
}

Status ScratchView::ask_xattrs(SetNumber set, const FileId& id, Told& told) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id); object && object->xattrs) return {};
  }
  HF_ASSIGN(const auto then, still(past_->xattrs(set, id)));
  HF_ASSIGN(const auto list, log::decode_xattrs(then));
  Xattrs& all = told.xattrs[id];
  for (const auto& x : list) all.emplace(x.name, Bytes(x.value.begin(), x.value.end()));
  return {};
}

// Of the pages that a change of [begin, end) fills only in part. The object was asked for before.
Result<PastPages> ScratchView::ask_pages(SetNumber set, const FileId& id, std::uint64_t begin, std::uint64_t end,
                                         const Told& told) {
  std::vector<std::uint64_t> wanted;
  std::uint64_t past_end = 0;
  const auto look = [&](const ScratchData& data) {
    wanted = data.partial(begin, end);
    past_end = data.past_end();
  };
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id))
      look(object->data);
    else if (const auto then = told.objects.find(id); then != told.objects.end())
      look(ScratchData(then->second.size));
  }
  PastPages pages;
  for (const std::uint64_t page : wanted) {
    Bytes bytes(std::min(scratch_page, past_end - page * scratch_page));
    HF_ASSIGN(const std::size_t got, still(past_->read(set, id, page * scratch_page, bytes)));
    bytes.resize(got);
    pages[page] = std::move(bytes);
  }
  return pages;
}

// --- under the lock

const ScratchView::Object* ScratchView::find(SetNumber set, const FileId& id) const {
  const auto layer = layers_.find(set);
  if (layer == layers_.end()) return nullptr;
  const auto it = layer->second.objects.find(id);
  return it == layer->second.objects.end() ? nullptr : &it->second;
}

Status ScratchView::check_objects(std::uint64_t more) const {
  if (objects_ + names_ + runs_ + more <= limits_.objects) return {};
  return fail(ErrorCode::no_space, "the view of the past remembers {} changes, and can't hold more", limits_.objects);
}

Result<ScratchView::Object*> ScratchView::touch(SetNumber set, const FileId& id, const Told& told) {
  auto& objects = layer(set).objects;
  if (const auto it = objects.find(id); it != objects.end()) return &it->second;
  const auto then = told.objects.find(id);
  if (then == told.objects.end()) return fail(ErrorCode::stale, "there is no object {} any more", id.to_hex());
  HF_TRY(check_objects(1));
  ++objects_;
  Object& object = objects[id];
  object.a = then->second;
  if (is_regular(object.a.mode)) object.data = ScratchData(object.a.size);
  return &object;
}

Result<ScratchView::Xattrs*> ScratchView::touch_xattrs(Object& object, const FileId& id, const Told& told) {
  if (object.xattrs) return &*object.xattrs;
  const auto then = told.xattrs.find(id);
  if (then == told.xattrs.end()) return fail(ErrorCode::stale, "there is no object {} any more", id.to_hex());
  std::uint64_t bytes = 0;
  Xattrs all = then->second;
  if (object.capability_lost)
    if (const auto it = all.find(capability); it != all.end()) all.erase(it);
  for (const auto& [name, value] : all) bytes += cost(name, value);
  if (!space_.set_aside(bytes)) return fail(ErrorCode::no_space, "the view of the past has no room left");
  object.capability_lost = false;
  object.xattrs = std::move(all);
  return &*object.xattrs;
}

void ScratchView::lose_privileges(Object& object, bool drop_set_id) {
  if (!is_regular(object.a.mode)) return;
  if (drop_set_id) {
    object.a.mode &= ~set_user_id;
    if (object.a.mode & group_runs) object.a.mode &= ~set_group_id;
  }
  if (!object.xattrs) {
    object.capability_lost = true;
  } else if (const auto it = object.xattrs->find(capability); it != object.xattrs->end()) {
    space_.give_aside(cost(it->first, it->second));
    object.xattrs->erase(it);
  }
}

void ScratchView::count_runs(const Object& object, std::size_t before) { runs_ = runs_ - before + object.data.runs(); }

// --- reading

Result<ports::PastAttributes> ScratchView::attributes(SetNumber set, const FileId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id)) {
      ports::PastAttributes a = object->a;
      // Of a file of which the past shows through, nobody knows what it takes there.
      if (is_regular(a.mode))
        a.allocated_bytes = std::min(a.size, object->data.stored_pages() * scratch_page + object->data.past_end());
      return a;
    }
  }
  return past_->attributes(set, id);
}

namespace {

template <class Map>
Bytes encoded(const Map& map) {
  std::vector<log::Xattr> list;
  for (const auto& [name, value] : map) list.push_back({name, value});
  Bytes out;
  log::encode_xattrs(list, out);
  return out;
}

}  // namespace

Result<Bytes> ScratchView::xattrs(SetNumber set, const FileId& id) {
  Told told;
  HF_TRY(ask_object(set, id, told));
  HF_TRY(ask_xattrs(set, id, told));
  const std::lock_guard lock(mutex_);
  const Object* object = find(set, id);
  if (object && object->xattrs) return encoded(*object->xattrs);
  Xattrs& then = told.xattrs[id];
  if (object && object->capability_lost)
    if (const auto it = then.find(capability); it != then.end()) then.erase(it);
  return encoded(then);
}

Result<std::string> ScratchView::target(SetNumber set, const FileId& id) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id); object && object->made) return object->target;
  }
  return past_->target(set, id);
}

// What shows the past stops to do so at most, and then what is laid over it below covers it.
Result<std::size_t> ScratchView::read(SetNumber set, const FileId& id, std::uint64_t offset,
                                      std::span<std::uint8_t> into) {
  std::uint64_t past_end = 0;
  bool known = false;
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id)) {
      known = true;
      if (offset >= object->a.size) return std::size_t{0};
      into = into.first(std::min<std::uint64_t>(into.size(), object->a.size - offset));
      if (object->data.shows_past(offset, offset + into.size())) past_end = object->data.past_end();
    }
  }
  if (!known) return past_->read(set, id, offset, into);
  if (past_end > offset) {
    const auto part = into.first(std::min<std::uint64_t>(into.size(), past_end - offset));
    HF_ASSIGN(const std::size_t got, past_->read(set, id, offset, part));
    std::fill(part.begin() + static_cast<std::ptrdiff_t>(got), part.end(), std::uint8_t{0});
  }
  const std::lock_guard lock(mutex_);
  const Object* object = find(set, id);
  if (!object) return fail(ErrorCode::stale, "there is no object {} any more", id.to_hex());
  if (offset >= object->a.size) return std::size_t{0};
  into = into.first(std::min<std::uint64_t>(into.size(), object->a.size - offset));
  HF_TRY(object->data.lay_over(*store_, offset, into));
  return into.size();
}

Result<std::uint64_t> ScratchView::next_data(SetNumber set, const FileId& id, std::uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id)) return object->data.next_data(offset, object->a.size);
  }
  HF_ASSIGN(const auto then, past_->attributes(set, id));
  return std::min(offset, then.size);
}

Result<std::uint64_t> ScratchView::next_hole(SetNumber set, const FileId& id, std::uint64_t offset) {
  {
    const std::lock_guard lock(mutex_);
    if (const Object* object = find(set, id)) return object->data.next_hole(offset, object->a.size);
  }
  HF_ASSIGN(const auto then, past_->attributes(set, id));
  return then.size;
}

// --- contents

Status ScratchView::write(SetNumber set, const FileId& id, std::uint64_t offset, ByteView bytes, bool drop_set_id) {
  if (offset > most_bytes_of_a_file - bytes.size()) return fail(ErrorCode::invalid, "no file is that big");
  const std::uint64_t end = offset + bytes.size();
  Told told;
  HF_TRY(ask_object(set, id, told));
  HF_ASSIGN(const PastPages past, ask_pages(set, id, offset, end, told));
  const Held lock(*this);
  HF_ASSIGN(Object * object, touch(set, id, told));
  if (!is_regular(object->a.mode)) return fail(ErrorCode::invalid, "{} is no file", id.to_hex());
  HF_TRY(check_objects(2));
  const std::size_t before = object->data.runs();
  Status written = object->data.write(where(), offset, bytes, past);
  count_runs(*object, before);
  HF_TRY(std::move(written));
  object->a.size = std::max(object->a.size, end);
  object->a.mtime_ns = object->a.ctime_ns = times_.realtime_ns();
  lose_privileges(*object, drop_set_id);
  return {};
}

Status ScratchView::fallocate(SetNumber set, const FileId& id, std::uint32_t mode_flags, std::uint64_t offset,
                              std::uint64_t length, bool drop_set_id) {
  if ((mode_flags & ~(keep_size | fallocate_punch | fallocate_zero)) != 0)
    return fail(ErrorCode::refused, "a view of the past does not know the mode {:#x} of fallocate", mode_flags);
  if (length == 0 || offset > most_bytes_of_a_file - length) return fail(ErrorCode::invalid, "no file is that big");
  const std::uint64_t end = offset + length;
  Told told;
  HF_TRY(ask_object(set, id, told));
  HF_ASSIGN(const PastPages past, ask_pages(set, id, offset, end, told));
  const Held lock(*this);
  HF_ASSIGN(Object * object, touch(set, id, told));
  if (!is_regular(object->a.mode)) return fail(ErrorCode::invalid, "{} is no file", id.to_hex());
  HF_TRY(check_objects(2));
  if (clears_range(mode_flags)) {
    const std::size_t before = object->data.runs();
    Status cleared = object->data.clear(where(), offset, end, past);
    count_runs(*object, before);
    HF_TRY(std::move(cleared));
  } else if (object->data.pages_to_take(offset, end) > space_.left()) {
    return fail(ErrorCode::no_space, "the view of the past has no room for that");
  }
  if (!(mode_flags & keep_size)) object->a.size = std::max(object->a.size, end);
  object->a.mtime_ns = object->a.ctime_ns = times_.realtime_ns();
  lose_privileges(*object, drop_set_id);
  return {};
}

// --- attributes

Status ScratchView::change(SetNumber set, const FileId& id, const ports::ScratchChange& to) {
  Told told;
  HF_TRY(ask_object(set, id, told));
  if (to.mode) HF_TRY(ask_xattrs(set, id, told));
  const Held lock(*this);
  HF_ASSIGN(Object * object, touch(set, id, told));
  ports::PastAttributes& a = object->a;
  const std::int64_t now_ns = times_.realtime_ns();
  if (to.size && !is_regular(a.mode)) return fail(ErrorCode::invalid, "{} is no file", id.to_hex());
  // All that may fail for want of room comes before anything is changed.
  if (const auto then = told.xattrs.find(id); !object->xattrs && then != told.xattrs.end())
    if (then->second.contains(access_acl)) HF_TRY(touch_xattrs(*object, id, told));
  if (to.uid || to.gid) {
    a.uid = to.uid.value_or(a.uid);
    a.gid = to.gid.value_or(a.gid);
    lose_privileges(*object, true);
  }
  if (to.mode) {
    a.mode = (a.mode & type_mask) | (*to.mode & permission_bits);
    if (object->xattrs)
      if (const auto it = object->xattrs->find(access_acl); it != object->xattrs->end())
        if (auto acl = PosixAcl::decode(it->second)) {
          acl->change_permissions(a.mode);
          it->second = acl->encode();
        }
  }
  if (to.size) {
    const std::size_t before = object->data.runs();
    Status cut = object->data.truncate(where(), *to.size);
    count_runs(*object, before);
    HF_TRY(std::move(cut));
    a.size = *to.size;
    a.mtime_ns = now_ns;
    lose_privileges(*object, to.drop_set_id);
  }
  a.atime_ns = to.atime_ns.value_or(a.atime_ns);
  a.mtime_ns = to.mtime_ns.value_or(a.mtime_ns);
  a.ctime_ns = now_ns;
  return {};
}

Status ScratchView::set_xattr(SetNumber set, const FileId& id, std::string_view name, ByteView value,
                              ports::XattrHow how, bool drop_set_gid) {
  HF_TRY(check_name(name));
  Told told;
  HF_TRY(ask_object(set, id, told));
  HF_TRY(ask_xattrs(set, id, told));
  const Held lock(*this);
  HF_ASSIGN(Object * object, touch(set, id, told));
  HF_ASSIGN(Xattrs * all, touch_xattrs(*object, id, told));
  const auto it = all->find(name);
  if (it != all->end() && how == ports::XattrHow::create) return fail(ErrorCode::exists, "{} is there", name);
  if (it == all->end() && how == ports::XattrHow::replace) return fail(ErrorCode::not_found, "{} is not there", name);
  bool keep = true;
  if (name == access_acl || name == default_acl) {
    const auto acl = PosixAcl::decode(value);
    if (!acl) return fail(ErrorCode::invalid, "that is no access list");
    if (name == access_acl) {
      object->a.mode = (object->a.mode & ~std::uint32_t{0777}) | acl->permissions();
      if (drop_set_gid) object->a.mode &= ~set_group_id;
      keep = !acl->only_permissions();
    }
  }
  if (keep && !space_.set_aside(cost(name, value)))
    return fail(ErrorCode::no_space, "the view of the past has no room left");
  if (it != all->end()) {
    space_.give_aside(cost(it->first, it->second));
    all->erase(it);
  }
  if (keep) all->emplace(name, Bytes(value.begin(), value.end()));
  object->a.ctime_ns = times_.realtime_ns();
  return {};
}

Status ScratchView::remove_xattr(SetNumber set, const FileId& id, std::string_view name) {
  HF_TRY(check_name(name));
  Told told;
  HF_TRY(ask_object(set, id, told));
  HF_TRY(ask_xattrs(set, id, told));
  const Held lock(*this);
  HF_ASSIGN(Object * object, touch(set, id, told));
  HF_ASSIGN(Xattrs * all, touch_xattrs(*object, id, told));
  const auto it = all->find(name);
  if (it == all->end()) {
    if (name == access_acl || name == default_acl) return {};
    return fail(ErrorCode::not_found, "{} is not there", name);
  }
  space_.give_aside(cost(it->first, it->second));
  all->erase(it);
  object->a.ctime_ns = times_.realtime_ns();
  return {};
}

}  // namespace holdfast::mirror
