// SPDX-License-Identifier: Apache-2.0
#include "platform/durable_slots.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "platform/durable_file.h"

namespace holdfast::platform {
namespace {

constexpr char magic[8] = {'H', 'F', 'S', 'L', 'O', 'T', '0', '1'};
constexpr std::size_t head_bytes = 8 + 8 + 4 + 4;

bool is_slot(ByteView bytes) {
  return bytes.size() >= head_bytes && std::memcmp(bytes.data(), magic, sizeof magic) == 0;
}

std::uint32_t checksum(std::uint64_t generation, ByteView value) {
  Bytes covered;
  ByteWriter w(covered);
  w.u64(generation);
  w.u32(static_cast<std::uint32_t>(value.size()));
  w.raw(value);
  return crc32c(covered);
}

Bytes encode_slot(std::uint64_t generation, ByteView value) {
  Bytes out;
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(magic), sizeof magic});
  w.u64(generation);
  w.u32(static_cast<std::uint32_t>(value.size()));
  w.u32(checksum(generation, value));
  w.raw(value);
  return out;
}

// False: torn, or never written.
bool decode_slot(ByteView slot, std::uint64_t& generation, ByteView& value) {
  if (!is_slot(slot)) return false;
  ByteReader r(slot.subspan(sizeof magic));
  generation = r.u64();
  const std::uint32_t length = r.u32(), crc = r.u32();
  if (!r.ok() || length > slot.size() - head_bytes) return false;
  value = slot.subspan(head_bytes, length);
  return generation != 0 && checksum(generation, value) == crc;
}

}  // namespace

Result<Bytes> DurableSlots::load() {
  fd_.reset();
  generation_ = first_holds_ = 0;
  auto content = read_file(path_);
  if (!content && content.error().code == ErrorCode::not_found) return Bytes{};
  if (!content) return content;
  const std::size_t half = content->size() / 2;
  if (!is_slot(*content) && !is_slot(ByteView(*content).subspan(half))) return content;  // of an older version
  Bytes newest;
  for (const std::size_t at : {std::size_t{0}, half}) {
    std::uint64_t generation = 0;
    ByteView value;
    if (!decode_slot(ByteView(*content).subspan(at, half), generation, value) || generation <= generation_) continue;
    generation_ = generation;
    if (at == 0) first_holds_ = generation;
    newest.assign(value.begin(), value.end());
  }
  if (generation_ == 0) return fail(ErrorCode::corrupt, "{} is damaged: neither of its two values is whole", path_);
  slot_bytes_ = half;
  fd_ = UniqueFd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd_) return fail_errno(errno, "cannot open {}", path_);
  return newest;
}

Status DurableSlots::make(ByteView value) {
  fd_.reset();
  while (slot_bytes_ < head_bytes + value.size()) slot_bytes_ *= 2;
  Bytes image = encode_slot(++generation_, value);
  image.resize(2 * slot_bytes_);
  HF_TRY(write_file_durably(path_, image));
  fd_ = UniqueFd(::open(path_.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd_) return fail_errno(errno, "cannot open {}", path_);
  first_holds_ = generation_;
  return {};
}

Status DurableSlots::store(ByteView value) {
  if (!fd_ || head_bytes + value.size() > slot_bytes_) return make(value);
  const Bytes slot = encode_slot(generation_ + 1, value);
  // The one that does not hold the present value.
  const bool first = first_holds_ != generation_;
  ByteView rest = slot;
  for (std::uint64_t at = first ? 0 : slot_bytes_; !rest.empty();) {
    const ssize_t n = ::pwrite(fd_.get(), rest.data(), rest.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot write {}", path_);
    at += static_cast<std::uint64_t>(n);
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  if (::fdatasync(fd_.get()) != 0) return fail_errno(errno, "{} could not be made durable", path_);
  ++generation_;
  if (first) first_holds_ = generation_;
  return {};
}

}  // namespace holdfast::platform
