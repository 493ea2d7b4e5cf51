// SPDX-License-Identifier: Apache-2.0
#include "mirror/open_questions.h"

#include "log/record_codec.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {
namespace {

// A partial resynchronization ships attributes of a folder without its names, and of a file with a part of its contents, unless it says otherwise.
bool answers(const log::Record& r) {
  if (r.kind == log::Kind::ship_dir) return (r.flags & log::flag_first_chunk) != 0;
  return !is_folder(r.mode) && (!is_regular(r.mode) || r.rdev == log::rdev_all_follows);
}

}  // namespace

void OpenQuestions::settled(SetNumber set) {
  std::erase_if(open_, [&](const Nak& n) { return n.set == set; });
}

void OpenQuestions::answered_by(ByteView records) {
  while (!open_.empty() && !records.empty()) {
    const log::RecordHead head = log::head_of(records.data());
    const ByteView bytes = records.first(head.length);
    records = records.subspan(head.length);
    if (head.kind == log::Kind::resync_begin && head.addressed_to.value != 0) settled(head.set);
    if (head.kind != log::Kind::ship_node && head.kind != log::Kind::ship_dir && head.kind != log::Kind::ship_data)
      continue;
    const auto record = log::decode(bytes);
    if (!record) continue;  // apply will say so
    if (head.kind == log::Kind::ship_data)
      answered_by_bytes(head.set, record->file, record->offset, record->length);
    else if (answers(*record))
      answered_by_object(head.set, record->file);
    if (head.kind == log::Kind::ship_node)
      open_.erase({head.set, FileId{}, 0, 0});  // that the set is empty: nothing is shipped before it is heard
  }
}

// That a folder was taken from its place is said again in each session: no single record tells that it stands right.
void OpenQuestions::answered_by_object(SetNumber set, const FileId& id) {
  for (const std::uint64_t how : {std::uint64_t{0}, nak_contents}) open_.erase({set, id, how, 0});
}

void OpenQuestions::answered_by_bytes(SetNumber set, const FileId& id, std::uint64_t offset, std::uint64_t length) {
  auto it = open_.lower_bound({set, id, offset, 1});
  while (it != open_.end() && it->set == set && it->file == id && it->offset == offset && it->length <= length)
    it = open_.erase(it);
}

}  // namespace holdfast::mirror
