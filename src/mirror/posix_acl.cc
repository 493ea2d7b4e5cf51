// SPDX-License-Identifier: Apache-2.0
#include "mirror/posix_acl.h"

#include <algorithm>

namespace holdfast::mirror {
namespace {

constexpr std::uint32_t version = 2;
constexpr std::size_t entry_bytes = 8;
constexpr std::uint16_t owner = 0x01, user = 0x02, group = 0x04, named_group = 0x08, mask = 0x10, other = 0x20;

}  // namespace

std::optional<PosixAcl> PosixAcl::decode(ByteView bytes) {
  ByteReader in(bytes);
  if (in.u32() != version || !in.ok() || in.left() % entry_bytes != 0) return std::nullopt;
  PosixAcl acl;
  bool has_owner = false, has_group = false, has_other = false;
  while (in.left() != 0) {
    Entry e;
    e.tag = in.u16();
    e.rights = in.u16();
    e.id = in.u32();
    if (!in.ok() || e.rights > 7) return std::nullopt;
    has_owner = has_owner || e.tag == owner;
    has_group = has_group || e.tag == group;
    has_other = has_other || e.tag == other;
    acl.entries_.push_back(e);
  }
  if (!has_owner || !has_group || !has_other) return std::nullopt;
  return acl;
}

Bytes PosixAcl::encode() const {
  Bytes out;
  ByteWriter writer(out);
  writer.u32(version);
  for (const Entry& e : entries_) writer.u16(e.tag), writer.u16(e.rights), writer.u32(e.id);
  return out;
}

PosixAcl::Entry* PosixAcl::find(std::uint16_t tag) {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.tag == tag; });
  return it == entries_.end() ? nullptr : &*it;
}

std::uint32_t PosixAcl::permissions() const {
  std::uint32_t bits = 0, of_group = 0;
  bool masked = false;
  for (const Entry& e : entries_) {
    if (e.tag == owner) bits |= std::uint32_t{e.rights} << 6;
    if (e.tag == other) bits |= e.rights;
    if (e.tag == group && !masked) of_group = e.rights;
    if (e.tag == mask) of_group = e.rights, masked = true;
  }
  return bits | of_group << 3;
}

bool PosixAcl::only_permissions() const {
  return std::none_of(entries_.begin(), entries_.end(),
                      [](const Entry& e) { return e.tag == user || e.tag == named_group || e.tag == mask; });
}

void PosixAcl::change_permissions(std::uint32_t mode) {
  const auto part = [&](unsigned shift) { return static_cast<std::uint16_t>(mode >> shift & 7); };
  Entry* const of_group = find(mask) ? find(mask) : find(group);
  for (Entry& e : entries_) {
    if (e.tag == owner) e.rights = part(6);
    if (e.tag == other) e.rights = part(0);
  }
  if (of_group) of_group->rights = part(3);
}

void PosixAcl::inherit(std::uint32_t& mode) {
  const std::uint32_t allowed = permissions() & mode & 0777;
  change_permissions(allowed);
  mode = (mode & ~std::uint32_t{0777}) | allowed;
}

}  // namespace holdfast::mirror
