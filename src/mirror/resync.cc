// SPDX-License-Identifier: Apache-2.0
#include "mirror/resync.h"

#include <algorithm>
#include <memory>

#include "base/check.h"
#include "log/hash.h"
#include "log/ship.h"
#include "log/xattrs.h"
#include "mirror/file_type.h"
#include "mirror/node_record.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

constexpr std::size_t objects_ahead = 32;
// Attributes of one object: the file system's limit for one value is 64 KiB, and few have more than one big one.
constexpr std::size_t node_piece_bytes = 16 * 1024;
constexpr std::size_t big_node_piece_bytes = log::max_payload_bytes;
// Any write takes it away from a file, shipped bytes too: it is said again after them.
constexpr std::string_view capability_attribute = "security.capability";
constexpr std::size_t capability_piece_bytes = 256;

Result<bool> has_capability(ByteView xattrs) {
  if (xattrs.empty()) return false;
  HF_ASSIGN(const auto list, log::decode_xattrs(xattrs));
  return std::any_of(list.begin(), list.end(), [](const auto& x) { return x.name == capability_attribute; });
}

}  // namespace

Resync::Resync(ActiveLog& log, ports::LiveTree& tree, NodeId peer, SetNumber set, bool peer_empty)
    : log_(log),
      tree_(tree),
      peer_(peer),
      set_(set),
      peer_empty_(peer_empty),
      buffer_(std::max(hash_chunk_bytes, data_chunk_bytes)) {
  ++log_.resyncs();
}

void Resync::moved(const FileId& id) {
  const std::lock_guard lock(mutex_);
  if (moved_once_.insert(id).second) moved_.push_back(id);
}
void Resync::nak(const Nak& nak) {
  const std::lock_guard lock(mutex_);
  naks_.push_back(nak);
  changed_.notify_all();
}
void Resync::acked(const Ack& ack) {
  const std::lock_guard lock(mutex_);
  ack_ = ack;
  ++acks_;
  while (!outstanding_.empty() && outstanding_.front().first <= ack.durable) {
    outstanding_bytes_ -= outstanding_.front().second;
    outstanding_.pop_front();
  }
  changed_.notify_all();
}
void Resync::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}
ResyncProgress Resync::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

Status Resync::reserve(std::vector<std::size_t> pieces) {
  CHECK(pieces_.empty(), "space of an earlier step is left");
  std::size_t sum = 0;
  for (const std::size_t p : pieces) sum += p;
  const std::size_t window = std::min(resync_window_bytes, log_.ring().size_bytes() / 4);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return cancelled_ || outstanding_bytes_ == 0 || outstanding_bytes_ + sum <= window; });
  while (!cancelled_) {
    lock.unlock();
    std::size_t taken = 0;
    while (taken < pieces.size() && log_.try_reserve(pieces[taken])) ++taken;
    if (taken == pieces.size()) {
      pieces_ = std::move(pieces);
      return {};
    }
    for (std::size_t i = 0; i < taken; ++i) log_.give_back(pieces[i]);
    // Applications come first: bulk asks again when peers have moved on.
    lock.lock();
    const std::uint64_t seen = acks_;  // heartbeats carry acks too, so this never waits for ever
    changed_.wait(lock, [&] { return cancelled_ || acks_ != seen; });
  }
  return fail(ErrorCode::unavailable, "the resynchronization was interrupted");
}

void Resync::append(Record& r, std::size_t piece) {
  const auto it = std::find(pieces_.begin(), pieces_.end(), piece);
  CHECK(it != pieces_.end(), "no space was reserved for {}", log::to_string(r.kind));
  pieces_.erase(it);
  r.set = set_;
  r.addressed_to = peer_;
  last_ = log_.append(r, piece);
  const std::lock_guard lock(mutex_);
  outstanding_.emplace_back(last_, r.payload.size() + log::record_overhead_bytes);
  outstanding_bytes_ += r.payload.size() + log::record_overhead_bytes;
}

void Resync::give_back_rest() {
  for (const std::size_t p : pieces_) log_.give_back(p);
  pieces_.clear();
}

Status Resync::append_mark(Kind kind) {
  HF_TRY(reserve({0}));
  Record r;
  r.kind = kind;
  append(r, 0);
  return {};
}

Status Resync::run() {
  Status status = walk();
  give_back_rest();
  --log_.resyncs();
  return status;
}

