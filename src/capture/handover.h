// SPDX-License-Identifier: Apache-2.0
// What a mirror leaves to the one that goes on with its mount while applications use it: descriptors, and what they mean (docs/formats/handover.md).
// While it exists and nobody serves it, requests of the mount wait in the kernel. When it is destroyed with nobody else holding it, the kernel ends
// the connection, and they fail.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "capture/lower.h"

namespace holdfast::capture {

constexpr std::uint32_t handover_version = 1;

struct Handover {
  std::string path, number;  // where it is mounted, and its device: "0:47"
  Bytes state;
  Descriptor device;             // /dev/fuse
  Descriptor root;               // of the tree below
  Descriptor buffers;            // of the io_uring entries; none over /dev/fuse
  std::vector<Descriptor> pins;  // O_PATH, of objects that lost their last name, in the order of the state
};

// All of it in the queue of a socket, of which this is the reading end: one descriptor to keep or to pass on.
Result<Descriptor> pack(const Handover& handover);
// From such a socket, once.
Result<Handover> unpack(const Descriptor& socket);
// As Session::abort_path.
std::string abort_path_of(const Handover& handover);

}  // namespace holdfast::capture
