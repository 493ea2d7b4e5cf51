// SPDX-License-Identifier: Apache-2.0
#include "mirror/apply_verify.h"

#include <algorithm>

#include "log/hash.h"
#include "log/ship.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

constexpr std::size_t list_chunk = 4096;
constexpr std::size_t max_answers =
    8;  // of one chunk of a listing: the folder is asked about again, and repaired as a whole
constexpr std::size_t zeros_chunk_bytes = 256 * 1024;
constexpr std::int64_t second_ns = 1'000'000'000;

// A file system that keeps whole seconds can't keep more.
bool same_time(std::int64_t here, std::int64_t said) {
  return here == said || (here % second_ns == 0 && here / second_ns == said / second_ns);
}

Record as_shipped(const Record& r) {
  Record shipped = r;
  shipped.kind = r.kind == Kind::repair_node  ? Kind::ship_node
                 : r.kind == Kind::repair_dir ? Kind::ship_dir
                                              : Kind::ship_data;
  return shipped;
}

void note_in(std::unordered_map<FileId, std::unordered_set<std::string>>& listings, const FileId& dir,
             std::string_view name, bool there) {
  const auto it = listings.find(dir);
  if (it == listings.end()) return;
  if (there)
    it->second.emplace(name);
  else
    it->second.erase(std::string(name));
}

}  // namespace

void VerifyMemory::note(const Record& r) {
  if ((checked_.empty() && repair_.listings.empty()) || !changes_names(r.kind)) return;
  const bool rename = r.kind == Kind::rename;
  if (rename && r.file == r.replaced) return;
  const bool stays =
      r.kind == Kind::unlink || r.kind == Kind::rmdir ? false : !rename || (r.flags & log::flag_rename_exchange) != 0;
  for (auto* listings : {&checked_, &repair_.listings}) {
    note_in(*listings, r.parent, r.name, stays);
    if (rename) note_in(*listings, r.parent2, r.name2, true);
  }
}

void VerifyApply::differs(const Record& r, std::uint32_t what, std::string_view name) {
  answer_({r.sequence, r.set, r.file, what, r.offset, r.length, std::string(name)});
}

Status VerifyApply::apply(const Record& r) {
  if (is_repair(r.kind)) return repair(r);
  if (!exact_) {
    differs(r, differs_not_compared);
    return {};
  }
  HF_TRY(batch_.flush());  // what this batch has left to its end belongs to the comparison
  Status done = check(r);
  if (done || done.error().code != ErrorCode::io) return done;
  differs(r, differs_unreadable);  // a disk that can't be read is no reason to stop the copy of everything else
  return {};
}

Status VerifyApply::check(const Record& r) {
  HF_ASSIGN(const auto there, raw_.attributes(r.file));
  if (!there) {
    differs(r, differs_missing);
    return {};
  }
  switch (r.kind) {
    case Kind::check_node:
      return check_node(r);
    case Kind::check_dir:
      return check_dir(r);
    default:
      return check_data(r);
  }
}

Status VerifyApply::check_node(const Record& r) {
  HF_ASSIGN(const auto there, raw_.attributes(r.file));
  std::uint32_t what = 0;
  if (((there->mode ^ r.mode) & type_mask) != 0) {
    differs(r, differs_type);
    return {};
  }
  if (there->mode != r.mode) what |= differs_mode;
  if (there->uid != r.uid || there->gid != r.gid) what |= differs_owner;
  if (!is_regular(r.mode) && !is_folder(r.mode) && !is_symlink(r.mode) && there->rdev != r.rdev) what |= differs_type;
  if (is_regular(r.mode) && there->size != r.length) what |= differs_size;
  if ((r.valid & log::valid_mtime) && !same_time(there->mtime_ns, r.mtime_ns)) what |= differs_mtime;
  if (is_symlink(r.mode)) {
    HF_ASSIGN(const std::string target, raw_.read_target(r.file));
    if (target != r.name2) what |= differs_target;
  }
  HF_ASSIGN(const Bytes xattrs, raw_.read_xattrs(r.file));
  const auto hash = log::content_hash(xattrs);
  if (!std::equal(hash.begin(), hash.end(), r.payload.begin(), r.payload.end())) what |= differs_xattrs;
  if (what != 0) differs(r, what);
  return {};
}

