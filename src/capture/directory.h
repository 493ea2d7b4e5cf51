// SPDX-License-Identifier: Apache-2.0
// An open folder of the kernel: entries read ahead from the file system below, by its own cookies, so that seekdir keeps working.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "capture/inode_table.h"

namespace holdfast::capture {

struct DirectoryEntry {
  std::uint64_t lower_ino;
  std::int64_t next;  // cookie of the entry behind it
  std::uint8_t type;  // DT_*
  const char* name;   // NUL-terminated, valid until the next read()
};

class DirectoryHandle {
 public:
  DirectoryHandle(InodePtr inode, Descriptor fd) : inode_(std::move(inode)), fd_(std::move(fd)) {}
  // Opened by this process itself, only to be released (UringTransport::park).
  bool to_park = false;
  std::mutex& mutex() { return mutex_; }  // hold it around everything below
  const InodePtr& inode() const { return inode_; }
  int fd() const { return fd_.get(); }
  // Goes to a cookie; 0 or errno.
  int seek(std::int64_t cookie);
  // 1: an entry; 0: the end; negative: -errno. peek() does not move on, advance() does.
  int peek(DirectoryEntry& out);
  void advance();

 private:
  int fill();
  std::mutex mutex_;
  const InodePtr inode_;
  const Descriptor fd_;
  std::vector<char> buffer_;
  std::size_t at_ = 0, end_ = 0;
  std::int64_t position_ = 0;  // cookie of the entry at at_
};

}  // namespace holdfast::capture