// Whether the peer holds nothing of the set is known at the latest when it has begun: it says so (channel.h, Nak) before it acknowledges that.
Status Resync::begin() {
  HF_TRY(append_mark(Kind::resync_begin));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return cancelled_ || ack_.applied >= last_; });
  if (cancelled_) return fail(ErrorCode::unavailable, "the resynchronization was interrupted");
  const auto is_for_all = [](const Nak& nak) { return nak.file.is_none(); };
  if (std::any_of(naks_.begin(), naks_.end(), is_for_all)) peer_empty_ = true;
  std::erase_if(naks_, is_for_all);
  return {};
}

Status Resync::walk() {
  HF_TRY(begin());
  stack_.push_back(FileId::root(set_));
  {
    const std::lock_guard lock(mutex_);
    progress_.total = 1;
  }
  for (FileId id;;) {
    HF_ASSIGN(const bool more, next(id));
    if (!more) break;
    if (id.is_none()) continue;
    look_ahead(1);
    Status status = ship(id);
    give_back_rest();
    if (!status && status.error().code != ErrorCode::not_found) return status;
    const std::lock_guard lock(mutex_);
    ++progress_.done;
  }
  return append_mark(Kind::resync_end);
}

// The next object to ship (none: a NAK was served instead). False: everything is shipped, applied and confirmed.
Result<bool> Resync::next(FileId& id) {
  id = {};
  std::unique_lock lock(mutex_);
  for (;;) {
    if (cancelled_) return fail(ErrorCode::unavailable, "the resynchronization was interrupted");
    if (!naks_.empty()) {
      const Nak nak = naks_.front();
      naks_.pop_front();
      lock.unlock();
      if (nak.length == 0) {
        shipped_.erase(nak.file);
        again_.insert(nak.file);
        stack_.push_back(nak.file);
        return true;
      }
      Status status = ship_bytes_again(nak);
      give_back_rest();
      if (!status && status.error().code != ErrorCode::not_found) return tl::unexpected(std::move(status).error());
      return true;
    }
    for (; !moved_.empty(); moved_.pop_front())
      if (!shipped_.contains(moved_.front())) stack_.push_back(moved_.front());
    moved_once_.clear();
    while (!stack_.empty()) {
      id = stack_.back();
      stack_.pop_back();
      if (shipped_.insert(id).second) return true;
    }
    id = {};
    if (ack_.applied >= last_) return false;
    changed_.wait(lock, [&] { return cancelled_ || !naks_.empty() || ack_.applied >= last_; });
  }
}

// Disks are asked for what is shipped next while this is shipped: of the objects that are waiting, those that newly belong to the next few.
void Resync::look_ahead(std::size_t came_nearer) {
  const std::size_t near = std::min(objects_ahead, stack_.size());
  for (std::size_t back = near; back > near - std::min(near, came_nearer); --back)
    tree_.will_read(set_, stack_[stack_.size() - back]);
}

// A folder's listing names its children's types; symlinks and special files must be known to the peer before they are named, because
// they can't be made empty and filled later.
Status Resync::ship(const FileId& id) {
  std::uint64_t offset = 0;
  After after = After::done;
  bool folder = false;
  std::size_t node_piece = node_piece_bytes;
  for (bool shipped = false; !shipped;) {
    HF_TRY(reserve({node_piece, data_chunk_bytes, capability_piece_bytes}));
    HF_TRY(tree_.with_object(set_, id, [&](ports::LiveObject& object) -> Status {
      HF_ASSIGN(const auto attributes, object.attributes());
      HF_ASSIGN(const Bytes xattrs, object.xattrs());
      if (xattrs.size() + log::max_target_bytes > node_piece) {
        node_piece = big_node_piece_bytes;
        return {};
      }
      folder = is_folder(attributes.mode);
      shipped = true;
      std::string target;
      HF_ASSIGN(Record r, node_record(Kind::ship_node, id, attributes, xattrs, object, target));
      append(r, node_piece);
      HF_ASSIGN(const bool capable, has_capability(xattrs));
      if (!is_regular(attributes.mode)) return {};
      HF_ASSIGN(after, append_extent(object, id, attributes, offset, capable));
      return {};
    }));
    give_back_rest();
  }
  if (folder) return ship_folder(id);
  while (after == After::more) {
    HF_TRY(reserve({data_chunk_bytes, capability_piece_bytes}));
    HF_TRY(tree_.with_object(set_, id, [&](ports::LiveObject& object) -> Status {
      HF_ASSIGN(const auto attributes, object.attributes());
      HF_ASSIGN(const Bytes xattrs, object.xattrs());
      HF_ASSIGN(const bool capable, has_capability(xattrs));
      HF_ASSIGN(after, append_extent(object, id, attributes, offset, capable));
      return {};
    }));
    give_back_rest();
  }
  return {};
}

