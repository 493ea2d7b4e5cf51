// SPDX-License-Identifier: Apache-2.0
#include "mirror/past_view.h"

#include <algorithm>

#include "log/record_codec.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;

namespace {
constexpr std::size_t list_chunk = 1024;
}

Result<std::unique_ptr<PastView>> PastView::open(UndoJournal& journal, Trees trees, Hold hold, std::uint64_t batch,
                                                 std::size_t most_cells) {
  for (const auto& [set, tree] : trees)
    if (!journal.reaches(batch, set))
      return fail(ErrorCode::not_found, "set {} has no undo history from point {} on", set, batch);
  std::unique_ptr<PastView> view(new PastView(journal, std::move(trees), std::move(hold), batch, most_cells));
  const auto no_apply = view->hold_();
  const auto first = journal.first_from(batch);
  if (!first || first->number != batch) return fail(ErrorCode::not_found, "the undo history holds no point {}", batch);
  view->next_ = first->place;
  if (Status read = view->refresh(); !read) {
    if (read.error().code == ErrorCode::stale) return fail(ErrorCode::refused, "{}", view->over_);
    return tl::unexpected(std::move(read).error());
  }
  return view;
}

// With what was written since the last call.
Status PastView::refresh() {
  if (over_.empty() && (!journal_.on() || journal_.oldest_batch() > batch_))
    over_ = "the history that this view needs was given up";
  if (over_.empty()) {
    const Status read =
        journal_.read_on(next_, [&](const log::Record& r, log::Place group) -> Status { return take(r, group); });
    if (!read && over_.empty()) over_ = read.error().to_string();
  }
  if (over_.empty()) return {};
  cells_.clear();
  cached_.reset();
  return fail(ErrorCode::stale, "this view of the past is over: {}", over_);
}

Status PastView::take(const log::Record& r, log::Place group) {
  if (r.kind == Kind::undo_gap && (r.set == 0 || trees_.contains(r.set))) {
    over_ = fmt::format("the history has a gap: {}", as_text(r.payload));
    return fail(ErrorCode::stale, "{}", over_);
  }
  if (!trees_.contains(r.set)) return {};
  Cells& cells = cells_[r.set];
  if (r.kind == Kind::undo_name) {
    if (cells.names[r.parent].try_emplace(std::string(r.name), Name{r.file, r.mode}).second) {
      ++count_;
      if (!r.file.is_none() && !is_folder(r.mode)) ++cells.named[r.file];
    }
  } else if (r.kind == Kind::undo_object) {
    auto [it, fresh] = cells.objects.try_emplace(r.file);
    if (fresh) {
      ++count_;
      auto& a = it->second.attributes;
      it->second.absent = (r.flags & log::flag_absent) != 0;
      a.size = r.length, a.mode = r.mode, a.uid = r.uid, a.gid = r.gid;
      a.mtime_ns = r.mtime_ns, a.atime_ns = r.atime_ns;
      it->second.xattrs.assign(r.payload.begin(), r.payload.end());
    }
  } else if (r.kind == Kind::undo_bytes || r.kind == Kind::undo_hole) {
    take_data(r, group);
  }
  if (count_ <= most_cells_) return {};
  over_ = fmt::format("more than {} names, files and ranges changed since then: look at a later point, or go back",
                      most_cells_);
  return fail(ErrorCode::stale, "{}", over_);
}

// The object's cell stands before its data. Of each byte the first value counts.
void PastView::take_data(const log::Record& r, log::Place group) {
  const auto it = cells_[r.set].objects.find(r.file);
  if (it == cells_[r.set].objects.end() || it->second.absent) return;
  Object& object = it->second;
  const std::uint64_t length = r.kind == Kind::undo_bytes ? r.payload.size() : r.length;
  const std::uint64_t end = std::min(r.offset + length, object.attributes.size);
  if (r.offset >= end) return;
  (void)object.covered.for_each_missing<Status>(r.offset, end, [&](std::uint64_t b, std::uint64_t e) -> Status {
    object.pieces[b] = {e, group, r.sequence, r.offset, r.kind == Kind::undo_hole};
    ++count_;
    return {};
  });
  object.covered.add(r.offset, end);
}

