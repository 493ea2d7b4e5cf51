// SPDX-License-Identifier: Apache-2.0
// What a resynchronization reads of one object, under its lock, and says about it.
#include <algorithm>

#include "log/hash.h"
#include "log/ship.h"
#include "log/xattrs.h"
#include "mirror/file_type.h"
#include "mirror/node_record.h"
#include "mirror/resync.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

// Attributes of one object: the file system's limit for one value is 64 KiB, and few have more than one big one.
constexpr std::size_t node_piece_bytes = 16 * 1024;
constexpr std::size_t big_node_piece_bytes = log::max_payload_bytes;
constexpr std::size_t name_piece_bytes = 255;
// Any write takes it away from a file, shipped bytes too: it is said again after them.
constexpr std::string_view capability_attribute = "security.capability";
constexpr std::size_t capability_piece_bytes = 256;

bool can_be_filled_later(std::uint32_t mode) { return is_regular(mode) || is_folder(mode); }

}  // namespace

Status Resync::advance() {
  switch (work_.back().job.what) {
    case ShipJob::What::object:
    case ShipJob::What::bytes:
      break;
    case ShipJob::What::name_gone:
    case ShipJob::What::name_there:
      return ship_name();
    case ShipJob::What::parent:
      return ship_parent();
  }
  switch (work_.back().at) {
    case Work::At::node:
      return ship_object();
    case Work::At::content:
      return ship_content();
    case Work::At::listing:
      return ship_names();
  }
  return {};
}

// The attributes, and the first of its contents.
Status Resync::ship_object() {
  Work& work = work_.back();
  const std::size_t piece = std::max(work.node_piece, node_piece_bytes);
  HF_TRY(reserve({piece, data_chunk_bytes, capability_piece_bytes}));
  bool done = false;
  count_opened(1);
  HF_TRY(tree_.with_object(set_, work.job.id, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    if (work.job.unless_file && is_regular(attributes.mode)) {
      done = true;
      return {};
    }
    HF_ASSIGN(const Bytes xattrs, object.xattrs());
    if (xattrs.size() + log::max_target_bytes > piece) {
      work.node_piece = big_node_piece_bytes;  // the same again
      return {};
    }
    HF_TRY(append_node(object, work, attributes, xattrs));
    if (is_folder(attributes.mode) && work.job.listing) {
      work.at = Work::At::listing;
    } else if (is_regular(attributes.mode) && !work.job.extents.empty()) {
      work.at = Work::At::content;
      HF_TRY(append_extent(object, work, attributes, &xattrs));
      done = work.extent >= work.job.extents.size();
    } else {
      done = true;
    }
    return {};
  }));
  if (done) finished();
  return {};
}

Status Resync::append_node(ports::LiveObject& object, const Work& work, const ports::NodeAttributes& attributes,
                           ByteView xattrs) {
  std::string target;
  HF_ASSIGN(Record r, node_record(Kind::ship_node, work.job.id, attributes, xattrs, object, target));
  const bool whole = work.job.extents == std::vector<Extent>{{0, end_of_file}};
  if (partial_ && is_regular(attributes.mode) && whole) r.rdev = log::rdev_all_follows;
  if (partial_ && is_folder(attributes.mode) && (work.job.listing || work.job.names_follow))
    r.rdev = log::rdev_all_follows;
  append(r, std::max(work.node_piece, node_piece_bytes));
  if (!partial_ || !is_regular(attributes.mode) || whole || attributes.size == 0) return {};
  const std::lock_guard lock(mutex_);
  unsettled_.emplace_back(last_, Doubt{work.job.id, {}});
  return {};
}

Status Resync::ship_content() {
  Work& work = work_.back();
  HF_TRY(reserve({data_chunk_bytes, capability_piece_bytes}));
  HF_TRY(tree_.with_object(set_, work.job.id, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    return append_extent(object, work, attributes, nullptr);
  }));
  if (work.extent >= work.job.extents.size()) finished();
  return {};
}

