// SPDX-License-Identifier: Apache-2.0
// Extended attributes of an object below, as records carry them: all but our own hidden ones.
#pragma once

#include "base/bytes.h"

namespace holdfast::capture {

// Appends the encoded list (log/xattrs.h) of the object of `fd` (may be O_PATH). 0 or errno.
int read_xattrs(int fd, Bytes& out);

}  // namespace holdfast::capture
