// SPDX-License-Identifier: Apache-2.0
// Any bytes as a record, with its checksum as it is and made right; as a listing; as a list of extended attributes.
#include "base/check.h"
#include "log/record_codec.h"
#include "log/segment.h"
#include "log/ship.h"
#include "log/xattrs.h"

namespace {

using namespace holdfast;
using namespace holdfast::log;

void read_payload(const Record& record) {
  ShipEntryReader reader(record.payload);
  for (auto entry = reader.next(); entry && *entry; entry = reader.next())
    CHECK(!(*entry)->name.empty(), "a name of nothing");
  (void)decode_xattrs(record.payload);
}

void make_checksum_right(Bytes& bytes) {
  std::uint32_t length = 0;
  std::memcpy(&length, bytes.data(), 4);
  if (length < record_header_bytes || length > bytes.size()) return;
  std::uint32_t crc = crc32c(ByteView(bytes).subspan(record_header_bytes, length - record_header_bytes));
  crc = crc32c(ByteView(bytes).subspan(8, record_header_bytes - 8), crc);
  std::memcpy(bytes.data() + 4, &crc, 4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, data + size);
  RecordHead head;
  (void)inspect(bytes, head);
  if (bytes.size() >= record_header_bytes) make_checksum_right(bytes);
  if (inspect(bytes, head) == Found::record) {
    CHECK(head.length <= bytes.size(), "a record longer than its bytes");
    if (const auto record = decode(ByteView(bytes).first(head.length))) {
      read_payload(*record);
      // What was read can be written, and says the same.
      const Bytes again = encode(*record);
      CHECK(decode(again).has_value(), "a record that can't be read again");
    }
  }
  GroupHead group;
  (void)decode_group_head(bytes, group);
  (void)decode_segment_header(bytes);
  return 0;
}
