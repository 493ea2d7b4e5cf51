// SPDX-License-Identifier: Apache-2.0
// Whether another node's file system can hold what is in a folder already. What is made later is refused by capture (capture/held_by_peers.h). Any
// thread.
#pragma once

#include <string>

#include "base/result.h"
#include "ports/tree_limits.h"

namespace holdfast::platform {

// `refused`, naming the first object that is beyond one of `limits`, and the way out. Looks at every object below `folder` (known as `path`) in its
// file system, and at none where there are no limits; what vanishes meanwhile is passed over. Times are not looked at: they are put to the end of
// their range there.
Status check_held(int folder, const std::string& path, const ports::TreeLimits& limits, const std::string& node);

// The same of what is really at `path`, below a cover and a capture, for a node that says that it can hold `told`.
Status check_held_by(const std::string& path, const ports::TreeLimits& told, const std::string& node);

}  // namespace holdfast::platform
