// SPDX-License-Identifier: Apache-2.0
// What the file system of a folder can hold (ports/tree_limits.h): by its kind where that says it, else tried on a file without a name. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "ports/tree_limits.h"

namespace holdfast::platform {

struct Probed {
  ports::TreeLimits limits;
  bool sure =
      true;  // false: something could not be tried for want of space, and is given as the least that this kind of file system holds
};
// `folder`: a folder of our own, or any that may be written to; nothing stays in it.
Result<Probed> probe_limits(int folder);
// The same, for a folder that is ours: what is sure is kept with it, and taken from there while the disk is full.
Result<ports::TreeLimits> limits_of_tree(int hidden_folder, int folder);

// A limit for people: "a symbolic link of more than 1023 bytes".
std::string describe(ports::Limit what, std::uint64_t most);

// What all attributes of the object take, once it has this one too, if that is more than `limits` say.
std::optional<ports::Limit> exceeded_by_xattr(const ports::TreeLimits& limits, int fd, std::string_view name,
                                              std::size_t bytes);
// Of an object that came from another node and can't be made here: it stops the node, so it says what to do.
tl::unexpected<Error> not_held(const ports::TreeLimits& limits, ports::Limit what, std::string_view object);

}  // namespace holdfast::platform
