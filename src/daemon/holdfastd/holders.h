// SPDX-License-Identifier: Apache-2.0
// Which processes hold a folder: open files, working folder, root, mappings.
#pragma once

#include <string>
#include <vector>

namespace holdfast::daemon {

// "postgres (1234)", at most `most` of them. Reads /proc; blocks for milliseconds.
std::vector<std::string> holders_of(const std::string& folder, std::size_t most);

}  // namespace holdfast::daemon
