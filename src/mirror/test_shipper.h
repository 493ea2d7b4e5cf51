// SPDX-License-Identifier: Apache-2.0
// For tests only: the active's side of a resynchronization (mirror/resync.h) over a ModelTree, one record a call, so that changes of the
// application can come between any two.
#pragma once

#include <algorithm>
#include <deque>
#include <unordered_set>

#include "log/hash.h"
#include "log/ship.h"
#include "mirror/channel.h"
#include "mirror/test_application.h"

namespace holdfast::mirror::testing {

class Shipper {
 public:
  Shipper(const ModelTree& tree, SetNumber set, bool peer_empty) : tree_(tree), set_(set), peer_empty_(peer_empty) {
    stack_.push_back(tree.root());
  }
  void moved(const FileId& id) { moved_.push_back(id); }
  void nak(const Nak& nak) {
    if (!nak.file.is_none())
      naks_.push_back(nak);
    else if (shipped_.empty())
      peer_empty_ = true;
  }
  bool ended() const { return ended_; }
  // The next record. False: nothing to say before more is acknowledged. `caught_up`: the peer has applied all that was shipped.
  bool step(OwnedRecord& out, bool caught_up);

 private:
  using Kind = log::Kind;
  enum class What { node, contents, capability, folder };
  struct Job {
    What what = What::node;
    FileId id;
    std::uint64_t offset = 0;
    std::string after;  // folder: names up to here are shipped
    bool first = true;
  };
  // Sectors and entries a record, so that a small tree makes many.
  static constexpr std::uint64_t chunk_bytes = 2 * sector_bytes;
  static constexpr std::size_t chunk_entries = 3;

  const ModelNode* alive(const FileId& id) const {
    const ModelNode* node = tree_.find(id);
    return node && node->links > 0 ? node : nullptr;
  }
  bool one(const ModelNode& n, OwnedRecord& out);
  bool node(const ModelNode& n, OwnedRecord& out);
  bool contents(const ModelNode& n, OwnedRecord& out);
  bool capability(const ModelNode& n, OwnedRecord& out);
  bool folder(const ModelNode& n, OwnedRecord& out);
  bool bytes_again(const Nak& nak, OwnedRecord& out);
  void bytes(const ModelNode& n, const FileId& id, std::uint64_t offset, std::uint64_t length, OwnedRecord& out);

