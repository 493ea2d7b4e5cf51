// SPDX-License-Identifier: Apache-2.0
// Bytes of control messages and of a voter's durable state. Drawn in docs/formats/control.md.
// Decoding trusts nothing: every length and enum is checked, trailing bytes and unknown versions are errors.
#pragma once

#include "base/bytes.h"
#include "cluster/messages.h"

namespace holdfast::cluster {

constexpr std::uint8_t control_version = 1;
constexpr std::size_t max_message_bytes = max_config_bytes + 8 * 1024;  // a longer frame is refused unread

Bytes encode(const Envelope& envelope);
Result<Envelope> decode_envelope(ByteView bytes);

Bytes encode(const VoterState& state);  // carries a CRC32C over the whole
Result<VoterState> decode_voter_state(ByteView bytes);

}  // namespace holdfast::cluster
