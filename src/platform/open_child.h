// SPDX-License-Identifier: Apache-2.0
// What stands at a name of a folder, opened to be looked at and never followed: regular files and folders so that they can be read (their
// attributes are reached by the descriptor then, without a way through /proc), all else as a path (O_PATH).
#pragma once

#include "platform/unique_fd.h"

namespace holdfast::platform {

// None: errno says why. What it is may have changed since: ask the descriptor.
UniqueFd open_child(int folder, const char* name);
// `type`: what readdir said of it (DT_*), while nothing else may have taken its place.
UniqueFd open_child(int folder, const char* name, unsigned char type);

}  // namespace holdfast::platform