  const ModelTree& tree_;
  SetNumber set_;
  bool peer_empty_, ended_ = false;
  std::vector<FileId> stack_;
  std::vector<Job> jobs_;                       // the last one is being done
  std::unordered_set<FileId> shipped_, again_;  // again: the peer asked for all of it, and has something
  std::deque<FileId> moved_;
  std::deque<Nak> naks_;
};

inline bool Shipper::step(OwnedRecord& out, bool caught_up) {
  out = {};
  out.record.set = set_;
  for (;;) {
    while (!jobs_.empty()) {
      const Job& job = jobs_.back();
      const ModelNode* n = alive(job.id);
      if (!n) {
        jobs_.pop_back();
        continue;
      }
      if (one(*n, out)) return true;
    }
    if (!naks_.empty()) {
      const Nak nak = naks_.front();
      naks_.pop_front();
      if (nak.length == 0) {
        shipped_.erase(nak.file);
        again_.insert(nak.file);
        stack_.push_back(nak.file);
      } else if (bytes_again(nak, out)) {
        return true;
      }
      continue;
    }
    for (; !moved_.empty(); moved_.pop_front())
      if (!shipped_.contains(moved_.front())) stack_.push_back(moved_.front());
    if (stack_.empty()) {
      if (!caught_up || ended_) return false;
      out.record.kind = Kind::resync_end;
      ended_ = true;
      return true;
    }
    const FileId id = stack_.back();
    stack_.pop_back();
    if (shipped_.insert(id).second) jobs_.push_back({What::node, id, 0, {}, true});
  }
}

inline bool Shipper::one(const ModelNode& n, OwnedRecord& out) {
  switch (jobs_.back().what) {
    case What::node:
      return node(n, out);
    case What::contents:
      return contents(n, out);
    case What::capability:
      return capability(n, out);
    case What::folder:
      return folder(n, out);
  }
  return false;
}

// Shipped bytes take it away from the peer's file, as any write does.
inline bool Shipper::capability(const ModelNode& n, OwnedRecord& out) {
  const FileId id = jobs_.back().id;
  jobs_.pop_back();
  const auto it = n.xattrs.find(std::string_view(capability_attribute));
  if (it == n.xattrs.end()) return false;
  out.record.kind = Kind::set_xattr;
  out.record.file = id;
  out.name = it->first;
  out.payload = it->second;
  return true;
}

inline bool Shipper::node(const ModelNode& n, OwnedRecord& out) {
  Job& job = jobs_.back();
  out.record.kind = Kind::ship_node;
  out.record.file = job.id;
  out.record.mode = n.mode;
  out.record.uid = n.uid;
  out.record.gid = n.gid;
  out.record.rdev = n.rdev;
  out.record.length = n.data.size();
  out.record.mtime_ns = n.mtime_ns;
  out.record.atime_ns = n.atime_ns;
  out.payload = encode_xattr_map(n.xattrs);
  out.name2 = n.target;
  if (is_folder(n.mode))
    job.what = What::folder;
  else if (is_regular(n.mode))
    job.what = What::contents;
  else
    jobs_.pop_back();
  return true;
}

inline void Shipper::bytes(const ModelNode& n, const FileId& id, std::uint64_t offset, std::uint64_t length,
                           OwnedRecord& out) {
  out.payload.resize(length);
  out.payload.resize(n.data.read(offset, out.payload));
  out.record.kind = Kind::ship_data;
  out.record.file = id;
  out.record.offset = offset;
  out.record.length = out.payload.size();
  out.record.mtime_ns = n.mtime_ns;
}

inline bool Shipper::contents(const ModelNode& n, OwnedRecord& out) {
  Job& job = jobs_.back();
  const bool peer_empty = peer_empty_ && !again_.contains(job.id);
  while (job.offset < n.data.size()) {
    const std::uint64_t data = n.data.next_data(job.offset);
    if (data > job.offset) {
      const std::uint64_t from = std::exchange(job.offset, data);
      if (peer_empty) continue;
      out.record.kind = Kind::ship_data;
      out.record.file = job.id;
      out.record.offset = from;
      out.record.length = data - from;
      out.record.mtime_ns = n.mtime_ns;
      return true;
    }
    const std::uint64_t length = std::min(n.data.next_hole(job.offset) - job.offset, chunk_bytes);
    bytes(n, job.id, job.offset, length, out);
    if (!peer_empty) {
      const auto hash = log::content_hash(out.payload);
      out.record.kind = Kind::ship_hash;
      out.payload.assign(hash.begin(), hash.end());
    }
    job.offset += length;
    return true;
  }
  if (n.data.size() > 0)
    job.what = What::capability;
  else
    jobs_.pop_back();
  return false;
}

inline bool Shipper::folder(const ModelNode& n, OwnedRecord& out) {
  std::vector<std::pair<std::string, FileId>> chunk;
  auto it = jobs_.back().first ? n.names.begin() : n.names.upper_bound(jobs_.back().after);
  for (; it != n.names.end() && chunk.size() < chunk_entries; ++it) chunk.emplace_back(it->first, it->second);
  const bool end = it == n.names.end();
  // What can't be made empty and filled later must be known to the peer before it is named.
  bool waits = false;
  for (const auto& [name, id] : chunk) {
    const std::uint32_t mode = tree_.find(id)->mode;
    if (is_regular(mode) || is_folder(mode) || !shipped_.insert(id).second) continue;
    jobs_.push_back({What::node, id, 0, {}, true});
    waits = true;
  }
  if (waits) return false;
  Job& job = jobs_.back();
  out.record.kind = Kind::ship_dir;
  out.record.file = job.id;
  out.record.flags = (job.first ? log::flag_first_chunk : 0) | (end ? log::flag_last_chunk : 0);
  out.record.mtime_ns = n.mtime_ns;
  for (const auto& [name, id] : chunk) {
    log::append_ship_entry(out.payload, {id, tree_.find(id)->mode & type_mask, name});
    if (!shipped_.contains(id)) stack_.push_back(id);
  }
  job.first = false;
  if (!chunk.empty()) job.after = chunk.back().first;
  if (end) jobs_.pop_back();
  return true;
}

inline bool Shipper::bytes_again(const Nak& nak, OwnedRecord& out) {
  const ModelNode* n = alive(nak.file);
  if (!n) return false;
  bytes(*n, nak.file, nak.offset, nak.length, out);
  if (out.payload.empty()) return false;
  jobs_.push_back({What::capability, nak.file, 0, {}, true});
  return true;
}

}  // namespace holdfast::mirror::testing