// The next piece of the job's extents, as far as the file goes: a hole, bytes or a hash, in the space reserved as data_chunk_bytes. After the last
// one, in capability_piece_bytes, what they may have taken away.
Status Resync::append_extent(ports::LiveObject& object, Work& work, const ports::NodeAttributes& attributes,
                             const Bytes* xattrs) {
  const auto& extents = work.job.extents;
  const auto find_next = [&] {
    for (; work.extent < extents.size(); ++work.extent) {
      work.offset = std::max(work.offset, extents[work.extent].begin);
      if (work.offset < std::min(extents[work.extent].end, attributes.size)) return true;
    }
    return false;
  };
  if (!find_next()) return {};
  const FileId& id = work.job.id;
  const std::uint64_t limit = std::min(extents[work.extent].end, attributes.size);
  HF_ASSIGN(const std::uint64_t data, object.next_data(work.offset));
  if (data > work.offset && work.job.what != ShipJob::What::bytes) {
    if (work.job.content != ShipJob::Content::fresh) {
      Record r;
      r.kind = Kind::ship_data;
      r.file = id;
      r.offset = work.offset;
      r.length = std::min(data, limit) - work.offset;
      r.mtime_ns = attributes.mtime_ns;
      append(r, data_chunk_bytes);
    }
    work.offset = std::min(data, limit);
  } else {
    std::uint64_t end = limit;
    if (work.job.what != ShipJob::What::bytes) {
      HF_ASSIGN(const std::uint64_t hole, object.next_hole(work.offset));
      end = std::min(hole, limit);
    }
    const bool hash = work.job.content == ShipJob::Content::hashes;
    const std::uint64_t length = std::min<std::uint64_t>(end - work.offset, hash ? chunks_.hash : chunks_.data);
    if (hash)
      HF_TRY(append_hash(object, id, work.offset, length));
    else
      HF_TRY(append_bytes(object, id, attributes, work.offset, length));
    work.offset += length;
    const std::lock_guard lock(mutex_);
    progress_.bytes += length;
  }
  return find_next() ? Status{} : append_capability(object, id, xattrs);
}

Status Resync::append_hash(ports::LiveObject& object, const FileId& id, std::uint64_t offset, std::uint64_t length) {
  HF_ASSIGN(const std::size_t n, object.read(offset, std::span(buffer_).first(length)));
  const auto hash = log::content_hash(ByteView(buffer_).first(n));
  Record r;
  r.kind = Kind::ship_hash;
  r.file = id;
  r.offset = offset;
  r.length = n;
  r.payload = hash;
  append(r, data_chunk_bytes);
  return {};
}

Status Resync::append_bytes(ports::LiveObject& object, const FileId& id, const ports::NodeAttributes& attributes,
                            std::uint64_t offset, std::uint64_t length) {
  HF_ASSIGN(const std::size_t n, object.read(offset, std::span(buffer_).first(length)));
  if (n == 0) return {};
  Record r;
  r.kind = Kind::ship_data;
  r.file = id;
  r.offset = offset;
  r.length = n;
  r.mtime_ns = attributes.mtime_ns;
  r.payload = ByteView(buffer_).first(n);
  append(r, data_chunk_bytes);
  return {};
}

Status Resync::append_capability(ports::LiveObject& object, const FileId& id, const Bytes* xattrs) {
  Bytes own;
  if (!xattrs) {
    HF_ASSIGN(own, object.xattrs());
    xattrs = &own;
  }
  if (xattrs->empty()) return {};
  HF_ASSIGN(const auto list, log::decode_xattrs(*xattrs));
  const auto it = std::find_if(list.begin(), list.end(), [](const auto& x) { return x.name == capability_attribute; });
  if (it == list.end()) return {};
  if (it->name.size() + it->value.size() > capability_piece_bytes)
    return fail(ErrorCode::corrupt, "a capability of {} bytes", it->value.size());
  Record r;
  r.kind = Kind::set_xattr;
  r.file = id;
  r.name = it->name;
  r.payload = it->value;
  append(r, capability_piece_bytes);
  return {};
}

