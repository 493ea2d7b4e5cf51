// SPDX-License-Identifier: Apache-2.0
// Which fields of a Record each kind carries: this table *is* the codec. A field not in a kind's row is not written and reads as zero.
// Rows only grow by new kinds; changing a row needs a new record format version (docs/formats/log.md).
#pragma once

#include <cstdint>
#include <initializer_list>

#include "log/record.h"

namespace holdfast::log {

enum class Field : std::uint8_t {
  file,
  parent,
  parent2,
  replaced,
  name,
  name2,
  offset,
  length,
  size,
  flags,
  valid,
  mode_flags,
  mode,
  uid,
  gid,
  rdev,
  mtime,
  atime,
  parent_mtime,
  parent2_mtime,
  payload,
};
using FieldSet = std::uint32_t;
constexpr FieldSet bit(Field f) { return 1U << static_cast<unsigned>(f); }
constexpr FieldSet fields(std::initializer_list<Field> list) {
  FieldSet set = 0;
  for (Field f : list) set |= bit(f);
  return set;
}

struct KindRow {
  Kind kind;
  const char* name;
  FieldSet fields;
};

constexpr FieldSet creation = fields({Field::file, Field::parent, Field::name, Field::flags, Field::mode, Field::uid,
                                      Field::gid, Field::mtime, Field::atime, Field::parent_mtime, Field::payload});
constexpr FieldSet naming = fields({Field::file, Field::parent, Field::name, Field::parent_mtime});

constexpr KindRow kind_rows[] = {
    {Kind::write, "write", fields({Field::file, Field::offset, Field::flags, Field::mtime, Field::payload})},
    {Kind::truncate, "truncate", fields({Field::file, Field::length, Field::flags, Field::mtime})},
    {Kind::fallocate, "fallocate",
     fields({Field::file, Field::mode_flags, Field::offset, Field::length, Field::size, Field::flags, Field::mtime})},
    {Kind::create, "create", creation},
    {Kind::mkdir, "mkdir", creation},
    {Kind::symlink, "symlink", creation},
    {Kind::mknod, "mknod", creation | bit(Field::rdev)},
    {Kind::link, "link", naming | bit(Field::mode)},
    {Kind::unlink, "unlink", naming},
    {Kind::rmdir, "rmdir", naming},
    {Kind::rename, "rename",
     naming | fields({Field::parent2, Field::name2, Field::replaced, Field::flags, Field::mode, Field::parent2_mtime})},
    {Kind::set_attributes, "set_attributes",
     fields(
         {Field::file, Field::valid, Field::flags, Field::mode, Field::uid, Field::gid, Field::mtime, Field::atime})},
    {Kind::set_xattr, "set_xattr", fields({Field::file, Field::name, Field::flags, Field::payload})},
    {Kind::remove_xattr, "remove_xattr", fields({Field::file, Field::name, Field::flags})},
    {Kind::epoch_begin, "epoch_begin", 0},
    {Kind::epoch_end, "epoch_end", 0},
    {Kind::consistent, "consistent", bit(Field::mtime)},
    {Kind::resync_begin, "resync_begin", bit(Field::flags)},
    {Kind::resync_end, "resync_end", 0},
    {Kind::shadow, "shadow", bit(Field::name)},
    {Kind::noop, "noop", 0},
    {Kind::ship_node, "ship_node",
     fields({Field::file, Field::length, Field::mode, Field::uid, Field::gid, Field::rdev, Field::mtime, Field::atime,
             Field::name2, Field::payload})},
    {Kind::ship_dir, "ship_dir", fields({Field::file, Field::flags, Field::mtime, Field::payload})},
    {Kind::ship_data, "ship_data", fields({Field::file, Field::offset, Field::length, Field::mtime, Field::payload})},
    {Kind::ship_hash, "ship_hash", fields({Field::file, Field::offset, Field::length, Field::payload})},
    {Kind::check_node, "check_node",
     fields({Field::file, Field::length, Field::valid, Field::mode, Field::uid, Field::gid, Field::rdev, Field::mtime,
             Field::name2, Field::payload})},
    {Kind::check_dir, "check_dir", fields({Field::file, Field::flags, Field::payload})},
    {Kind::check_data, "check_data",
     fields({Field::file, Field::offset, Field::length, Field::size, Field::mtime, Field::payload})},
    {Kind::repair_node, "repair_node",
     fields({Field::file, Field::length, Field::mode, Field::uid, Field::gid, Field::rdev, Field::mtime, Field::atime,
             Field::name2, Field::payload})},
    {Kind::repair_dir, "repair_dir", fields({Field::file, Field::flags, Field::mtime, Field::payload})},
    {Kind::repair_data, "repair_data",
     fields({Field::file, Field::offset, Field::length, Field::mtime, Field::payload})},
    {Kind::undo_batch, "undo_batch", bit(Field::payload)},
    {Kind::undo_object, "undo_object",
     fields({Field::file, Field::length, Field::flags, Field::mode, Field::uid, Field::gid, Field::mtime, Field::atime,
             Field::payload})},
    {Kind::undo_name, "undo_name", fields({Field::file, Field::parent, Field::name, Field::mode})},
    {Kind::undo_bytes, "undo_bytes", fields({Field::file, Field::offset, Field::payload})},
    {Kind::undo_hole, "undo_hole", fields({Field::file, Field::offset, Field::length})},
    {Kind::undo_seal, "undo_seal", 0},
    {Kind::undo_gap, "undo_gap", bit(Field::payload)},
};

// Negotiated with peers. Kinds above it stay on the node that wrote them.
constexpr std::uint8_t highest_kind = static_cast<std::uint8_t>(Kind::repair_data);

// nullptr: no such kind.
const KindRow* find_kind(std::uint8_t kind);

}  // namespace holdfast::log
