// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link_frame.h"

namespace holdfast::network {

const char* to_string(PeerKind kind) { return kind == PeerKind::witness ? "witness" : "node"; }

Bytes encode_hello(const Hello& hello) {
  Bytes out;
  ByteWriter w(out);
  w.u16(hello.version_min);
  w.u16(hello.version_max);
  w.text(hello.cluster);
  w.u64(hello.id.value);
  w.u8(static_cast<std::uint8_t>(hello.kind));
  w.text(hello.name);
  w.u64(hello.incarnation);
  w.text(hello.software);
  return out;
}

// The version range stands first and stays there for ever, so that any two versions can at least refuse each other clearly.
Result<Hello> decode_hello(ByteView payload) {
  ByteReader r(payload);
  Hello hello;
  hello.version_min = r.u16();
  hello.version_max = r.u16();
  if (!r.ok() || hello.version_min > hello.version_max)
    return fail(ErrorCode::corrupt, "hello without a version range");
  if (hello.version_min > link_version_max || hello.version_max < link_version_min)
    return hello;  // the rest may have another form
  hello.cluster = r.text();
  hello.id = NodeId(r.u64());
  const std::uint8_t kind = r.u8();
  hello.name = r.text();
  hello.incarnation = r.u64();
  hello.software = r.text();
  if (!r.ok() || (kind != 1 && kind != 2)) return fail(ErrorCode::corrupt, "hello cut short or damaged");
  if (hello.id.value == 0) return fail(ErrorCode::corrupt, "hello without a node id");
  hello.kind = static_cast<PeerKind>(kind);
  return hello;
}

std::optional<std::string> version_conflict(const Hello& mine, const Hello& theirs) {
  if (mine.version_min <= theirs.version_max && theirs.version_min <= mine.version_max) return std::nullopt;
  return fmt::format("control protocol versions do not meet: here {} to {}, there {} to {}; upgrade the older node",
                     mine.version_min, mine.version_max, theirs.version_min, theirs.version_max);
}

void append_frame(Bytes& out, FrameType type, ByteView payload) {
  CHECK(payload.size() < max_frame_bytes, "frame of {} bytes", payload.size());
  ByteWriter w(out);
  w.u32(static_cast<std::uint32_t>(payload.size() + 1));
  w.u8(static_cast<std::uint8_t>(type));
  w.raw(payload);
}

Bytes encode_request(const RequestFrame& request) {
  Bytes out;
  ByteWriter w(out);
  w.varint(request.id);
  w.text(request.op);
  w.text(request.body);
  return out;
}

Result<RequestFrame> decode_request(ByteView payload) {
  ByteReader r(payload);
  RequestFrame request;
  request.id = r.varint();
  request.op = r.text();
  request.body = r.text();
  if (!r.ok()) return fail(ErrorCode::corrupt, "request frame cut short");
  return request;
}

Bytes encode_response(const ResponseFrame& response) {
  Bytes out;
  ByteWriter w(out);
  w.varint(response.id);
  w.u8(response.result ? 0 : static_cast<std::uint8_t>(static_cast<unsigned>(response.result.error().code) + 1));
  w.text(response.result ? *response.result : response.result.error().message);
  w.text(response.result ? std::string() : response.result.error().hint);
  return out;
}

Result<ResponseFrame> decode_response(ByteView payload) {
  ByteReader r(payload);
  ResponseFrame response;
  response.id = r.varint();
  const std::uint8_t code = r.u8();
  std::string body(r.text());
  std::string hint(r.text());
  if (!r.ok() || code > static_cast<unsigned>(ErrorCode::internal) + 1)
    return fail(ErrorCode::corrupt, "response frame damaged");
  if (code == 0) {
    response.result = std::move(body);
  } else {
    response.result = tl::unexpected(Error{static_cast<ErrorCode>(code - 1), std::move(body), std::move(hint), 0});
  }
  return response;
}

void FrameReader::feed(ByteView bytes) {
  if (start_ > 0 && start_ == buffer_.size()) {
    buffer_.clear();
    start_ = 0;
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

Result<std::optional<Frame>> FrameReader::next() {
  const ByteView left(buffer_.data() + start_, buffer_.size() - start_);
  if (left.size() < 5) return std::optional<Frame>();
  ByteReader r(left);
  const std::uint32_t length = r.u32();
  if (length == 0 || length > max_frame_bytes)
    return fail(ErrorCode::corrupt, "frame length {} is out of range", length);
  const std::uint8_t type = r.u8();
  if (type < static_cast<std::uint8_t>(FrameType::hello) || type > static_cast<std::uint8_t>(FrameType::summary))
    return fail(ErrorCode::corrupt, "frame type {} is unknown", type);
  if (left.size() < 4u + length) return std::optional<Frame>();
  Frame frame;
  frame.type = static_cast<FrameType>(type);
  frame.payload.assign(left.begin() + 5, left.begin() + 4 + length);
  start_ += 4u + length;
  if (start_ > 65536) {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(start_));
    start_ = 0;
  }
  return std::optional<Frame>(std::move(frame));
}

}  // namespace holdfast::network
