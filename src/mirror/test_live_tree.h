// SPDX-License-Identifier: Apache-2.0
// For tests only: ports::LiveTree over a ModelTree, for one set, in one thread.
#pragma once

#include "mirror/test_application.h"
#include "ports/live_tree.h"

namespace holdfast::mirror::testing {

class ModelLiveTree final : public ports::LiveTree {
 public:
  explicit ModelLiveTree(const ModelTree& tree) : tree_(tree) {}
  Status with_object(SetNumber, const FileId& id, const std::function<Status(ports::LiveObject&)>& body) override {
    if (lost) return fail(ErrorCode::unavailable, "the set is not here");
    const ModelNode* node = tree_.find(id);
    if (!node || node->links == 0) return fail(ErrorCode::not_found, "gone");
    Object object(tree_, id, *node);
    return body(object);
  }

  bool lost = false;  // the set is not protected any more

 private:
  class Object final : public ports::LiveObject {
   public:
    Object(const ModelTree& tree, const FileId& id, const ModelNode& node) : tree_(tree), id_(id), node_(node) {}
    Result<ports::NodeAttributes> attributes() override {
      ports::NodeAttributes a;
      a.mode = node_.mode;
      a.uid = node_.uid;
      a.gid = node_.gid;
      a.rdev = node_.rdev;
      a.size = node_.data.size();
      a.links = node_.links;
      a.mtime_ns = node_.mtime_ns;
      a.atime_ns = node_.atime_ns;
      return a;
    }
    Result<Bytes> xattrs() override { return encode_xattr_map(node_.xattrs); }
    Result<std::string> target() override { return node_.target; }
    // A cookie is the last name that was given; names are short.
    Result<ports::TreeListing> list(std::uint64_t cookie, std::size_t max_entries, std::size_t) override {
      ports::TreeListing listing;
      std::string after;
      for (int i = 7; i >= 0; --i)
        if (const char c = static_cast<char>(cookie >> (8 * i)); c != 0) after += c;
      auto it = node_.names.upper_bound(after);
      for (; it != node_.names.end() && listing.entries.size() < std::min(max_entries, chunk_entries); ++it)
        listing.entries.push_back({it->first, it->second, tree_.find(it->second)->mode & type_mask});
      listing.end = it == node_.names.end();
      listing.cookie = cookie;
      if (listing.entries.empty()) return listing;
      const std::string& last = listing.entries.back().name;
      CHECK(last.size() <= 8, "a name that is no cookie");
      listing.cookie = 0;
      for (std::size_t i = 0; i < last.size(); ++i)
        listing.cookie |= static_cast<std::uint64_t>(static_cast<std::uint8_t>(last[i])) << (8 * (7 - i));
      return listing;
    }
    Result<std::optional<ports::TreeEntry>> lookup(std::string_view name) override {
      const auto it = node_.names.find(std::string(name));
      if (it == node_.names.end()) return std::optional<ports::TreeEntry>{};
      return std::optional(ports::TreeEntry{it->first, it->second, tree_.find(it->second)->mode & type_mask});
    }
    Result<FileId> parent() override { return id_.is_root() ? FileId{} : tree_.parent_of(id_); }
    Result<std::size_t> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
      return node_.data.read(offset, into);
    }
    Result<std::uint64_t> next_data(std::uint64_t offset) override { return node_.data.next_data(offset); }
    Result<std::uint64_t> next_hole(std::uint64_t offset) override { return node_.data.next_hole(offset); }

   private:
    static constexpr std::size_t chunk_entries = 3;
    const ModelTree& tree_;
    const FileId id_;
    const ModelNode& node_;
  };
  const ModelTree& tree_;
};

}  // namespace holdfast::mirror::testing
