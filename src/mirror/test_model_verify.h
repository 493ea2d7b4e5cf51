// SPDX-License-Identifier: Apache-2.0
// For tests only, of test_model.h: the active verifies its passive while all else goes on. Where nothing was damaged nothing may be found; what was
// is found and repaired.
#pragma once

#include "mirror/test_model.h"

namespace holdfast::mirror::testing {

// Names that the application never uses: they can be damaged without its next change stopping the passive.
inline void ModelRun::make_quiet_folder() {
  const auto made = [&](FileId id, std::uint32_t mode, const FileId& dir, const std::string& name, log::Kind kind) {
    OwnedRecord r;
    r.record.set = set;
    r.record.kind = kind;
    r.record.file = id;
    r.record.parent = dir;
    r.record.mode = mode;
    r.record.mtime_ns = r.record.parent_mtime_ns = first_mtime_ns + 5;
    r.name = name;
    if (kind == log::Kind::symlink) r.payload = {'x', 'y'};
    ModelNode& node = model_.edit(id);
    node.mode = mode;
    if (kind == log::Kind::symlink) node.target = "xy";
    if (kind != log::Kind::link) node.mtime_ns = first_mtime_ns + 5;
    ++node.links;
    ModelNode& folder = model_.edit(dir);
    folder.names[name] = id;
    folder.mtime_ns = first_mtime_ns + 5;
    append(r);
  };
  const auto id = [](std::uint8_t n) {
    FileId made_id;
    made_id.bytes[0] = n;
    made_id.bytes[15] = 0x51;
    return made_id;
  };
  made(id(1), type_folder | 0750, model_.root(), "q", log::Kind::mkdir);
  for (std::uint8_t n = 2; n < 7; ++n) {
    made(id(n), type_regular | 0640, id(1), fmt::format("q{}", n), log::Kind::create);
    OwnedRecord r;
    r.record.set = set;
    r.record.kind = log::Kind::write;
    r.record.file = id(n);
    r.record.offset = n == 3 ? std::uint64_t{1} << 33 : 0;
    r.record.mtime_ns = first_mtime_ns + 7;
    for (int i = 0; i < 900; ++i) r.payload.push_back(static_cast<std::uint8_t>(random_()));
    ModelNode& node = model_.edit(id(n));
    node.data.write(r.record.offset, r.payload);
    node.mtime_ns = r.record.mtime_ns;
    append(r);
  }
  made(id(2), type_regular | 0640, id(1), "ql", log::Kind::link);
  made(id(7), type_symlink | 0777, id(1), "qs", log::Kind::symlink);
  made(id(8), type_folder | 0700, id(1), "qd", log::Kind::mkdir);
  made(id(9), type_regular | 0600, id(8), "qf", log::Kind::create);
  remember();
}

// One thing on the passive's disk is not what it was. Names only where the application has none.
inline void ModelRun::plant() {
  FileId folder;
  folder.bytes[0] = 1;
  folder.bytes[15] = 0x51;
  const ModelNode* quiet = model_.find(folder);
  if (!quiet || !tree_->look(folder)) return;
  std::vector<FileId> files;
  for (const auto& [name, id] : quiet->names)
    if (is_regular(model_.find(id)->mode) && tree_->look(id)) files.push_back(id);
  for (const auto& [name, id] : model_.find(model_.root())->names)
    if (is_regular(model_.find(id)->mode) && tree_->look(id)) files.push_back(id);
  if (files.empty()) return;
  const FileId id = files[pick(static_cast<unsigned>(files.size()))];
  MemoryTree::Inode& inode = tree_->spoil(id);
  MemoryTree::Inode& names = tree_->spoil(folder);
  // What a redo would make again, or stop at, is left alone: names are damaged when everything is durable.
  const unsigned what = pick(applier_->dirty() ? 4 : 8);
  note(fmt::format("-- damage {} of {}", what, id.to_hex().substr(0, 6)));
  switch (what) {
    case 0: {  // a byte that nobody wrote
      if (inode.data.size() == 0) return;
      const std::uint64_t at = inode.data.next_data(random_() % inode.data.size());
      if (at >= inode.data.size()) return;
      Bytes byte(1);
      inode.data.read(at, byte);
      byte[0] ^= 0x40;
      inode.data.write(at, byte);
      if (inode.synced) inode.synced->write(at, byte);
      break;
    }
    case 1:
      inode.meta.xattrs["user.lost"] = {1};
      break;
    case 2:
      inode.meta.mode ^= 0111;
      break;
    case 3:
      inode.data.resize(inode.data.size() + 700);
      inode.meta.mtime_ns += 3;
      break;
    case 4: {  // a name too much
      const auto ino = tree_->spoil_with_new(inode);
      tree_->spoil(folder).names["qx"] = ino;
      break;
    }
    case 5: {  // a name is missing; the object stays where another link names it
      const auto it = names.names.find(pick(2) ? "ql" : "q5");
      if (it == names.names.end()) return;
      const auto ino = it->second;
      names.names.erase(it);
      --const_cast<MemoryTree::Inode&>(tree_->inode(ino)).links;
      break;
    }
    case 6: {  // a hard link became a file of its own
      const auto it = names.names.find("ql");
      if (it == names.names.end()) return;
      MemoryTree::Inode& old = const_cast<MemoryTree::Inode&>(tree_->inode(it->second));
      const auto ino = tree_->spoil_with_new(old);
      --const_cast<MemoryTree::Inode&>(tree_->inode(names.names.find("ql")->second)).links;
      tree_->spoil(folder).names["ql"] = ino;
      break;
    }
    default: {  // a hole that is one no more: the same to who reads, but not when it holds something
      if (inode.data.size() < 4096) return;
      const std::uint64_t at = inode.data.next_hole(0);
      if (at >= inode.data.size()) return;
      const Bytes bytes(1, static_cast<std::uint8_t>(pick(2)));
      inode.data.write(at, bytes);
      if (inode.synced) inode.synced->write(at, bytes);
      break;
    }
  }
  ++report_.damages;
  damaged_ = ever_damaged_ = true;
}

inline void ModelRun::begin_walk(VerifyKind kind, bool trust_active) {
  capture_log_.sink = [this](const log::Record& r) {
    OwnedRecord owned;
    owned.record = r;
    owned.name = r.name;
    owned.name2 = r.name2;
    owned.payload.assign(r.payload.begin(), r.payload.end());
    append(owned);
    remember();
    return last();
  };
  VerifyPlan plan;
  plan.peer = NodeId(7);
  plan.set = set;
  plan.kind = kind;
  plan.trust_active = trust_active;
  plan.seed = random_();
  walk_ = std::make_unique<VerifyWalk>(capture_log_, live_tree_, times_, plan);
}

inline Status ModelRun::walk(unsigned steps) {
  for (; steps > 0; --steps) {
    walk_->acked({log_->durable(), applier_->applied().sequence});
    HF_ASSIGN(const VerifyWalk::Step step, walk_->step());
    const VerifyCounts counts = walk_->counts();
    if (!ever_damaged_ && counts.differences + walk_->vanished() > 0) {
      const auto examples = walk_->examples();
      return fail(ErrorCode::internal, "a difference where there is none: \"{}\" {}",
                  examples.empty() ? "" : examples[0].path, examples.empty() ? "(vanished)" : examples[0].what);
    }
    if (step == VerifyWalk::Step::done) return end_walk();
    if (step != VerifyWalk::Step::worked) return {};
  }
  // As the next life of the active would go on.
  if (pick(8) == 0)
    if (const auto place = walk_->place()) {
      const VerifyPlan plan = walk_->plan();
      walk_ = std::make_unique<VerifyWalk>(capture_log_, live_tree_, times_, plan, *place);
    }
  return {};
}

inline Status ModelRun::end_walk() {
  walked_ = walk_->counts();
  report_.repaired += walked_.repaired;
  walk_.reset();
  return {};
}

inline Status ModelRun::verify_turn() {
  if (!complete() || shipper_ || applier_->applied().sequence < base_.sequence) return {};
  if (may_damage_ && pick(6) == 0) plant();
  if (!walk_) begin_walk(static_cast<VerifyKind>(pick(3)), pick(2) == 0);
  return walk(1 + pick(12));
}

// Whatever was damaged is whole again after one full run, and the next one finds nothing. The application goes on during the first.
inline Status ModelRun::verify_all() {
  for (const bool first : {true, false}) {
    begin_walk(VerifyKind::full, true);
    for (int round = 0; walk_; ++round) {
      if (round > 20'000) return fail(ErrorCode::internal, "the verification does not come to an end");
      if (first && round < 200) produce(1);
      if (!complete()) {  // the application gave a name to a file that was made without one before the copy
        HF_TRY(become_whole());
        begin_walk(VerifyKind::full, true);
      }
      if (walk_->too_many()) return fail(ErrorCode::internal, "too many differences");
      HF_TRY(walk(20));
      if (!walk_ && walked_.open > 0)
        return fail(ErrorCode::internal, "{} differences were not repaired", walked_.open);
      if (!walk_ && !first && walked_.differences > 0)
        return fail(ErrorCode::internal, "{} objects still differ", walked_.differences);
      while (log_->end().sequence < last() || log_->durable() < last()) HF_TRY(send(4));
      for (bool more = true; more;) {
        HF_ASSIGN(more, apply());
      }
    }
  }
  damaged_ = false;
  return compare();
}

}  // namespace holdfast::mirror::testing
