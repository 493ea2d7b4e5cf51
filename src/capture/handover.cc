// SPDX-License-Identifier: Apache-2.0
#include "capture/handover.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace holdfast::capture {
namespace {

constexpr std::size_t most_at_once = 250;  // the kernel takes 253 in a message
constexpr int queue_bytes = 64 << 20;
constexpr std::uint64_t most_state_bytes = std::uint64_t{4} << 30;

// Each message: how many descriptors follow this one's, and those of its own beside it.
struct Message {
  std::uint32_t version = handover_version;
  std::uint32_t pins = 0;  // in all; of the first message
};

Status send(int socket, const Message& message, std::span<const int> descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * most_at_once)] = {};
  iovec data{const_cast<Message*>(&message), sizeof message};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
  cmsghdr* const c = CMSG_FIRSTHDR(&header);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  std::memcpy(CMSG_DATA(c), descriptors.data(), descriptors.size_bytes());
  if (::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof message)) return {};
  return fail_errno(errno, "cannot hand descriptors over");
}

Result<std::vector<Descriptor>> receive(int socket, Message& message) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * most_at_once)] = {};
  iovec data{&message, sizeof message};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0) return fail_errno(errno, "cannot take descriptors over");
  std::vector<Descriptor> out;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; CMSG_LEN(sizeof(int) * (i + 1)) <= c->cmsg_len; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      out.emplace_back(fd);
    }
  }
  if (n != sizeof message || (header.msg_flags & MSG_CTRUNC))
    return fail(ErrorCode::corrupt, "descriptors of the mirror before this one are missing");
  if (message.version != handover_version)
    return fail(ErrorCode::unavailable, "a capture was handed over in form {}, this version reads {}", message.version,
                handover_version);
  return out;
}

Result<Descriptor> to_file(ByteView bytes) {
  Descriptor file(memfd_create("holdfast-handover", MFD_CLOEXEC));
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = pwrite(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "no memory to hand a capture over");
    done += static_cast<std::size_t>(n);
  }
  if (file.get() < 0) return fail_errno(errno, "no memory to hand a capture over");
  return file;
}

Result<Bytes> from_file(int file) {
  struct stat st;
  if (fstat(file, &st) != 0 || static_cast<std::uint64_t>(st.st_size) > most_state_bytes)
    return fail(ErrorCode::corrupt, "what the mirror before this one left can't be read");
  Bytes out(static_cast<std::size_t>(st.st_size));
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t n = pread(file, out.data() + done, out.size() - done, static_cast<off_t>(done));
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "what the mirror before this one left can't be read");
    done += static_cast<std::size_t>(n);
  }
  return out;
}

}  // namespace

Result<Descriptor> pack(const Handover& handover) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "cannot hand descriptors over");
  const Descriptor writing(ends[0]);
  Descriptor reading(ends[1]);
  (void)setsockopt(writing.get(), SOL_SOCKET, SO_SNDBUFFORCE, &queue_bytes, sizeof queue_bytes);
  HF_ASSIGN(const Descriptor state, to_file(handover.state));
  std::vector<int> list{state.get(), handover.device.get(), handover.root.get()};
  if (handover.buffers.get() >= 0) list.push_back(handover.buffers.get());
  HF_TRY(send(writing.get(), {handover_version, static_cast<std::uint32_t>(handover.pins.size())}, list));
  for (std::size_t sent = 0; sent < handover.pins.size(); sent += list.size()) {
    list.clear();
    for (std::size_t i = sent; i < handover.pins.size() && list.size() < most_at_once; ++i)
      list.push_back(handover.pins[i].get());
    HF_TRY(send(writing.get(), {}, list));
  }
  return reading;
}

Result<Handover> unpack(const Descriptor& socket) {
  Handover out;
  Message first;
  HF_ASSIGN(auto list, receive(socket.get(), first));
  if (list.size() < 3 || list.size() > 4)
    return fail(ErrorCode::corrupt, "descriptors of the mirror before this one are missing");
  HF_ASSIGN(out.state, from_file(list[0].get()));
  out.device = std::move(list[1]);
  out.root = std::move(list[2]);
  if (list.size() == 4) out.buffers = std::move(list[3]);
  while (out.pins.size() < first.pins) {
    Message more;
    HF_ASSIGN(auto some, receive(socket.get(), more));
    if (some.empty()) return fail(ErrorCode::corrupt, "descriptors of the mirror before this one are missing");
    for (Descriptor& one : some) out.pins.push_back(std::move(one));
  }
  ByteReader reader(out.state);
  (void)reader.u32();
  out.path = reader.text();
  out.number = reader.text();
  return out;
}

std::string abort_path_of(const Handover& handover) {
  return "/sys/fs/fuse/connections/" + handover.number.substr(handover.number.find(':') + 1) + "/abort";
}

}  // namespace holdfast::capture
