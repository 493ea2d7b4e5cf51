// SPDX-License-Identifier: Apache-2.0
#include "log/xattrs.h"

namespace holdfast::log {

void encode_xattrs(std::span<const Xattr> list, Bytes& out) {
  if (list.empty()) return;
  ByteWriter w(out);
  w.varint(list.size());
  for (const Xattr& x : list) {
    w.text(x.name);
    w.bytes(x.value);
  }
}

Result<std::vector<Xattr>> decode_xattrs(ByteView payload) {
  std::vector<Xattr> list;
  if (payload.empty()) return list;
  ByteReader r(payload);
  const std::uint64_t count = r.varint();
  for (std::uint64_t i = 0; i < count && r.ok(); ++i) {
    Xattr x;
    x.name = r.text();
    x.value = r.bytes();
    if (r.ok() && !x.name.empty())
      list.push_back(x);
    else
      r.fail();
  }
  if (!r.ok() || r.left()) return fail(ErrorCode::corrupt, "a list of extended attributes is damaged");
  return list;
}

}  // namespace holdfast::log
