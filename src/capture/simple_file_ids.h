// SPDX-License-Identifier: Apache-2.0
// FileIds without an index: for tests and the do-nothing mount of the benchmarks.
#pragma once

#include "capture/file_ids.h"

namespace holdfast::capture {

// Ids in the extended attribute, nothing behind it.
class AttributeFileIds : public FileIds {
 public:
  Result<FileId> identify(int fd, SetNumber set) override;
  Result<FileId> fresh() override;
  Status bind(int fd, SetNumber set, const FileId& id) override;
};

// Ids made of the inode number: writes nothing, so it costs nothing; not the same on two nodes.
class InodeNumberIds : public FileIds {
 public:
  Result<FileId> identify(int fd, SetNumber set) override;
  Result<FileId> fresh() override { return FileId{}; }
  Status bind(int, SetNumber, const FileId&) override { return {}; }
};

}  // namespace holdfast::capture
