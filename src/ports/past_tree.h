// SPDX-License-Identifier: Apache-2.0
// The protected folders as they were at one moment, to be read (mirror/past_view.h). Any thread.
// ErrorCode::stale: the view is over, for good: its history was given up. ErrorCode::not_found: there was no such object then.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ports/tree.h"

namespace holdfast::ports {

struct PastAttributes : NodeAttributes {
  std::int64_t ctime_ns = 0;
  bool links_known = true;  // false: it had other names since, and may have had more or fewer than `links` then
};

class PastTree {
 public:
  virtual ~PastTree() = default;
  virtual Result<std::optional<TreeEntry>> lookup(SetNumber set, const FileId& dir, std::string_view name) = 0;
  // In no order; without "." and "..".
  virtual Result<std::vector<TreeEntry>> list(SetNumber set, const FileId& dir) = 0;
  // Links of folders are 2; of files what can be told without a search, else today's (links_known). ctime is mtime.
  virtual Result<PastAttributes> attributes(SetNumber set, const FileId& id) = 0;
  virtual Result<Bytes> xattrs(SetNumber set, const FileId& id) = 0;  // log/xattrs.h list
  virtual Result<std::string> target(SetNumber set, const FileId& id) = 0;
  virtual Result<std::size_t> read(SetNumber set, const FileId& id, std::uint64_t offset,
                                   std::span<std::uint8_t> into) = 0;  // short only at the end
};

}  // namespace holdfast::ports
