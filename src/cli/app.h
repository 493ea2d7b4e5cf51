// SPDX-License-Identifier: Apache-2.0
// The command line: parses, runs one command, returns the exit status. No process state is touched beyond Surroundings.
#pragma once

#include <string>
#include <vector>

#include "cli/session.h"

namespace holdfast::cli {

// `arguments` without the program's name.
int run(const std::vector<std::string>& arguments, const Surroundings& around);

}  // namespace holdfast::cli
