// SPDX-License-Identifier: Apache-2.0
// Pieces of requests and answers: names (copied, for the answer may land on top of them), extensions, fixed answers.
#pragma once

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "capture/transport.h"

namespace holdfast::capture {

// A name out of the arguments, at most 255 bytes (xattr names and folder entries alike).
class Name {
 public:
  // Takes a NUL-terminated name off the front of `args`. 0 or errno.
  int take(ByteView& args) {
    const void* end = std::memchr(args.data(), 0, args.size());
    if (!end) return EINVAL;
    size_ = static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - args.data());
    if (size_ == 0) return EINVAL;
    if (size_ > 255) return ENAMETOOLONG;
    std::memcpy(text_, args.data(), size_ + 1);
    args = args.subspan(size_ + 1);
    return 0;
  }
  const char* c_str() const { return text_; }
  std::string_view view() const { return {text_, size_}; }
  std::size_t size() const { return size_; }

 private:
  char text_[256] = {};
  std::size_t size_ = 0;
};

// What the kernel adds to create requests: the group that gave the right to the folder, labels of a security module.
struct Extensions {
  std::array<std::uint32_t, 32> groups{};
  std::size_t group_count = 0;
  ByteView labels;  // sequence of SecurityContext

  std::span<const std::uint32_t> group_list() const { return {groups.data(), group_count}; }
  void parse(const Request& r) {
    std::size_t bytes = std::size_t{r.head.extension_words} * 8;
    if (bytes == 0 || bytes > r.args.size()) return;
    ByteView rest = r.args.subspan(r.args.size() - bytes);
    while (rest.size() >= sizeof(fuse::ExtensionHeader)) {
      fuse::ExtensionHeader head;
      std::memcpy(&head, rest.data(), sizeof head);
      if (head.size < sizeof head || head.size > rest.size()) return;
      const ByteView body = rest.subspan(sizeof head, head.size - sizeof head);
      if (head.type == fuse::extension_groups)
        take_groups(body);
      else if (head.type <= fuse::extension_security_max)
        labels = body;
      rest = rest.subspan(head.size);
    }
  }

 private:
  void take_groups(ByteView body) {
    std::uint32_t count;
    if (body.size() < sizeof count) return;
    std::memcpy(&count, body.data(), sizeof count);
    group_count = std::min<std::size_t>({count, groups.size(), (body.size() - sizeof count) / sizeof(std::uint32_t)});
    std::memcpy(groups.data(), body.data() + sizeof count, group_count * sizeof(std::uint32_t));
  }
};

template <class T>
Answer put(Request& r, const T& value) {
  std::memcpy(r.reply.data(), &value, sizeof value);
  return sizeof value;
}

}  // namespace holdfast::capture
