// SPDX-License-Identifier: Apache-2.0
// POSIX access control lists as extended attributes carry them (version 2, then tag, rights and id of each entry), and what they do with a mode.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace holdfast::mirror {

constexpr std::string_view access_acl = "system.posix_acl_access", default_acl = "system.posix_acl_default";

class PosixAcl {
 public:
  static std::optional<PosixAcl> decode(ByteView bytes);  // nullopt: that is none
  Bytes encode() const;
  // The permission bits that it stands for.
  std::uint32_t permissions() const;
  bool only_permissions() const;  // says nothing that a mode can't
  void change_permissions(std::uint32_t mode);
  // As the default of a folder, for what is made in it with this mode: becomes the access list of that, and `mode` loses what neither allows.
  void inherit(std::uint32_t& mode);

 private:
  struct Entry {
    std::uint16_t tag = 0, rights = 0;
    std::uint32_t id = 0;
  };
  Entry* find(std::uint16_t tag);
  std::vector<Entry> entries_;
};

}  // namespace holdfast::mirror
