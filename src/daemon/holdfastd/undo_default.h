// SPDX-License-Identifier: Apache-2.0
// How much undo history a passive keeps when the mirror decides: a tenth of the file system of its state folder.
#pragma once

#include <cstdint>

namespace holdfast::daemon {

constexpr std::uint32_t undo_auto = 0xffffffff;  // of ClusterConfig::undo_mib

}  // namespace holdfast::daemon
