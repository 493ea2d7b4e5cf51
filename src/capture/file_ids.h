// SPDX-License-Identifier: Apache-2.0
// Where ids of files come from: the extended attribute trusted.holdfast.id and, behind it, the durable index of the data plane (R7, R25).
// Descriptors passed in are borrowed and may be O_PATH: reach extended attributes through /proc/self/fd. All calls from any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "base/types.h"

namespace holdfast::capture {

constexpr std::string_view id_attribute = "trusted.holdfast.id";
constexpr std::string_view hidden_attributes = "trusted.holdfast.";
constexpr std::string_view hidden_folder = ".holdfast";  // in the root of a set

class FileIds {
 public:
  virtual ~FileIds() = default;
  // The id of an object that is there. One without an id, or whose id the index maps to another inode, gets a fresh one, indexed (R25).
  virtual Result<FileId> identify(int fd, SetNumber set) = 0;
  // For an object that is about to be made, under a guard of the hot gate where there is one.
  virtual Result<FileId> fresh() = 0;
  // Gives `id` to a new object; indexed before any record that carries the id leaves this node.
  virtual Status bind(int fd, SetNumber set, const FileId& id) = 0;
  // The last name and the last use of the object are gone.
  virtual void gone(SetNumber, const FileId&) {}
  // An O_PATH descriptor of the object of the tree whose id's first 8 bytes, big-endian, are `prefix`; for handles of exported files. What was
  // deleted and is kept aside is no object of the tree.
  virtual Result<int> open_by_prefix(SetNumber, std::uint64_t prefix) {
    return fail(ErrorCode::not_found, "no file with id prefix {:x}", prefix);
  }
};

}  // namespace holdfast::capture
