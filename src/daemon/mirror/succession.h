// SPDX-License-Identifier: Apache-2.0
// What this process leaves to the next one of the same unit, so that the epoch goes on: kept by systemd's descriptor store in between. Nothing of it
// is on a disk: should nobody take it, the kernel ends the captures when systemd lets go of it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "capture/handover.h"
#include "mirror/node_log.h"

namespace holdfast::mirror_process {

struct Succession {
  mirror::NodeLog::Handed handed;
  std::int64_t began_ns = 0;  // as SystemTimes::steady_ns(): since then applications wait
  std::vector<capture::Handover> captures;
};

// Success: systemd has it.
Status leave(const Succession& succession);
// What the process before this one left; the store is empty after it. Damaged, or of another form: an error, and the captures are over.
Result<std::optional<Succession>> take_succession();

// The text beside the captures.
std::string encode_handed(const mirror::NodeLog::Handed& handed, std::int64_t began_ns);
Result<Succession> decode_handed(std::string_view text);

}  // namespace holdfast::mirror_process
