// SPDX-License-Identifier: Apache-2.0
// Type bits of a mode as they stand in records: Linux's numbers, part of the format, needed by cores that include no OS header.
#pragma once

#include <cstdint>

namespace holdfast::mirror {
constexpr std::uint32_t type_mask = 0170000, type_regular = 0100000, type_folder = 0040000, type_symlink = 0120000;
constexpr bool is_regular(std::uint32_t mode) { return (mode & type_mask) == type_regular; }
constexpr bool is_folder(std::uint32_t mode) { return (mode & type_mask) == type_folder; }
constexpr bool is_symlink(std::uint32_t mode) { return (mode & type_mask) == type_symlink; }
// fallocate modes that shift what follows: doing them twice is not doing them once.
constexpr std::uint32_t fallocate_collapse = 0x08, fallocate_insert = 0x20;
constexpr bool shifts_range(std::uint32_t mode_flags) {
  return (mode_flags & (fallocate_collapse | fallocate_insert)) != 0;
}
constexpr std::uint32_t fallocate_punch = 0x02, fallocate_zero = 0x10;
constexpr bool clears_range(std::uint32_t mode_flags) { return (mode_flags & (fallocate_punch | fallocate_zero)) != 0; }
}  // namespace holdfast::mirror
