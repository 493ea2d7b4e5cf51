// SPDX-License-Identifier: Apache-2.0
#include "capture/look_server.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "log/xattrs.h"

namespace holdfast::capture {
namespace {

constexpr std::uint64_t keep_s = 3600;  // the past does not change
constexpr std::int64_t second_ns = 1'000'000'000;

std::uint64_t ino_of(const FileId& id) {
  std::uint64_t ino = 0;
  std::memcpy(&ino, id.bytes.data(), sizeof ino);
  return ino == 0 ? 2 : ino;
}

void split_time(std::int64_t ns, std::uint64_t& seconds, std::uint32_t& rest) {
  std::int64_t s = ns / second_ns;
  if (ns % second_ns < 0) --s;
  seconds = static_cast<std::uint64_t>(s);
  rest = static_cast<std::uint32_t>(ns - s * second_ns);
}

}  // namespace

LookServer::LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::PastTree> past)
    : LookServer(roots, std::move(past), nullptr) {}

LookServer::LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::ScratchTree> scratch)
    : LookServer(roots, std::shared_ptr<ports::PastTree>(scratch), scratch) {}

LookServer::LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::PastTree> past,
                       std::shared_ptr<ports::ScratchTree> scratch)
    : past_(std::move(past)), scratch_(std::move(scratch)) {
  Node top;
  top.ino = top.parent_ino = fuse::root_node;
  nodes_[fuse::root_node] = std::move(top);
  for (const auto& root : roots) place_root(root);
}

void LookServer::place_root(const LookMount::Root& root) {
  std::uint64_t at = fuse::root_node;
  for (std::size_t from = 0; from < root.path.size();) {
    const std::size_t slash = std::min(root.path.find('/', from), root.path.size());
    const std::string name = root.path.substr(from, slash - from);
    from = slash + 1;
    if (name.empty()) continue;
    auto& next = nodes_[at].children[name];
    if (next == 0) {
      next = ++last_node_;
      nodes_[next].ino = next;
      nodes_[next].parent_ino = nodes_[at].ino;
    }
    at = next;
  }
  Node& node = nodes_[at];
  node.set = root.set;
  node.id = FileId::root(root.set);
  known_[{node.set, node.id}] = at;
}

Answer LookServer::handle(Request& r) {
  using O = fuse::Op;
  if (const Change change = scratch_ ? change_of(r.op()) : nullptr) return (this->*change)(r);
  switch (r.op()) {
    case O::init:
      return init(r);
    case O::statfs:
      return statfs(r);
    case O::lookup:
      return lookup(r);
    case O::forget:
      forget(r.head.nodeid, r.in<fuse::ForgetIn>().nlookup);
      return no_answer;
    case O::batch_forget: {
      std::size_t count = r.in<fuse::BatchForgetIn>().count;
      for (ByteView rest = r.args; count > 0 && rest.size() >= sizeof(fuse::ForgetOne); --count) {
        fuse::ForgetOne one;
        std::memcpy(&one, rest.data(), sizeof one);
        forget(one.nodeid, one.nlookup);
        rest = rest.subspan(sizeof one);
      }
      return no_answer;
    }
    case O::interrupt:
      return no_answer;
    case O::getattr:
      return getattr(r);
    case O::readlink:
      return readlink(r);
    case O::open:
      return open(r);
    case O::read:
      return read(r);
    case O::opendir:
      return opendir(r);
    case O::readdir:
      return readdir(r);
    case O::releasedir:
      return releasedir(r);
    case O::release:
    case O::destroy:
      return 0;
    case O::getxattr:
      return xattr(r, false);
    case O::listxattr:
      return xattr(r, true);
    default:
      return -ENOSYS;  // what changes something does not come here when the mount is read-only
  }
}

