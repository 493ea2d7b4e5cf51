// SPDX-License-Identifier: Apache-2.0
// PosixTree on real folders: what the model of it (mirror/test_tree.h) takes for granted, and what only a kernel does.
#include "platform/posix_tree.h"
#include "platform/graveyard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "log/hash.h"
#include "log/record.h"
#include "log/xattrs.h"
#include "mirror/apply_resync.h"
#include "platform/graveyard.h"
#include "platform/object_xattrs.h"
#include "platform/test_certificates.h"

namespace holdfast::platform {
namespace {

using ports::Grave;
using ports::Standing;
using testing::TemporaryFolder;

constexpr SetNumber set = 1;
constexpr const char* capability = "security.capability";
// cap_net_raw+ep, revision 2
const Bytes some_capability = {1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

FileId id_number(std::uint8_t n) {
  FileId id;
  id.bytes[0] = n;
  id.bytes[15] = 0x77;
  return id;
}

class PosixTreeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(root());
    auto opened = FileIndex::open(folder / "index");
    ASSERT_TRUE(opened) << opened.error().to_string();
    index = std::move(*opened);
    open();
  }
  void open() {
    auto made = PosixTree::open(UniqueFd(::open(root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), set, *index);
    ASSERT_TRUE(made) << made.error().to_string();
    tree = std::move(*made);
  }
  std::string root() const { return folder / "tree"; }
  std::string at(const std::string& name) const { return root() + "/" + name; }

  FileId make(std::uint8_t number, const std::string& name, std::uint32_t mode = S_IFREG | 0640) {
    const FileId id = id_number(number);
    ports::NewNode node;
    node.mode = mode;
    node.target = "target";
    EXPECT_TRUE(tree->stage(id, node));
    EXPECT_TRUE(tree->commit_ids());
    EXPECT_TRUE(tree->place(id, top, name));
    return id;
  }
  void write(const FileId& id, std::uint64_t offset, std::string_view text) {
    const ByteView piece = as_bytes(text);
    ASSERT_TRUE(tree->write(id, offset, {&piece, 1}));
  }
  bool purge_one(const FileId& id, std::uint64_t stamp, std::size_t most = 1000) {
    const auto gone = tree->purge_one(Grave::deleted, id, stamp, most);
    EXPECT_TRUE(gone);
    return gone && *gone;
  }
  std::map<std::string, Bytes> xattrs(const FileId& id) {
    std::map<std::string, Bytes> all;
    const auto list = tree->read_xattrs(id);
    EXPECT_TRUE(list);
    const auto decoded = log::decode_xattrs(*list);
    for (const auto& x : *decoded) all[std::string(x.name)] = Bytes(x.value.begin(), x.value.end());
    return all;
  }

  TemporaryFolder folder;
  std::unique_ptr<FileIndex> index;
  std::unique_ptr<PosixTree> tree;
  const FileId top = FileId::root(set);
};

TEST_F(PosixTreeTest, ADigestIsOfTheBytesThatAreThere) {
  const FileId id = make(1, "f");
  write(id, 0, "old");
  const auto digest_is_of = [&](std::string_view text) {
    const auto digest = tree->digest(id, 0, 10);
    return digest && digest->bytes == text.size() && digest->hash == log::content_hash(as_bytes(text));
  };
  tree->will_digest(id, 0, 10);
  EXPECT_TRUE(digest_is_of("old"));
  tree->will_digest(id, 0, 10);
  write(id, 0, "newer");
  EXPECT_TRUE(digest_is_of("newer"));
  tree->will_digest(id, 0, 10);
  tree->forget_digests();  // the application changes it now, through descriptors of its own
  std::ofstream(at("f"), std::ios::in | std::ios::out) << "other";
  EXPECT_TRUE(digest_is_of("other"));
}

TEST_F(PosixTreeTest, XattrsAreReadInOrderAndWithoutOurOwn) {
  const FileId id = make(1, "f");
  EXPECT_TRUE(xattrs(id).empty());
  ASSERT_TRUE(tree->set_xattr(id, "user.b", as_bytes("2")));
  ASSERT_TRUE(tree->set_xattr(id, "user.a", Bytes(1000, 0x55)));
  const auto list = tree->read_xattrs(id);
  ASSERT_TRUE(list);
  const auto decoded = log::decode_xattrs(*list);
  ASSERT_TRUE(decoded);
  ASSERT_EQ(decoded->size(), 2U);
  EXPECT_EQ((*decoded)[0].name, "user.a");
  EXPECT_EQ((*decoded)[0].value.size(), 1000U);
  EXPECT_EQ((*decoded)[1].name, "user.b");
  const FileId link = make(2, "l", S_IFLNK | 0777);
  EXPECT_TRUE(xattrs(link).empty());
}

TEST_F(PosixTreeTest, HolesAreFound) {
  const FileId id = make(1, "f");
  EXPECT_EQ(tree->next_data(id, 0).value(), 0U);
  ASSERT_TRUE(tree->truncate(id, 1U << 20));
  EXPECT_EQ(tree->next_data(id, 0).value(), 1U << 20);
  write(id, 512 * 1024, "x");
  EXPECT_EQ(tree->next_data(id, 0).value(), 512U * 1024);
  EXPECT_GT(tree->next_hole(id, 512 * 1024).value(), 512U * 1024);
  EXPECT_EQ(tree->next_hole(id, 0).value(), 0U);
  EXPECT_EQ(tree->next_data(id, 1U << 21).value(), 1U << 20);
  EXPECT_GT(tree->attributes(id).value()->allocated_bytes, 0U);
}

TEST_F(PosixTreeTest, AGraveCarriesTheStampOfItsLastBurial) {
  const FileId id = make(1, "f");
  tree->burial_stamp(7);
  ASSERT_TRUE(tree->bury(top, "f", id, Grave::deleted));
  auto graves = tree->graves(Grave::deleted);
  ASSERT_TRUE(graves && graves->size() == 1);
  EXPECT_EQ(graves->front().id, id);
  EXPECT_EQ(graves->front().stamp, 7U);
  ASSERT_TRUE(tree->exhume(id, Grave::deleted, top, "g"));
  tree->burial_stamp(9);
  ASSERT_TRUE(tree->bury(top, "g", id, Grave::deleted));
  ASSERT_TRUE(purge_one(id, 7));
  EXPECT_TRUE(tree->attributes(id).value());
  ASSERT_TRUE(purge_one(id, 9));
  EXPECT_FALSE(tree->attributes(id).value());
  EXPECT_TRUE(tree->graves(Grave::deleted)->empty());
  ASSERT_TRUE(purge_one(id, 9));
}

// A resynchronization displaces whole folders: what they hold is kept too, and counts; it goes a few objects at a time.
TEST_F(PosixTreeTest, ADeadFolderCountsWithWhatIsInItAndGoesInSteps) {
  const FileId dead = make(1, "d", S_IFDIR | 0750);
  for (std::uint8_t n = 10; n < 20; ++n) {
    const FileId id = make(n, "x");
    write(id, 0, std::string(100'000, 'x'));
    ASSERT_TRUE(tree->rename(top, "x", dead, std::to_string(n), 0));
  }
  ASSERT_TRUE(tree->set_aside(dead));
  ASSERT_TRUE(tree->settle_limbo(5));
  ASSERT_TRUE(tree->sync());
  const auto graves = tree->graves(Grave::deleted);
  ASSERT_TRUE(graves && graves->size() == 1);
  EXPECT_EQ(graves->front().objects, 11U);
  EXPECT_GE(graves->front().allocated_bytes, 1'000'000U);
  EXPECT_FALSE(purge_one(dead, 5, 4));
  EXPECT_EQ(tree->graves(Grave::deleted)->front().objects, 7U);
  EXPECT_FALSE(purge_one(dead, 5, 6)) << "the folder itself";
  EXPECT_TRUE(purge_one(dead, 5, 6));
  EXPECT_TRUE(std::filesystem::is_empty(at(".holdfast/grave")));
  EXPECT_FALSE(tree->attributes(dead).value());
  EXPECT_FALSE(tree->attributes(id_number(12)).value());
}

// A handle that a client of an export still has leads to no deleted file.
TEST_F(PosixTreeTest, TheDeadAreKnown) {
  const FileId dir = make(1, "d", S_IFDIR | 0750), sub = make(2, "s", S_IFDIR | 0750), in = make(3, "x");
  const FileId linked = make(4, "l"), alive = make(5, "a"), buried = make(6, "b"), gone = make(7, "g");
  ASSERT_TRUE(tree->rename(top, "s", dir, "s", 0));
  ASSERT_TRUE(tree->rename(top, "x", sub, "x", 0));
  ASSERT_TRUE(tree->link(linked, sub, "l2"));
  const UniqueFd top_fd(::open(root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Graveyard graveyard(top_fd.get());
  const auto dead = [&](const FileId& id) {
    const auto handle = index->find(id);
    EXPECT_TRUE(handle && *handle);
    const auto fd = open_by_handle(top_fd.get(), **handle, O_PATH);
    EXPECT_TRUE(fd && *fd);
    const auto held = graveyard.holds(fd->get());
    EXPECT_TRUE(held);
    return held && *held;
  };
  for (const auto& id : {dir, sub, in, linked, alive, buried}) EXPECT_FALSE(dead(id));
  ASSERT_TRUE(tree->bury(top, "b", buried, Grave::deleted));
  EXPECT_TRUE(dead(buried));
  ASSERT_TRUE(tree->set_aside(dir));
  ASSERT_TRUE(tree->settle_limbo(7));
  graveyard.look_again();
  for (const auto& id : {dir, sub, in}) EXPECT_TRUE(dead(id)) << id.to_hex();
  for (const auto& id : {linked, alive}) EXPECT_FALSE(dead(id)) << id.to_hex();
  const UniqueFd open(::open(at("g").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(tree->unlink(top, "g"));
  EXPECT_TRUE(graveyard.holds(open.get()).value()) << "nameless";
  EXPECT_TRUE(tree->attributes(gone));
}

// Its dead name is taken away while it is served: what was counted before that is no proof of its death.
TEST_F(PosixTreeTest, AFileOutlivesItsDeadName) {
  const FileId dir = make(1, "d", S_IFDIR | 0750), linked = make(2, "l");
  ASSERT_TRUE(tree->link(linked, dir, "l2"));
  ASSERT_TRUE(tree->set_aside(dir));
  ASSERT_TRUE(tree->settle_limbo(7));
  const UniqueFd top_fd(::open(root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Graveyard graveyard(top_fd.get(), &tree->dead_names_gone());
  const UniqueFd open(::open(at("l").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(graveyard.holds(open.get()).value());
  ASSERT_TRUE(purge_one(dir, 7));
  EXPECT_FALSE(graveyard.holds(open.get()).value());
  ASSERT_TRUE(tree->unlink(top, "l"));
  EXPECT_TRUE(graveyard.holds(open.get()).value());
}

// Apply takes back what it staged because the disk is full: there is no room for a new folder then, nor when the node starts again.
TEST_F(PosixTreeTest, TakingBackWhatWasStagedNeedsNoRoom) {
  const UniqueFd staging(::open(at(".holdfast/new").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto stays = [&] {
    struct stat st {};
    return ::fstat(staging.get(), &st) == 0 && st.st_nlink != 0;
  };
  ASSERT_TRUE(stays());
  ports::NewNode node;
  node.mode = S_IFDIR | 0755;
  ASSERT_TRUE(tree->stage(id_number(1), node));
  node.mode = S_IFREG | 0644;
  ASSERT_TRUE(tree->stage(id_number(2), node));
  ASSERT_TRUE(tree->unstage());
  EXPECT_TRUE(stays() && std::filesystem::is_empty(at(".holdfast/new")));
  EXPECT_FALSE(tree->attributes(id_number(1)).value() || tree->attributes(id_number(2)).value());
  node.mode = S_IFDIR | 0755;
  ASSERT_TRUE(tree->stage(id_number(1), node)) << "it can be staged again";
  open();
  EXPECT_TRUE(stays() && std::filesystem::is_empty(at(".holdfast/new")));
}

// An application may have filled the inode's room for xattrs: the deletion must go through all the same.
TEST_F(PosixTreeTest, AStampThatHasNoRoomOnTheObjectStandsBesideIt) {
  const FileId id = make(1, "f");
  bool full = false;
  for (std::size_t size : {1000, 100, 10, 1})
    for (int i = 0; i < 100; ++i) {
      const Status set_one = tree->set_xattr(id, fmt::format("user.{}-{}", size, i), Bytes(size));
      if (set_one) continue;
      ASSERT_EQ(set_one.error().code, ErrorCode::refused) << "nobody can make room for it";
      full = true;
      break;
    }
  if (!full) GTEST_SKIP() << "this file system has room for any number of xattrs";
  tree->burial_stamp(5);
  const Status buried = tree->bury(top, "f", id, Grave::deleted);
  ASSERT_TRUE(buried) << buried.error().to_string();
  EXPECT_EQ(tree->graves(Grave::deleted)->front().stamp, 5U);
  ASSERT_TRUE(tree->exhume(id, Grave::deleted, top, "f"));
  tree->burial_stamp(6);
  ASSERT_TRUE(tree->bury(top, "f", id, Grave::deleted));
  EXPECT_EQ(tree->graves(Grave::deleted)->front().stamp, 6U);
  ASSERT_TRUE(purge_one(id, 6));
  EXPECT_TRUE(std::filesystem::is_empty(at(".holdfast/grave")));
}

// On xfs only: to take such a name for one that nobody wants would be to take the access list.
TEST(ObjectXattrs, AnAliasIsNotReplicated) {
  for (const char* name : {"user.a", "system.posix_acl_access", "trusted.SGI_ACL", "trusted.note"})
    EXPECT_TRUE(is_replicated_xattr(name)) << name;
  for (const char* name : {"trusted.holdfast.id", "trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"})
    EXPECT_FALSE(is_replicated_xattr(name)) << name;
}

TEST_F(PosixTreeTest, LimboSettlesAmongTheDeleted) {
  const FileId dir = make(1, "d", S_IFDIR | 0755);
  const FileId file = make(2, "f");
  ASSERT_TRUE(tree->bury(top, "f", file, Grave::limbo));
  ASSERT_TRUE(tree->set_aside(dir));
  ASSERT_TRUE(tree->settle_limbo(4));
  EXPECT_TRUE(tree->graves(Grave::limbo)->empty());
  const auto graves = tree->graves(Grave::deleted);
  ASSERT_EQ(graves->size(), 2U);
  for (const auto& g : *graves) EXPECT_EQ(g.stamp, 4U);
  ASSERT_TRUE(tree->purge(Grave::deleted));
  EXPECT_FALSE(tree->attributes(dir).value());
}

// A peer that calls itself empty is sent no holes; what its graveyard holds is found by id, and would keep old bytes there.
TEST_F(PosixTreeTest, AFolderWithAGraveIsNotEmpty) {
  EXPECT_TRUE(tree->is_empty().value());
  const FileId id = make(1, "f");
  EXPECT_FALSE(tree->is_empty().value());
  ASSERT_TRUE(tree->bury(top, "f", id, Grave::deleted));
  EXPECT_FALSE(tree->is_empty().value());
  ASSERT_TRUE(tree->purge(Grave::deleted));
  EXPECT_TRUE(tree->is_empty().value());
}

TEST_F(PosixTreeTest, WhatIsRevivedIsAsNewAndStaysInItsGrave) {
  const FileId id = make(1, "f");
  write(id, 0, "old");
  ASSERT_TRUE(tree->set_xattr(id, "user.old", as_bytes("x")));
  ASSERT_TRUE(tree->bury(top, "f", id, Grave::deleted));
  const std::vector<log::Xattr> list = {{capability, some_capability}, {"user.new", as_bytes("y")}};
  Bytes encoded;
  log::encode_xattrs(list, encoded);
  ports::NewNode node;
  node.mode = S_IFREG | 0604;
  node.uid = 5;
  node.gid = 6;
  node.mtime_ns = node.atime_ns = 1'700'000'000'000'000'001;
  node.xattrs = encoded;
  ASSERT_TRUE(tree->revive(id, node));
  EXPECT_EQ(tree->in_grave(id).value(), Grave::deleted);
  const auto there = tree->attributes(id).value();
  EXPECT_EQ(there->mode, node.mode);
  EXPECT_EQ(there->uid, 5U);
  EXPECT_EQ(there->gid, 6U);
  EXPECT_EQ(there->size, 0U);
  EXPECT_EQ(there->mtime_ns, node.mtime_ns);
  EXPECT_EQ(xattrs(id), (std::map<std::string, Bytes>{{capability, some_capability}, {"user.new", {'y'}}}));
}

TEST_F(PosixTreeTest, FoldersHavePlaces) {
  const FileId dir = make(1, "d", S_IFDIR | 0755);
  using Place = std::optional<std::pair<FileId, std::string>>;
  EXPECT_EQ(tree->place_of(dir).value(), Place(std::pair(top, std::string("d"))));
  EXPECT_EQ(tree->place_of(top).value(), Place());
  ASSERT_TRUE(tree->set_aside(dir));
  EXPECT_EQ(tree->place_of(dir).value(), Place());
}

TEST_F(PosixTreeTest, AnObjectWithoutAnIdGetsOneThatLasts) {
  std::ofstream(at("stranger")) << "x";
  EXPECT_TRUE(tree->lookup(top, "stranger").value()->id.is_none());
  const FileId id = tree->identify(top, "stranger").value();
  EXPECT_FALSE(id.is_none());
  EXPECT_EQ(tree->identify(top, "stranger").value(), id);
  EXPECT_TRUE(tree->identify(top, "nobody").value().is_none());
  tree.reset();
  open();
  EXPECT_EQ(tree->at(top, "stranger", id).value(), Standing::expected);
}

// A crash may undo an adoption in the tree and not in the index. The object is nobody's then, and may be adopted by another id.
TEST_F(PosixTreeTest, AnIndexThatIsAheadOfTheTreeIsNotBelieved) {
  std::ofstream(at("f")) << "x";
  ASSERT_TRUE(tree->adopt(top, "f", id_number(1)));
  ASSERT_TRUE(tree->commit_ids());
  ASSERT_EQ(::removexattr(at("f").c_str(), id_attribute), 0);
  EXPECT_FALSE(tree->attributes(id_number(1)).value());
  ASSERT_TRUE(tree->adopt(top, "f", id_number(2)));
  EXPECT_FALSE(tree->attributes(id_number(1)).value());
  EXPECT_EQ(tree->at(top, "f", id_number(2)).value(), Standing::expected);
}

TEST_F(PosixTreeTest, AFileThatWasLookedAtAndAdoptedIsOpenForWhatFollows) {
  std::ofstream(at("f")) << "old";
  ASSERT_TRUE(tree->lookup(top, "f").value()->id.is_none());
  ASSERT_TRUE(tree->adopt(top, "f", id_number(1)));
  const std::uint64_t before = objects_opened();
  EXPECT_EQ(tree->attributes(id_number(1)).value()->size, 3U);
  write(id_number(1), 1, "new");
  EXPECT_EQ(objects_opened(), before);
  EXPECT_EQ(std::filesystem::file_size(at("f")), 4U);
  // What is looked at is not always what is adopted.
  std::ofstream(at("g")) << "other";
  std::ofstream(at("h")) << "not it";
  ASSERT_TRUE(tree->lookup(top, "g").value()->id.is_none());
  std::filesystem::rename(at("h"), at("g"));
  ASSERT_TRUE(tree->adopt(top, "g", id_number(2)));
  EXPECT_EQ(tree->attributes(id_number(2)).value()->size, 6U);
  EXPECT_EQ(tree->at(top, "g", id_number(2)).value(), Standing::expected);
}

// The kernel takes a file's capabilities away when its owner or its size changes.
// As an application does while this node is the active: the tree is then changed past this object, which had files open before.
// On a passive anybody may start one from the protected folder. All but its bytes can be changed meanwhile.
TEST_F(PosixTreeTest, AProgramThatRunsStopsOnlyWhoWritesIt) {
  const FileId id = make(5, "program", S_IFREG | 0755);
  std::ifstream in("/bin/cat", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  write(id, 0, bytes);
  tree.reset();  // what writes it would keep it from being started
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, 0), 0);
  const pid_t runs = ::fork();
  if (runs == 0) {
    ::dup2(pipe[0], 0);
    ::close(pipe[0]);
    ::close(pipe[1]);
    do ::execl(at("program").c_str(), "program", nullptr);
    while (errno == ETXTBSY);  // whoever looks if it runs had it open for writing
    ::_exit(1);
  }
  ::close(pipe[0]);
  const auto is_started = [&] {
    const int fd = ::open(at("program").c_str(), O_WRONLY | O_CLOEXEC);
    if (fd >= 0) ::close(fd);
    return fd < 0 && errno == ETXTBSY;
  };
  while (!is_started()) ASSERT_EQ(::waitpid(runs, nullptr, WNOHANG), 0);
  open();
  ports::NodeAttributes as;
  as.mode = 0700;
  EXPECT_TRUE(tree->set_attributes(id, log::valid_mode, as));
  EXPECT_TRUE(tree->rename(top, "program", top, "another", 0));
  const ByteView piece = as_bytes("x");
  const Status written = tree->write(id, 0, {&piece, 1});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::busy);
  EXPECT_EQ(tree->truncate(id, 1).error().code, ErrorCode::busy);
  ::close(pipe[1]);
  ASSERT_EQ(::waitpid(runs, nullptr, 0), runs);
  EXPECT_TRUE(tree->write(id, 0, {&piece, 1}));
  EXPECT_TRUE(tree->bury(top, "another", id, Grave::deleted));
}

TEST_F(PosixTreeTest, WhatWasDeletedByOthersIsGoneAlthoughItWasOpenHere) {
  const FileId file = make(1, "f"), kept = make(2, "g"), dir = make(3, "d", S_IFDIR | 0750);
  write(file, 0, "still open here");
  ASSERT_EQ(::unlink(at("f").c_str()), 0);
  ASSERT_EQ(::rmdir(at("d").c_str()), 0);
  for (const FileId& id : {file, dir}) {
    const auto attributes = tree->attributes(id);
    ASSERT_TRUE(attributes) << attributes.error().to_string();
    EXPECT_FALSE(attributes->has_value()) << "a name can't be given to it any more";
  }
  EXPECT_TRUE(tree->attributes(kept)->has_value());
}

TEST_F(PosixTreeTest, AShippedFileKeepsItsCapabilities) {
  const FileId id = make(1, "f");
  write(id, 0, "longer than what is shipped");
  const std::vector<log::Xattr> list = {{capability, some_capability}};
  Bytes encoded;
  log::encode_xattrs(list, encoded);
  log::Record r;
  r.kind = log::Kind::ship_node;
  r.set = set;
  r.file = id;
  r.mode = S_IFREG | 0755;
  r.uid = 7;
  r.gid = 7;
  r.length = 3;
  r.payload = encoded;
  mirror::NamesProgress names;
  mirror::TreeBatch batch(*tree, names);
  mirror::ResyncMemory memory;
  mirror::Staged nothing_staged;
  mirror::ResyncApply apply(batch, memory, nothing_staged, [](const mirror::Nak&) {});
  ASSERT_TRUE(apply.apply(r));
  EXPECT_EQ(xattrs(id).count(capability), 1U);
  log::Record unknown = r;
  unknown.file = id_number(2);
  unknown.length = 10;
  ASSERT_TRUE(apply.apply(unknown));
  EXPECT_EQ(xattrs(unknown.file).count(capability), 1U);
}

}  // namespace
}  // namespace holdfast::platform