Result<ports::Tree*> PastView::tree_of(SetNumber set) {
  const auto it = trees_.find(set);
  if (it == trees_.end()) return fail(ErrorCode::not_found, "set {} is not in this view", set);
  return it->second.get();
}

const PastView::Object* PastView::object_of(SetNumber set, const FileId& id) const {
  const auto cells = cells_.find(set);
  if (cells == cells_.end()) return nullptr;
  const auto it = cells->second.objects.find(id);
  return it == cells->second.objects.end() ? nullptr : &it->second;
}

Result<std::optional<ports::TreeEntry>> PastView::lookup(SetNumber set, const FileId& dir, std::string_view name) {
  using Found = std::optional<ports::TreeEntry>;
  const auto no_apply = hold_();
  HF_TRY(refresh());
  HF_ASSIGN(ports::Tree * tree, tree_of(set));
  if (dir.is_root() && name == ports::hidden_name) return Found{};
  if (const auto names = cells_[set].names.find(dir); names != cells_[set].names.end())
    if (const auto it = names->second.find(name); it != names->second.end()) {
      if (it->second.id.is_none()) return Found{};
      return Found(ports::TreeEntry{std::string(name), it->second.id, it->second.type});
    }
  HF_ASSIGN(auto found, tree->lookup(dir, name));
  if (found && found->id.is_none()) return Found{};
  return found;
}

// Read in pieces, and apply goes on in between. What it changes then has a cell, whether the listing saw it or not.
Result<std::vector<ports::TreeEntry>> PastView::list(SetNumber set, const FileId& dir) {
  std::map<std::string, ports::TreeEntry> all;
  for (std::uint64_t cookie = 0;;) {
    const auto no_apply = hold_();
    HF_TRY(refresh());
    HF_ASSIGN(ports::Tree * tree, tree_of(set));
    HF_ASSIGN(auto chunk, tree->list(dir, cookie, list_chunk));
    for (auto& e : chunk.entries)
      if (!e.id.is_none()) all.insert_or_assign(e.name, std::move(e));
    cookie = chunk.cookie;
    if (!chunk.end) continue;
    if (const auto names = cells_[set].names.find(dir); names != cells_[set].names.end())
      for (const auto& [name, then] : names->second) {
        if (then.id.is_none())
          all.erase(name);
        else
          all[name] = {name, then.id, then.type};
      }
    break;
  }
  std::vector<ports::TreeEntry> entries;
  entries.reserve(all.size());
  for (auto& [name, entry] : all) entries.push_back(std::move(entry));
  return entries;
}

// A file's names then are those of now, less those it got since, and those it lost since. Which ones it got is not known without asking for every
// name that changed; but it had one at least.
Status PastView::count_links(SetNumber set, const FileId& id, ports::Tree& tree, ports::PastAttributes& a) {
  const auto cells = cells_.find(set);
  std::uint64_t lost = 0;
  if (cells != cells_.end())
    if (const auto it = cells->second.named.find(id); it != cells->second.named.end()) lost = it->second;
  std::uint64_t now = a.links;
  if (lost != 0 && now != 0) {
    HF_ASSIGN(const auto grave, tree.in_grave(id));
    if (grave) --now;
  }
  a.links_known = now == 0 || (now == 1 && lost == 0);
  a.links = std::max<std::uint64_t>(1, now == 0 ? lost : now);
  return {};
}