Status VerifyApply::check_dir(const Record& r) {
  if (r.flags & log::flag_first_chunk) {
    memory_.checked_.clear();  // the active asks about one folder at a time
    memory_.checked_[r.file];
  }
  const auto listing = memory_.checked_.find(r.file);
  if (listing == memory_.checked_.end()) {
    differs(r, differs_not_compared);
    return {};
  }
  std::size_t answered = 0, count = 0;
  log::ShipEntryReader reader(r.payload);
  for (;;) {
    HF_ASSIGN(const auto entry, reader.next());
    if (!entry) break;
    if (++count > log::max_ship_entries)
      return fail(ErrorCode::corrupt, "set {}: a listing's chunk of more than {} entries", r.set,
                  log::max_ship_entries);
    listing->second.emplace(entry->name);
    HF_ASSIGN(const auto found, raw_.lookup(r.file, entry->name));
    if (found && found->id == entry->id && ((found->mode ^ entry->mode) & type_mask) == 0) continue;
    if (++answered <= max_answers) differs(r, found ? differs_name_other : differs_name_missing, entry->name);
  }
  if (!(r.flags & log::flag_last_chunk)) return {};
  Status done = find_extra(r, listing->second, answered);
  memory_.checked_.erase(r.file);
  return done;
}

Status VerifyApply::find_extra(const Record& r, const std::unordered_set<std::string>& listed, std::size_t& answered) {
  for (std::uint64_t cookie = 0;;) {
    HF_ASSIGN(const auto chunk, raw_.list(r.file, cookie, list_chunk));
    for (const auto& entry : chunk.entries)
      if (!listed.contains(entry.name) && ++answered <= max_answers) differs(r, differs_name_extra, entry.name);
    if (chunk.end) return {};
    cookie = chunk.cookie;
  }
}

// Bytes that differ in a file whose size and time are the same on both nodes: neither the log nor anybody who used the file system did that.
Status VerifyApply::check_data(const Record& r) {
  if (!r.payload.empty() && r.length > ports::most_digest_bytes)
    return fail(ErrorCode::corrupt, "set {}: a hash over {} bytes", r.set, r.length);
  HF_ASSIGN(const bool same, r.payload.empty() ? is_hole(r) : same_bytes(r));
  if (same) return {};
  HF_ASSIGN(const auto there, raw_.attributes(r.file));
  differs(r, differs_contents | (same_time(there->mtime_ns, r.mtime_ns) ? 0 : differs_mtime) |
                 (there->size == r.size ? 0 : differs_size));
  return {};
}

Result<bool> VerifyApply::same_bytes(const Record& r) {
  Bytes own(r.length);
  HF_ASSIGN(const std::size_t n, raw_.read_aside(r.file, r.offset, own));
  const auto hash = log::content_hash(ByteView(own).first(n));
  return n == r.length && std::equal(hash.begin(), hash.end(), r.payload.begin(), r.payload.end());
}

// Zeros and a hole are the same to who reads them; file systems differ in what they allocate. A hole that is allocated by far is not one.
Result<bool> VerifyApply::is_hole(const Record& r) {
  HF_ASSIGN(const auto there, raw_.attributes(r.file));
  if (r.offset + r.length < r.offset || there->size < r.offset + r.length) return false;
  const std::uint64_t end = r.offset + r.length;
  std::uint64_t read = 0;
  Bytes own(zeros_chunk_bytes);
  for (std::uint64_t at = r.offset; at < end;) {
    HF_ASSIGN(const std::uint64_t data, raw_.next_data(r.file, at));
    if (data >= end) return true;
    HF_ASSIGN(const std::uint64_t hole, raw_.next_hole(r.file, data));
    const std::uint64_t length = std::min<std::uint64_t>({hole, end, data + own.size()}) - data;
    HF_ASSIGN(const std::size_t n, raw_.read_aside(r.file, data, std::span(own).first(length)));
    if (n != length || std::any_of(own.begin(), own.begin() + static_cast<long>(n), [](auto b) { return b != 0; }))
      return false;
    read += n;
    if (read > zeros_limit_bytes) return false;
    at = data + n;
  }
  return true;
}

Status VerifyApply::repair(const Record& r) {
  if (r.kind == Kind::repair_node) {
    HF_ASSIGN(const auto there, raw_.attributes(r.file));
    if (there && ((there->mode ^ r.mode) & type_mask) != 0) {
      differs(r, differs_type);
      return {};
    }
  }
  // The active repairs one folder at a time.
  if (r.kind == Kind::repair_dir && (r.flags & log::flag_first_chunk)) memory_.repair_ = {};
  Staged nothing_staged;
  HF_TRY(ResyncApply(batch_, memory_.repair_, nothing_staged, [&](const Nak&) {
           differs(r, differs_not_compared);
         }).apply(as_shipped(r)));
  if (std::exchange(memory_.repair_.broken, false)) differs(r, differs_not_compared);
  return {};
}

}  // namespace holdfast::mirror
