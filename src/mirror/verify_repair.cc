// SPDX-License-Identifier: Apache-2.0
// Of a VerifyWalk: what the peer answered, what was found, and what is done about it.
#include <algorithm>

#include "base/log.h"
#include "log/record_codec.h"
#include "log/ship.h"
#include "mirror/file_type.h"
#include "mirror/node_record.h"
#include "mirror/verify_walk.h"

namespace holdfast::mirror {

using log::Kind;
using log::Record;

namespace {

constexpr std::size_t small_node_room = 16 * 1024;
constexpr std::size_t listing_room = 64 * 1024;
constexpr std::uint32_t explains = differs_mtime | differs_size | differs_missing;
constexpr std::uint32_t beyond_repair = differs_type | differs_target | differs_unreadable;
constexpr std::uint32_t of_names = differs_name_missing | differs_name_extra | differs_name_other;

}  // namespace

std::string describe_differences(std::uint32_t what) {
  static constexpr std::pair<std::uint32_t, const char*> words[] = {
      {differs_missing, "missing"},
      {differs_type, "type"},
      {differs_mode, "mode"},
      {differs_owner, "owner"},
      {differs_xattrs, "extended attributes"},
      {differs_target, "link target"},
      {differs_size, "size"},
      {differs_contents, "contents"},
      {differs_mtime, "modification time"},
      {differs_name_missing, "a name is missing in it"},
      {differs_name_extra, "a name too much in it"},
      {differs_name_other, "a name in it means something else"},
      {differs_unreadable, "unreadable"},
  };
  std::string out;
  for (const auto& [bit, word] : words)
    if (what & bit) out += (out.empty() ? "" : ", ") + std::string(word);
  return out;
}

void VerifyWalk::settle() {
  while (!asked_.empty() && asked_.begin()->first <= applied_) {
    Asked asked = std::move(asked_.begin()->second);
    asked_.erase(asked_.begin());
    answered(std::move(asked));
  }
}

void VerifyWalk::answered(Asked&& asked) {
  Op& op = asked.op;
  if (op.task == Task::check_listing) {  // once for the folder, however many of its chunks differ
    asked.what |= listing_what_[op.id];
    if (!asked.last) {
      listing_what_[op.id] = asked.what;
      no_more_pending(op);
      return;
    }
    listing_what_.erase(op.id);
  }
  if (asked.what & differs_not_compared) {
    ++not_compared_;
    urgent_.push_back(std::move(op));
    return;
  }
  switch (op.phase) {
    case Phase::first:
      if (asked.what == 0) return;
      op.phase = Phase::confirm;
      urgent_.push_back(std::move(op));
      return;
    case Phase::confirm:
      if (asked.what == 0)
        ++vanished_;
      else
        found(op, asked.what);
      return;
    case Phase::after: {
      Finding& finding = findings_[op.id];
      --finding.pending;
      if (asked.what == 0) return;
      finding.what |= asked.what;
      if (++finding.tries < max_tries && !(asked.what & beyond_repair))
        repair(op, asked.what, finding);
      else
        finding.failed = true;
      return;
    }
  }
}

void VerifyWalk::found(const Op& op, std::uint32_t what) {
  const bool is_new = !findings_.contains(op.id);
  Finding& finding = findings_[op.id];
  finding.path = op.path;
  finding.what |= what;
  if (is_new)
    log_warning("verify: set {}: peer {}: \"{}\" differs: {}", plan_.set, to_hex(plan_.peer), op.path,
                describe_differences(what));
  if (what & explains) finding.explained = true;
  if (!plan_.repair || (what & beyond_repair)) {
    finding.failed = true;
    return;
  }
  repair(op, what, finding);
}

void VerifyWalk::queue(Task task, const Op& like, Phase phase) {
  Op op;
  op.task = task;
  op.id = like.id;
  op.path = like.path;
  op.phase = phase;
  if (task == Task::check_range || task == Task::fix_range) {
    op.offset = like.offset;
    op.end = like.end;
    op.stage = Stage::data;
  }
  op.contents = false;
  urgent_.push_back(std::move(op));
  if (phase == Phase::after) ++findings_[like.id].pending;
}

void VerifyWalk::repair(const Op& op, std::uint32_t what, Finding& finding) {
  if (what & differs_missing) {  // all of it; its name comes with the folder that names it
    Op whole = op;
    whole.offset = 0;
    whole.end = ports::to_end;
    queue(Task::fix, op, Phase::first);
    queue(Task::fix_range, whole, Phase::first);
    queue(Task::fix_listing, op, Phase::first);
    queue(Task::check, op, Phase::after);
    queue(Task::check_range, whole, Phase::after);
    queue(Task::check_listing, op, Phase::after);
    return;
  }
  if (what & of_names) {
    full_folders_.insert(op.id);
    queue(Task::fix_listing, op, Phase::first);
    queue(Task::check_listing, op, Phase::after);
    return;
  }
  if (what & differs_contents) {
    if (!finding.explained && !plan_.trust_active) {
      finding.undecided = true;
      return;
    }
    // A write takes capabilities away, and time goes on.
    queue(Task::fix_range, op, Phase::first);
    queue(Task::fix, op, Phase::first);
    queue(Task::check_range, op, Phase::after);
    queue(Task::check, op, Phase::after);
    return;
  }
  queue(Task::fix, op, Phase::first);
  queue(Task::check, op, Phase::after);
  if (!(what & explains) || plan_.kind != VerifyKind::sample) return;
  // Somebody was at this file: a sample is not enough.
  Op all;
  all.id = op.id;
  all.path = op.path;
  all.all = true;
  urgent_.push_back(std::move(all));
}

// Removed meanwhile, on both nodes: what was found there is no more.
void VerifyWalk::gone(const Op& op) {
  listing_what_.erase(op.id);
  const auto it = findings_.find(op.id);
  if (it == findings_.end()) return;
  no_more_pending(op);
  it->second.failed = it->second.undecided = false;
}

void VerifyWalk::unreadable_here(const Op& op, const std::string& why) {
  listing_what_.erase(op.id);
  Finding& finding = findings_[op.id];
  if (!finding.failed) log_error("verify: \"{}\" can't be read on this node: {}", op.path, why);
  no_more_pending(op);
  finding.path = op.path;
  finding.what |= differs_unreadable;
  finding.failed = true;
}

VerifyCounts VerifyWalk::counts() const {
  VerifyCounts c;
  c.objects = objects_;
  c.bytes = bytes_;
  c.differences = findings_.size();
  for (const auto& [id, f] : findings_) {
    if (f.undecided) ++c.undecided;
    ++(f.failed || f.undecided || f.pending > 0 ? c.open : c.repaired);
  }
  return c;
}

std::vector<VerifyExample> VerifyWalk::examples() const {
  std::vector<VerifyExample> out;
  for (const bool open : {true, false})
    for (const auto& [id, f] : findings_) {
      if (out.size() >= max_examples) return out;
      if ((f.failed || f.undecided || f.pending > 0) != open) continue;
      out.push_back({f.path.empty() ? "." : f.path, describe_differences(f.what),
                     !open                      ? "repaired"
                     : f.undecided && !f.failed ? "undecided"
                                                : "open"});
    }
  return out;
}

// The object as it is; one that the peer does not know is made there, without a name yet.
Result<bool> VerifyWalk::fix_node(const FileId& id) {
  const std::size_t room = std::max(node_room_, small_node_room);
  bool fits = true;
  HF_ASSIGN(const bool done, with_object(id, room, [&](ports::LiveObject& object) -> Status {
              HF_ASSIGN(const auto attributes, object.attributes());
              HF_ASSIGN(const Bytes xattrs, object.xattrs());
              fits = xattrs.size() + log::max_target_bytes <= room;
              if (!fits) return {};
              std::string target;
              HF_ASSIGN(Record r, node_record(Kind::repair_node, id, attributes, xattrs, object, target));
              append(r);
              return {};
            }));
  node_room_ = fits ? 0 : log::max_payload_bytes;
  return done && fits;
}

Result<bool> VerifyWalk::fix_range(Op& op) {
  return with_object(op.id, verify_block_bytes, [&](ports::LiveObject& object) -> Status {
    HF_ASSIGN(const auto attributes, object.attributes());
    const std::uint64_t end = std::min(op.end, attributes.size);
    if (!is_regular(attributes.mode) || op.offset >= end) {
      op.stage = Stage::finished;
      return {};
    }
    Record r;
    r.kind = Kind::repair_data;
    r.file = op.id;
    r.offset = op.offset;
    r.mtime_ns = attributes.mtime_ns;
    HF_ASSIGN(const std::uint64_t data, object.next_data(op.offset));
    if (data > op.offset) {
      r.length = std::min(data, end) - op.offset;
    } else {
      HF_ASSIGN(const std::uint64_t hole, object.next_hole(op.offset));
      const std::uint64_t length = std::min({hole, end, op.offset + verify_block_bytes}) - op.offset;
      HF_ASSIGN(const std::size_t n, object.read_aside(op.offset, std::span(buffer_).first(length)));
      if (n == 0) {
        op.stage = Stage::finished;
        return {};
      }
      r.length = n;
      r.payload = ByteView(buffer_).first(n);
      cost_ += n;
    }
    op.offset = r.offset + r.length;
    append(r);
    if (op.offset >= end) op.stage = Stage::finished;
    return {};
  });
}

// As in a resync: what can't be made empty and filled later must be known to the peer before it is named.
Result<bool> VerifyWalk::fix_listing(Op& op) {
  if (!op.begun) {
    op.cookie = 0;
    specials_said_.clear();
  }
  op.begun = true;  // nothing else of this kind may come in between, or the peer forgets the chunks before
  const bool first = op.cookie == 0;
  std::vector<FileId> before;
  HF_ASSIGN(const bool done, with_object(op.id, listing_room, [&](ports::LiveObject& object) -> Status {
              HF_ASSIGN(const auto attributes, object.attributes());
              if (!is_folder(attributes.mode)) {
                op.stage = Stage::finished;
                return {};
              }
              HF_ASSIGN(const auto listing, object.list(op.cookie, log::max_ship_entries, listing_room));
              for (const auto& e : listing.entries)
                if (!is_regular(e.mode) && !is_folder(e.mode) && !specials_said_.contains(e.id)) before.push_back(e.id);
              if (!before.empty()) return {};
              Bytes payload;
              for (const auto& e : listing.entries) log::append_ship_entry(payload, {e.id, e.mode & type_mask, e.name});
              Record r;
              r.kind = Kind::repair_dir;
              r.file = op.id;
              r.flags = (first ? log::flag_first_chunk : 0) | (listing.end ? log::flag_last_chunk : 0);
              r.mtime_ns = attributes.mtime_ns;
              r.payload = payload;
              append(r);
              op.cookie = listing.cookie;
              if (listing.end) op.stage = Stage::finished;
              return {};
            }));
  if (!done) return false;
  for (const FileId& special : before) {
    auto said = fix_node(special);
    if (!said && said.error().code != ErrorCode::not_found) return tl::unexpected(std::move(said).error());
    if (said && !*said) return false;
    specials_said_.insert(special);
  }
  return true;
}

}  // namespace holdfast::mirror
