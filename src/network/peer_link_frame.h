// SPDX-License-Identifier: Apache-2.0
// Framing of control links (ALPN holdfast-control/1), nothing else: no sockets here, so that it can be tested and fuzzed alone.
//
//   +----------------+--------+------------------+
//   | length (u32 LE)| type u8| payload          |    length counts type and payload
//   +----------------+--------+------------------+
//
// A length of 0 or above max_frame_bytes, or an unknown type, is an error: the connection is closed, nothing is guessed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "base/types.h"

namespace holdfast::network {

constexpr std::size_t max_frame_bytes = 4u << 20;
constexpr std::uint16_t link_version_min = 1;
constexpr std::uint16_t link_version_max = 1;
constexpr const char* control_alpn = "holdfast-control/1";

enum class FrameType : std::uint8_t {
  hello = 1,             // first frame of both sides
  refuse = 2,            // text: why this connection is closed
  heartbeat = 3,         // u64 stamp of the sender, opaque to the receiver
  heartbeat_answer = 4,  // the same stamp back
  message = 5,           // bytes of the cluster codec
  request = 6,           // varint id, text op, bytes body
  response = 7,          // varint id, u8 error code + 1 (0 = ok), text body or message, text hint
  summary = 8,           // text: what the sender's node tells about itself, newest wins
};

struct Frame {
  FrameType type = FrameType::refuse;
  Bytes payload;
};

enum class PeerKind : std::uint8_t { node = 1, witness = 2 };
const char* to_string(PeerKind kind);

struct Hello {
  std::uint16_t version_min = link_version_min;
  std::uint16_t version_max = link_version_max;
  std::string cluster;  // cluster id, not its name
  NodeId id;
  PeerKind kind = PeerKind::node;
  std::string name;
  std::uint64_t incarnation = 0;  // changes when the voter's state was lost (R9)
  std::string software;           // for people
};

Bytes encode_hello(const Hello& hello);
Result<Hello> decode_hello(ByteView payload);

// Empty when both ranges meet, else the one line to say.
std::optional<std::string> version_conflict(const Hello& mine, const Hello& theirs);

void append_frame(Bytes& out, FrameType type, ByteView payload);

struct RequestFrame {
  std::uint64_t id = 0;
  std::string op;
  std::string body;
};
Bytes encode_request(const RequestFrame& request);
Result<RequestFrame> decode_request(ByteView payload);

struct ResponseFrame {
  std::uint64_t id = 0;
  Result<std::string> result;
};
Bytes encode_response(const ResponseFrame& response);
Result<ResponseFrame> decode_response(ByteView payload);

// Collects bytes of one connection and cuts them into frames.
class FrameReader {
 public:
  void feed(ByteView bytes);
  // nullopt: more bytes are needed. After an error the reader must not be used again.
  Result<std::optional<Frame>> next();

 private:
  Bytes buffer_;
  std::size_t start_ = 0;
};

}  // namespace holdfast::network