Answer LookServer::init(Request& r) {
  const auto& in = r.in<fuse::InitIn>();
  fuse::InitOut out{};
  out.major = fuse::major_version;
  out.minor = std::min(in.minor, fuse::minor_version);
  if (in.major != fuse::major_version) return in.major > fuse::major_version ? put(r, out) : -EPROTO;
  if (in.minor < fuse::least_minor) return -EPROTO;
  const std::uint64_t offered = in.flags | std::uint64_t{in.flags2} << 32;
  std::uint64_t wanted = fuse::init_async_read | fuse::init_big_writes | fuse::init_parallel_dirops |
                         fuse::init_abort_error | fuse::init_max_pages | fuse::init_cache_symlinks | fuse::init_ext;
  // Others than root get in, so access lists count; and no getxattr before each write.
  if (scratch_)
    wanted |= fuse::init_posix_acl | fuse::init_dont_mask | fuse::init_handle_killpriv_v2 | fuse::init_setxattr_ext;
  const std::uint64_t agreed = offered & wanted;
  setxattr_ext_ = (agreed & fuse::init_setxattr_ext) != 0;
  out.flags = static_cast<std::uint32_t>(agreed);
  out.flags2 = static_cast<std::uint32_t>(agreed >> 32);
  out.max_readahead = 1U << 20;
  out.max_background = 16;
  out.congestion_threshold = 12;
  out.max_write = max_write_bytes;
  out.max_pages = max_write_bytes / 4096;
  out.time_gran = 1;
  return put(r, out);
}

Answer LookServer::statfs(Request& r) {
  fuse::StatfsOut out{};
  out.bsize = out.frsize = 4096;
  out.namelen = 255;
  if (scratch_) {
    const ports::ScratchUse use = scratch_->use();
    out.blocks = use.limit_bytes / out.bsize;
    out.bfree = out.bavail = (use.limit_bytes - std::min(use.limit_bytes, use.bytes)) / out.bsize;
    out.files = use.most_objects;
    out.ffree = use.most_objects - std::min(use.most_objects, use.objects);
  }
  return put(r, out);
}

bool LookServer::node_of(std::uint64_t number, Node& node) const {
  const std::lock_guard lock(mutex_);
  const auto it = nodes_.find(number);
  if (it == nodes_.end()) return false;
  node = it->second;
  return true;
}

std::uint64_t LookServer::remember(const Node& node) {
  const std::lock_guard lock(mutex_);
  auto& number = known_[{node.set, node.id}];
  if (number == 0) {
    number = ++last_node_;
    nodes_[number] = node;
  }
  Node& kept = nodes_[number];
  kept.parent_ino = node.parent_ino;
  ++kept.lookups;
  return number;
}

void LookServer::forget(std::uint64_t number, std::uint64_t lookups) {
  std::unique_lock lock(mutex_);
  const auto it = nodes_.find(number);
  if (it == nodes_.end() || it->second.set == 0 || it->second.id.is_root()) return;
  Node& node = it->second;
  node.lookups -= std::min(node.lookups, lookups);
  if (node.lookups != 0) return;
  const Node gone = std::move(node);
  known_.erase({gone.set, gone.id});
  nodes_.erase(it);
  lock.unlock();
  if (scratch_) scratch_->forgotten(gone.set, gone.id);
}

Answer LookServer::attributes(const Node& node, fuse::Attr& attr) {
  attr = {};
  attr.ino = node.ino;
  attr.blksize = 4096;
  if (node.set == 0) {
    attr.mode = S_IFDIR | 0555;
    attr.nlink = 2;
    return 0;
  }
  const auto a = past_->attributes(node.set, node.id);
  if (!a) return refused(a.error());
  attr.size = S_ISDIR(a->mode) ? 0 : a->size;
  attr.blocks = (a->allocated_bytes + 511) / 512;
  split_time(a->atime_ns, attr.atime, attr.atime_nsec);
  split_time(a->mtime_ns, attr.mtime, attr.mtime_nsec);
  split_time(a->ctime_ns, attr.ctime, attr.ctime_nsec);
  attr.mode = a->mode;
  attr.nlink = static_cast<std::uint32_t>(a->links);
  attr.uid = a->uid;
  attr.gid = a->gid;
  attr.rdev = static_cast<std::uint32_t>(a->rdev);
  return 0;
}

