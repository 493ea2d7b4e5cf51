// SPDX-License-Identifier: Apache-2.0
// Any bytes as what a peer sends: frames off the stream, and each message's decoder on its own.
#include <algorithm>

#include "mirror/change_set.h"
#include "mirror/channel.h"
#include "mirror/node_state.h"

namespace {

using namespace holdfast;
using namespace holdfast::mirror;

class Input final : public ports::ByteStream {
 public:
  explicit Input(ByteView bytes) : bytes_(bytes) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    const std::size_t n = std::min(into.size(), bytes_.size());
    std::copy_n(bytes_.begin(), n, into.begin());
    bytes_ = bytes_.subspan(n);
    return n;
  }
  bool readable_now() override { return !bytes_.empty(); }
  Status write_pieces(std::span<const ByteView>) override { return {}; }
  void shutdown() override {}

 private:
  ByteView bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes(data, size);
  Input input(bytes);
  FrameReader reader(input);
  while (reader.next()) {
  }
  (void)decode_hello(bytes);
  (void)decode_welcome(bytes);
  (void)decode_start(bytes);
  std::vector<ports::ChangeEntry> entries;
  if (decode_changed(bytes, entries)) {
    ChangeSet changes;
    for (const auto& e : entries) (void)changes.add(e.key, e.value);
  }
  (void)decode_batch_head(bytes);
  (void)decode_ack(bytes);
  (void)decode_nak(bytes);
  (void)decode_heartbeat(bytes);
  (void)decode_refuse(bytes);
  (void)decode_node_state(bytes);
  return 0;
}