// One chunk of a folder. A listing names its children's types; symlinks and special files must be known to the peer before they are named (or it
// asks for them), because they can't be made empty and filled later.
Status Resync::ship_names() {
  Work& work = work_.back();
  std::vector<FileId> before;  // must be shipped before this chunk can be
  ports::TreeListing listing;
  HF_TRY(reserve({listing_bytes}));
  HF_TRY(tree_.with_object(set_, work.job.id, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(listing, object.list(work.cookie, log::max_ship_entries, listing_bytes));
    for (const auto& e : listing.entries)
      if (!can_be_filled_later(e.mode) && plan_->must_precede(e.id)) before.push_back(e.id);
    if (!before.empty()) return {};
    HF_ASSIGN(const auto attributes, object.attributes());
    Bytes payload;
    for (const auto& e : listing.entries) log::append_ship_entry(payload, {e.id, e.mode & type_mask, e.name});
    Record r;
    r.kind = Kind::ship_dir;
    r.file = work.job.id;
    r.flags = (work.first ? log::flag_first_chunk : 0) | (listing.end ? log::flag_last_chunk : 0);
    r.mtime_ns = attributes.mtime_ns;
    r.payload = payload;
    append(r, listing_bytes);
    return {};
  }));
  if (!before.empty()) {  // then the same chunk again
    for (const FileId& special : before) {
      work_.push_back({});
      work_.back().job.id = special;
    }
    return {};
  }
  count_opened(listing.entries.size());
  plan_->listed(listing.entries);
  ask_ahead();
  {
    const std::lock_guard lock(mutex_);
    if (partial_)
      for (const auto& e : listing.entries) unsettled_.emplace_back(last_, Doubt{e.id, work.job.id});
    else
      progress_.total += listing.entries.size();
  }
  work.first = false;
  work.cookie = listing.cookie;
  if (listing.end) finished();
  return {};
}

// Said under the folder's lock, so it is true in the order of changes. A name that came to mean nothing only now is said to do so once more.
Status Resync::ship_name() {
  const Work& work = work_.back();
  const bool only_gone = work.job.what == ShipJob::What::name_gone;
  count_opened(2);  // the folder, and what stands there
  HF_TRY(reserve({name_piece_bytes}));
  Status said = tree_.with_object(set_, work.job.id, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    if (!is_folder(attributes.mode)) return {};
    HF_ASSIGN(const auto there, object.lookup(work.job.name));
    if (!(there && only_gone)) append_name(work, there ? &*there : nullptr, attributes.mtime_ns);
    return {};
  });
  // The folder itself is gone: so is what it held, for those who have it still.
  if (!said && said.error().code == ErrorCode::not_found && only_gone) {
    append_name(work, nullptr, 0);
    said = {};
  }
  HF_TRY(std::move(said));
  finished();
  return {};
}

void Resync::append_name(const Work& work, const ports::TreeEntry* there, std::int64_t parent_mtime_ns) {
  Record r;
  r.kind = there ? Kind::link : Kind::unlink;
  r.parent = work.job.id;
  r.name = work.job.name;
  r.parent_mtime_ns = parent_mtime_ns;
  if (there) {
    r.file = there->id;
    r.mode = there->mode & type_mask;
  }
  append(r, name_piece_bytes);
}

Status Resync::ship_parent() {
  Work& work = work_.back();
  count_opened(2);
  FileId parent;
  HF_TRY(tree_.with_object(set_, work.job.id, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    if (!is_folder(attributes.mode)) return {};
    HF_ASSIGN(parent, object.parent());
    return {};
  }));
  if (parent.is_none()) {
    finished();
    return {};
  }
  work = {};  // the folder in its place
  work.job.id = parent;
  work.job.listing = true;
  return {};
}

}  // namespace holdfast::mirror