// Of what is only read.
Answer LookServer::refused(const Error& why) {
  switch (why.code) {
    case ErrorCode::stale:
      tell(over_told_, why);
      return -ESTALE;
    case ErrorCode::not_found:
      return -ESTALE;
    default:
      return why.sys_errno ? -why.sys_errno : -EIO;
  }
}

void LookServer::tell(std::atomic<bool>& told, const Error& why) {
  if (!told.exchange(true) && on_trouble) on_trouble(why);
}

// What the kernel is told of an object below `parent`.
Answer LookServer::entry(Node node, const Node& parent, fuse::EntryOut& out) {
  if (node.ino == 0) node.ino = ino_of(node.id);
  if (const Answer error = attributes(node, out.attr); error < 0) return error;
  node.parent_ino = parent.ino;
  if (out.nodeid == 0) out.nodeid = remember(node);
  out.entry_valid = out.attr_valid = keep_s;
  return 0;
}

Answer LookServer::lookup(Request& r) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  Node dir, node;
  if (!node_of(r.head.nodeid, dir)) return -ESTALE;
  fuse::EntryOut out{};
  if (dir.set == 0) {
    const auto it = dir.children.find(std::string(name.view()));
    if (it == dir.children.end() || !node_of(it->second, node)) return -ENOENT;
    out.nodeid = it->second;
  } else {
    const auto found = past_->lookup(dir.set, dir.id, name.view());
    if (!found) return refused(found.error());
    if (!*found) return -ENOENT;
    node.set = dir.set;
    node.id = (*found)->id;
  }
  if (const Answer error = entry(std::move(node), dir, out); error < 0) return error;
  return put(r, out);
}

Answer LookServer::getattr(Request& r) {
  Node node;
  if (!node_of(r.head.nodeid, node)) return -ESTALE;
  fuse::AttrOut out{};
  out.attr_valid = keep_s;
  if (const Answer error = attributes(node, out.attr); error < 0) return error;
  return put(r, out);
}

Answer LookServer::readlink(Request& r) {
  Node node;
  if (!node_of(r.head.nodeid, node) || node.set == 0) return -ESTALE;
  const auto target = past_->target(node.set, node.id);
  if (!target) return refused(target.error());
  if (target->size() > r.reply.size()) return -EIO;
  std::memcpy(r.reply.data(), target->data(), target->size());
  return static_cast<Answer>(target->size());
}

Answer LookServer::open(Request& r) {
  if (!scratch_ && (r.in<fuse::OpenIn>().flags & O_ACCMODE) != O_RDONLY) return -EROFS;
  return put(r, fuse::OpenOut{0, fuse::fopen_keep_cache, 0});
}

Answer LookServer::read(Request& r) {
  const auto in = r.in<fuse::ReadIn>();
  Node node;
  if (!node_of(r.head.nodeid, node) || node.set == 0) return -ESTALE;
  const auto got =
      past_->read(node.set, node.id, in.offset, r.reply.first(std::min<std::size_t>(in.size, r.reply.size())));
  return got ? static_cast<Answer>(*got) : refused(got.error());
}

Answer LookServer::list(const Node& dir, Listing& listing) {
  const std::lock_guard one(listing_mutex_);
  listing = std::make_shared<LookListing>();
  listing->add(".", dir.ino, S_IFDIR);
  listing->add("..", dir.parent_ino, S_IFDIR);
  if (dir.set == 0) {
    for (const auto& [name, number] : dir.children) listing->add(name, number, S_IFDIR);
  } else {
    const auto all = past_->list(dir.set, dir.id);
    if (!all) return refused(all.error());
    listing->reserve(all->size() + 2);
    for (const auto& e : *all) listing->add(e.name, ino_of(e.id), e.mode & S_IFMT);
  }
  return listing->count_in(listing_bytes_, most_listing_bytes) ? 0 : -ENOMEM;
}

