// SPDX-License-Identifier: Apache-2.0
// Which folders this process covers as it starts, before holdfastd has said anything: <state>/covers.json, a list of {set, path}. Of an older program
// it holds paths alone.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/mirror/mirror_config.h"

namespace holdfast::mirror_process {

struct Cover {
  SetNumber set = 0;  // 0: not known
  std::string path;
  bool operator==(const Cover&) const = default;
};

std::string encode_covers(const std::vector<Cover>& covers);
std::optional<std::vector<Cover>> decode_covers(std::string_view text);  // nothing: damaged

struct CoversNow {
  std::vector<Cover> stay, gone;
};
// What the configuration names stays covered. What it does not name is not let go by that alone: holdfastd may not know yet what is protected. A
// number below next_set that it does not name was unprotected.
CoversNow covers_now(const std::vector<Cover>& before, const MirrorConfig& config);

}  // namespace holdfast::mirror_process
