// SPDX-License-Identifier: Apache-2.0
#include "mirror/stage_ahead.h"

#include <vector>

#include "log/ship.h"
#include "mirror/apply_ops.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

constexpr std::size_t most_ahead = log::max_ship_entries;  // each holds a descriptor until it has its name

// The objects to make: those that bare folders are said to hold.
class Wanted {
 public:
  Wanted(const ResyncMemory& memory, const Staged& staged) : memory_(memory), staged_(staged) {}

  // False: not this one, and none after it. It would be too much; or it is not known what stands there, or where the folder itself will stand.
  Result<bool> add(const log::Record& listing) {
    if (!is_of_bare(listing)) return false;
    const std::size_t before = order_.size();
    log::ShipEntryReader reader(listing.payload);
    for (;;) {
      HF_ASSIGN(const auto entry, reader.next());
      if (!entry) break;
      if ((is_regular(entry->mode) || is_folder(entry->mode)) && types_.emplace(entry->id, entry->mode).second)
        order_.push_back(entry->id);
    }
    if (order_.size() > most_ahead) {
      for (; order_.size() > before; order_.pop_back()) types_.erase(order_.back());
      return false;
    }
    begun_.insert(listing.file);
    return true;
  }
  const std::vector<FileId>& objects() const { return order_; }
  std::uint32_t type(const FileId& id) const { return types_.at(id); }
  bool contains(const FileId& id) const { return types_.contains(id); }

 private:
  bool is_of_bare(const log::Record& listing) const {
    const FileId& dir = listing.file;
    if (!memory_.bare.contains(dir) && !types_.contains(dir) && !staged_.ahead.contains(dir)) return false;
    const bool has_begun = begun_.contains(dir) || memory_.listings.contains(dir);
    return ((listing.flags & log::flag_first_chunk) != 0) != has_begun;
  }

  const ResyncMemory& memory_;
  const Staged& staged_;
  std::vector<FileId> order_;  // the listings': what is read together later lies together on the disk
  std::unordered_map<FileId, std::uint32_t> types_;
  std::unordered_set<FileId> begun_;  // listed in what was added
};

// As the record says; its times are set with those of the rest of the batch.
ports::NewNode dressed(const log::Record& ship_node) {
  ports::NewNode node;
  node.mode = ship_node.mode;
  node.uid = ship_node.uid;
  node.gid = ship_node.gid;
  node.xattrs = ship_node.payload;
  return node;
}

bool is_sized(const log::Record& node, const log::Record* next) {
  return node.length == 0 || (next && next->kind == Kind::ship_data && next->set == node.set &&
                              next->file == node.file && next->offset == 0 && next->payload.size() == node.length);
}

}  // namespace

Status stage_ahead(std::span<const log::Record> rest, ports::Tree& tree, const ResyncMemory& memory, Staged& staged) {
  if (rest.front().sequence <= staged.ahead_to) return {};
  staged.ahead_to = rest.front().sequence;
  Wanted wanted(memory, staged);
  for (const auto& r : rest) {
    if (r.set != tree.set()) continue;
    if (changes_names(r.kind)) break;  // what it names may be one of them, and must be unknown to it
    if (r.kind != Kind::ship_dir) continue;
    HF_ASSIGN(const bool all, wanted.add(r));
    if (!all) break;
    staged.ahead_to = r.sequence;
  }
  if (wanted.objects().empty()) return {};
  std::unordered_map<FileId, std::size_t> nodes;
  for (std::size_t i = 0; i < rest.size(); ++i)
    if (rest[i].kind == Kind::ship_node && rest[i].set == tree.set() && wanted.contains(rest[i].file))
      nodes.emplace(rest[i].file, i);
  for (const FileId& id : wanted.objects()) {
    HF_ASSIGN(const auto there, tree.attributes(id));
    if (there) continue;
    const auto found = nodes.find(id);
    const bool is_said = found != nodes.end() && ((rest[found->second].mode ^ wanted.type(id)) & type_mask) == 0;
    if (is_said) {
      const log::Record& node = rest[found->second];
      const std::size_t next = found->second + 1;
      HF_TRY(tree.stage(id, dressed(node)));
      staged.dressed[id] = {node.sequence, is_sized(node, next < rest.size() ? &rest[next] : nullptr)};
    } else {
      HF_TRY(tree.stage(id, placeholder(wanted.type(id))));
    }
    staged.ahead.insert(id);
  }
  return staged.ids_later ? Status{} : tree.commit_ids();
}

}  // namespace holdfast::mirror