Result<ports::PastAttributes> PastView::attributes_held(SetNumber set, const FileId& id) {
  HF_ASSIGN(ports::Tree * tree, tree_of(set));
  HF_ASSIGN(const auto now, tree->attributes(id));
  const Object* then = object_of(set, id);
  if ((then && then->absent) || !now) return fail(ErrorCode::not_found, "there was no object {} then", id.to_hex());
  ports::PastAttributes a{then ? then->attributes : *now};
  a.rdev = now->rdev;
  a.links = is_folder(a.mode) ? 2 : now->links;
  if (!is_folder(a.mode)) HF_TRY(count_links(set, id, *tree, a));
  a.allocated_bytes = is_regular(a.mode) ? a.size : 0;
  a.ctime_ns = a.mtime_ns;
  return a;
}

Result<ports::PastAttributes> PastView::attributes(SetNumber set, const FileId& id) {
  const auto no_apply = hold_();
  HF_TRY(refresh());
  return attributes_held(set, id);
}

Result<Bytes> PastView::xattrs(SetNumber set, const FileId& id) {
  const auto no_apply = hold_();
  HF_TRY(refresh());
  HF_ASSIGN(ports::Tree * tree, tree_of(set));
  if (const Object* then = object_of(set, id)) return then->xattrs;
  return tree->read_xattrs(id);
}

Result<std::string> PastView::target(SetNumber set, const FileId& id) {
  const auto no_apply = hold_();
  HF_TRY(refresh());
  HF_ASSIGN(ports::Tree * tree, tree_of(set));
  return tree->read_target(id);
}

Result<std::size_t> PastView::read(SetNumber set, const FileId& id, std::uint64_t offset,
                                   std::span<std::uint8_t> into) {
  const auto no_apply = hold_();
  HF_TRY(refresh());
  HF_ASSIGN(const auto a, attributes_held(set, id));
  if (offset >= a.size) return std::size_t{0};
  into = into.first(std::min<std::uint64_t>(into.size(), a.size - offset));
  HF_ASSIGN(ports::Tree * tree, tree_of(set));
  HF_ASSIGN(const std::size_t got, tree->read(id, offset, into));
  std::fill(into.begin() + static_cast<std::ptrdiff_t>(got), into.end(), std::uint8_t{0});
  if (const Object* then = object_of(set, id)) {
    auto it = then->pieces.upper_bound(offset);
    if (it != then->pieces.begin()) --it;
    for (; it != then->pieces.end() && it->first < offset + into.size(); ++it)
      HF_TRY(copy_piece(it->first, it->second, offset, into));
  }
  return into.size();
}

// The part of the piece that lies in `into`, whose first byte is at `offset` of the file.
Status PastView::copy_piece(std::uint64_t begin, const Piece& piece, std::uint64_t offset,
                            std::span<std::uint8_t> into) {
  const std::uint64_t from = std::max(begin, offset), to = std::min<std::uint64_t>(piece.end, offset + into.size());
  if (from >= to) return {};
  const auto target = into.subspan(from - offset, to - from);
  if (piece.hole) {
    std::fill(target.begin(), target.end(), std::uint8_t{0});
    return {};
  }
  if (!cached_ || cached_place_ != piece.group) {
    log::Place at = piece.group;
    HF_ASSIGN(cached_, journal_.group_at(at));
    cached_place_ = piece.group;
  }
  const auto gone = [&] {
    return fail(ErrorCode::corrupt, "record {} is not in the undo history", piece.record.value);
  };
  if (!cached_) return gone();
  for (ByteView rest = cached_->records; !rest.empty();) {
    const log::RecordHead head = log::head_of(rest.data());
    if (head.sequence != piece.record) {
      rest = rest.subspan(head.length);
      continue;
    }
    HF_ASSIGN(const log::Record r, log::decode(rest.first(head.length)));
    if (to - piece.record_offset > r.payload.size()) return gone();
    std::copy_n(r.payload.begin() + static_cast<std::ptrdiff_t>(from - piece.record_offset), target.size(),
                target.begin());
    return {};
  }
  return gone();
}

}  // namespace holdfast::mirror
