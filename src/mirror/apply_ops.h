// SPDX-License-Identifier: Apache-2.0
// One record applied to one tree, in order, with the identity checks of redo (R7, R16, R17).
//
// Redo. After a crash the tree stands somewhere between the checkpoint and the end of the log, and records from the checkpoint on are applied
// again. Contents and attributes may be applied twice: the last word is said again. Names may not: `rename a->b, b->c, c->a, create c` over its
// own result would leave the file at b. So after each change of a name its sequence is written into the tree itself (NamesMark); journals keep
// the order of such changes, so after a crash everything up to the mark is there, at most the one change after it is (perhaps in part), and
// nothing later. Up to the mark names are skipped; the one after it is looked at closely; from then on, as outside of redo, what the log says
// must be what the tree shows, or this copy is corrupt and stops.
// What was deleted stays in the graveyard until a checkpoint covers it: an id that is absent was not made yet, never "made and gone".
#pragma once

#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "log/record.h"
#include "ports/tree.h"

namespace holdfast::mirror {

bool creates(log::Kind kind);
ports::NewNode new_node(const log::Record& record);

// Where the names of a tree stand (see above). Outlives batches.
struct NamesProgress {
  std::uint64_t log = 0;
  Sequence done;
  bool settled = false;  // a change after the mark was seen in this life: no more doubt
  Sequence doubt_to;     // nothing after it can have been begun before the crash
  // In a redo over a tree that is ahead of it, the graveyard holds what later records delete, and earlier ones still write to. The change in doubt
  // may have got as far as that, too, before its mark was written.
  bool graves_are_old(Sequence applied) const { return applied >= done && (settled || applied >= doubt_to); }
};

// What a batch leaves to its end: neighbouring writes joined into one, and the modification times that applying disturbs.
class TreeBatch {
 public:
  TreeBatch(ports::Tree& tree, NamesProgress& names) : tree_(tree), names_(names) {}
  ports::Tree& tree() { return tree_; }
  bool names_done(Sequence sequence) const { return sequence <= names_.done; }
  bool names_settled() const { return names_.settled; }
  Status names_reached(Sequence sequence);
  Status write(const log::Record& record);  // payload must stay valid until flush
  Status flush_write();
  void touched(const FileId& id,
               std::int64_t mtime_ns) {  // 1970 is a time like any other; no id: there is none to touch
    if (!id.is_none()) times_[id] = mtime_ns;
  }
  Status flush();

 private:
  ports::Tree& tree_;
  NamesProgress& names_;
  FileId file_;
  std::uint64_t begin_ = 0, end_ = 0;
  std::vector<ByteView> pieces_;
  std::unordered_map<FileId, std::int64_t> times_;
};

class OrdinaryApply {
 public:
  OrdinaryApply(TreeBatch& batch, const std::unordered_set<FileId>& staged)
      : batch_(batch), tree_(batch.tree()), staged_(staged) {}
  Status apply(const log::Record& record);
  // A name for a file that was made without one (O_TMPFILE) and before this copy: a resync ships what has a name. Nothing was done, and nothing
  // that follows may be: the copy is not whole.
  bool unknown_file() const { return unknown_file_; }

 private:
  Status make(const log::Record& r);
  Status link(const log::Record& r);
  Status remove(const log::Record& r);
  Status rename(const log::Record& r);
  Status change(const log::Record& r);
  Status remove_name(const FileId& dir, std::string_view name, const FileId& id);
  // Fine if it is the one change that a crash left in doubt, and it was done; else corruption.
  Status differs(const log::Record& r, Result<bool> done, const char* what);
  Status change_names(const log::Record& r);

  TreeBatch& batch_;
  ports::Tree& tree_;
  const std::unordered_set<FileId>& staged_;
  bool unknown_file_ = false;
};

bool changes_names(log::Kind kind);

// Contents and attributes of an object that is there; shared by ordinary apply and resync.
Status apply_content(TreeBatch& batch, const log::Record& record);

}  // namespace holdfast::mirror