Status Resync::ship_folder(const FileId& id) {
  std::uint64_t cookie = 0;
  for (bool first = true, end = false; !end;) {
    std::vector<FileId> before;  // must be shipped before this chunk can be
    ports::TreeListing listing;
    HF_TRY(reserve({listing_bytes}));
    HF_TRY(tree_.with_object(set_, id, [&](ports::LiveObject& object) -> Status {
      HF_ASSIGN(listing, object.list(cookie, log::max_ship_entries, listing_bytes));
      for (const auto& e : listing.entries)
        if (!is_regular(e.mode) && !is_folder(e.mode) && !shipped_.contains(e.id)) before.push_back(e.id);
      if (!before.empty()) return {};
      HF_ASSIGN(const auto attributes, object.attributes());
      Bytes payload;
      for (const auto& e : listing.entries) log::append_ship_entry(payload, {e.id, e.mode & type_mask, e.name});
      Record r;
      r.kind = Kind::ship_dir;
      r.file = id;
      r.flags = (first ? log::flag_first_chunk : 0) | (listing.end ? log::flag_last_chunk : 0);
      r.mtime_ns = attributes.mtime_ns;
      r.payload = payload;
      append(r, listing_bytes);
      return {};
    }));
    give_back_rest();
    for (const FileId& special : before) {
      if (!shipped_.insert(special).second) continue;
      Status status = ship(special);
      give_back_rest();
      if (!status && status.error().code != ErrorCode::not_found) return status;
    }
    if (!before.empty()) continue;                                             // the same chunk again
    for (auto e = listing.entries.rbegin(); e != listing.entries.rend(); ++e)  // the first is taken first
      if (!shipped_.contains(e->id)) stack_.push_back(e->id);
    look_ahead(listing.entries.size());
    {
      const std::lock_guard lock(mutex_);
      progress_.total += listing.entries.size();
    }
    first = false;
    cookie = listing.cookie;
    end = listing.end;
  }
  return {};
}

// One extent from `offset` on: a hole, bytes or a hash, in the space reserved as data_chunk_bytes. After the last one, in capability_piece_bytes,
// what they may have taken away.
Result<Resync::After> Resync::append_extent(ports::LiveObject& object, const FileId& id,
                                            const ports::NodeAttributes& attributes, std::uint64_t& offset,
                                            bool capable) {
  if (offset >= attributes.size) return After::done;
  const bool peer_empty = peer_empty_ && !again_.contains(id);
  HF_ASSIGN(const std::uint64_t data, object.next_data(offset));
  if (data > offset) {
    if (!peer_empty) {
      Record r;
      r.kind = Kind::ship_data;
      r.file = id;
      r.offset = offset;
      r.length = std::min(data, attributes.size) - offset;
      r.mtime_ns = attributes.mtime_ns;
      append(r, data_chunk_bytes);
    }
    offset = data;
    if (offset < attributes.size) return After::more;
    if (capable) HF_TRY(append_capability(object, id));
    return After::done;
  }
  HF_ASSIGN(const std::uint64_t hole, object.next_hole(offset));
  const std::uint64_t length = std::min<std::uint64_t>(std::min(hole, attributes.size) - offset,
                                                       peer_empty ? data_chunk_bytes : hash_chunk_bytes);
  if (peer_empty) {
    HF_TRY(append_bytes(object, id, attributes, offset, length));
  } else {
    HF_ASSIGN(const std::size_t n, object.read(offset, std::span(buffer_).first(length)));
    const auto hash = log::content_hash(ByteView(buffer_).first(n));
    Record r;
    r.kind = Kind::ship_hash;
    r.file = id;
    r.offset = offset;
    r.length = n;
    r.payload = hash;
    append(r, data_chunk_bytes);
  }
  offset += length;
  {
    const std::lock_guard lock(mutex_);
    progress_.bytes += length;
  }
  if (offset < attributes.size) return After::more;
  if (capable) HF_TRY(append_capability(object, id));
  return After::done;
}

Status Resync::append_capability(ports::LiveObject& object, const FileId& id) {
  HF_ASSIGN(const Bytes xattrs, object.xattrs());
  HF_ASSIGN(const auto list, log::decode_xattrs(xattrs));
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

Status Resync::ship_bytes_again(const Nak& nak) {
  if (nak.length > data_chunk_bytes) return fail(ErrorCode::corrupt, "a peer asks for {} bytes at once", nak.length);
  HF_TRY(reserve({data_chunk_bytes, capability_piece_bytes}));
  return tree_.with_object(set_, nak.file, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    HF_TRY(append_bytes(object, nak.file, attributes, nak.offset, nak.length));
    return append_capability(object, nak.file);
  });
}

}  // namespace holdfast::mirror
