// SPDX-License-Identifier: Apache-2.0
// What the file system of a folder can hold, where kinds of file systems differ: each a greatest value, and no limit where nothing is known.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace holdfast::ports {

// The numbers are those of the formats (docs/formats/channel.md); new ones come at the end.
enum class Limit : std::uint8_t {
  link_target_bytes = 1,   // of a symbolic link
  xattr_bytes = 2,         // name and value of one extended attribute
  xattrs_bytes = 3,        // of all extended attributes of an object, counted by xattr_room()
  xattr_names_bytes = 4,   // the same with values of no length: they are kept elsewhere
  file_bytes = 5,          // size
  links = 6,               // of an object that is no folder
  device_major = 7,        // of a device node
  device_minor = 8,        //
  seconds_after = 9,       // of a time stamp after the beginning of 1970
  seconds_before = 10,     // and before it
  access_list_bytes = 11,  // of a POSIX ACL; 0: there are none
};
constexpr std::size_t limit_count = 11;
constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();

class TreeLimits {
 public:
  TreeLimits() { most_.fill(no_limit); }
  std::uint64_t most(Limit what) const { return most_[index(what)]; }
  void set(Limit what, std::uint64_t most) { most_[index(what)] = most; }
  static constexpr Limit at(std::size_t i) { return static_cast<Limit>(i + 1); }
  bool operator==(const TreeLimits&) const = default;

  // What both can hold.
  void narrow(const TreeLimits& other) {
    for (std::size_t i = 0; i < limit_count; ++i) most_[i] = std::min(most_[i], other.most_[i]);
  }
  // Only where `own` holds more: what it can't hold either it refuses by itself, and more exactly.
  TreeLimits narrower_than(const TreeLimits& own) const {
    TreeLimits out;
    for (std::size_t i = 0; i < limit_count; ++i)
      if (most_[i] < own.most_[i]) out.most_[i] = most_[i];
    return out;
  }
  bool any() const { return *this != TreeLimits(); }

 private:
  static constexpr std::size_t index(Limit what) { return static_cast<std::size_t>(what) - 1; }
  std::array<std::uint64_t, limit_count> most_{};
};

// What an attribute takes in ext4's one block for all of them: a head of 16 bytes, name and value in multiples of 4. ext4 leaves out the class
// ("user."), so this is a little more.
constexpr std::uint64_t xattr_room(std::size_t name_bytes, std::size_t value_bytes) {
  constexpr std::uint64_t head = 16, step = 4;
  const auto stepped = [](std::uint64_t n) { return (n + step - 1) / step * step; };
  return head + stepped(name_bytes) + stepped(value_bytes);
}

constexpr bool is_access_list(std::string_view name) {
  return name == "system.posix_acl_access" || name == "system.posix_acl_default";
}

}  // namespace holdfast::ports