// A listing stays as it was when it began, so what is added or removed meanwhile moves nothing in it. Where it can't change the kernel keeps it.
Answer LookServer::opendir(Request& r) {
  Node dir;
  if (!node_of(r.head.nodeid, dir)) return -ESTALE;
  Listing listing;
  if (!scratch_)
    if (const Answer error = list(dir, listing); error < 0) return error;
  const std::lock_guard lock(mutex_);
  listings_[++last_listing_] = std::move(listing);
  const std::uint32_t flags = scratch_ ? 0 : fuse::fopen_keep_cache | fuse::fopen_cache_dir;
  return put(r, fuse::OpenOut{last_listing_, flags, 0});
}

Answer LookServer::readdir(Request& r) {
  const auto in = r.in<fuse::ReadIn>();
  Listing listing;
  {
    const std::lock_guard lock(mutex_);
    const auto it = listings_.find(in.fh);
    if (it == listings_.end()) return -EBADF;
    if (scratch_ && in.offset == 0) it->second.reset();  // from the beginning: as it is now
    listing = it->second;
  }
  if (!listing) {
    Node dir;
    if (!node_of(r.head.nodeid, dir)) return -ESTALE;
    if (const Answer error = list(dir, listing); error < 0) return error;
    const std::lock_guard lock(mutex_);
    listings_[in.fh] = listing;
  }
  const std::size_t room = std::min<std::size_t>(in.size, r.reply.size());
  std::size_t used = 0;
  for (std::uint64_t at = in.offset; at < listing->size(); ++at) {
    const LookListing::Entry e = listing->at(at);
    const std::size_t whole = fuse::record_aligned(sizeof(fuse::Dirent) + e.name.size());
    if (whole > room - used) break;
    const fuse::Dirent out{e.ino, at + 1, static_cast<std::uint32_t>(e.name.size()), e.type >> 12};
    std::memset(r.reply.data() + used, 0, whole);
    std::memcpy(r.reply.data() + used, &out, sizeof out);
    std::memcpy(r.reply.data() + used + sizeof out, e.name.data(), e.name.size());
    used += whole;
  }
  return static_cast<Answer>(used);
}

Answer LookServer::releasedir(Request& r) {
  const std::lock_guard lock(mutex_);
  listings_.erase(r.in<fuse::ReleaseIn>().fh);
  return 0;
}

Answer LookServer::xattr(Request& r, bool list) {
  const std::uint32_t size = r.in<fuse::GetxattrIn>().size;
  Name name;
  if (!list)
    if (const int error = name.take(r.args)) return -error;
  Node node;
  if (!node_of(r.head.nodeid, node)) return -ESTALE;
  Bytes found;
  if (node.set != 0) {
    const auto bytes = past_->xattrs(node.set, node.id);
    if (!bytes) return refused(bytes.error());
    const auto all = log::decode_xattrs(*bytes);
    if (!all) return -EIO;
    const auto one = std::find_if(all->begin(), all->end(), [&](const auto& x) { return x.name == name.view(); });
    if (!list && one == all->end()) return -ENODATA;
    if (!list) found.assign(one->value.begin(), one->value.end());
    for (const auto& x : *all) {
      if (!list) break;
      if (r.head.uid != 0 && x.name.starts_with("trusted.")) continue;
      found.insert(found.end(), x.name.begin(), x.name.end());
      found.push_back(0);
    }
  } else if (!list) {
    return -ENODATA;
  }
  if (size == 0) return put(r, fuse::GetxattrOut{static_cast<std::uint32_t>(found.size()), 0});
  if (found.size() > std::min<std::size_t>(size, r.reply.size())) return -ERANGE;
  std::copy(found.begin(), found.end(), r.reply.begin());
  return static_cast<Answer>(found.size());
}

}  // namespace holdfast::capture
