// SPDX-License-Identifier: Apache-2.0
// Comparing two nodes over real folders, while the application writes: each sort of damage done to the passive's folder below the mirror is found
// and repaired through the log; where nothing is wrong nothing is found.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerState;
using mirror::VerifyKind;
using testing::difference;
using testing::RandomApplication;
using testing::TestNode;
using testing::TreeDigest;

class MirrorVerify : public testing::MirrorPair {
 protected:
  void lead() {
    MirrorPair::lead(a, b, 1);
    ASSERT_TRUE(wait([&] { return peer().state == PeerState::synchronized; }));
  }
  template <class F>
  bool wait(F&& condition) {
    return MirrorPair::wait(a, condition);
  }
  mirror::PeerStatus peer() { return peer_of(a); }
  mirror::VerifyStatus compared() { return a.log->verify_status().at(0); }
  ::testing::AssertionResult verify(mirror::VerifyRequest request = {}) {
    const auto before = compared().last_full_ns;
    if (request.rate == 0) request.rate = 1ULL << 30;
    if (auto begun = a.log->verify(request); !begun) return ::testing::AssertionFailure() << begun.error().to_string();
    if (wait([&] { return compared().last_full_ns != before && compared().state == mirror::VerifyState::idle; }))
      return ::testing::AssertionSuccess();
    const auto s = compared();
    return ::testing::AssertionFailure() << "it does not end: " << to_string(s.state) << ", " << s.counts.objects
                                         << " objects, " << s.counts.open << " open";
  }
  ::testing::AssertionResult equal() {
    const Sequence end = a.log->capture_log().last_sequence();
    a.log->capture_log().hurry();
    if (!wait([&] { return peer().applied >= end; })) return ::testing::AssertionFailure() << "not applied";
    const std::string diff = difference(TreeDigest::of(a.tree_path()), TreeDigest::of(b.tree_path()));
    return diff.empty() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << diff;
  }
  // Names that the random application never touches.
  void fill_quiet_folder() {
    const std::string script =
        "cd " + a.tree_path() +
        " && mkdir -p quiet/sub/deep quiet/empty && cd quiet && head -c 700000 /dev/urandom > rotten && "
        "head -c 300000 /dev/urandom > written && echo x > mode && echo y > attribute && "
        "echo z > missing && head -c 5000 /dev/urandom > hard && ln hard link && echo in > sub/deep/in && "
        "ln -s somewhere symlink && truncate -s 3M sparse && echo end >> sparse && truncate -s 9M sparse && "
        "mkdir many && cd many && seq -f 'some-longer-name-%05g' 1 1500 | xargs touch && cd .. && "
        "setfattr -n user.kept -v 1 attribute && "
        "find .. -exec touch -h -d '2020-02-02 02:02:02.123456789' {} +";
    ASSERT_EQ(std::system(script.c_str()), 0);
  }
  static void overwrite(const std::string& path, off_t at, bool keep_time) {
    struct stat before {};
    ASSERT_EQ(::stat(path.c_str(), &before), 0);
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    std::uint8_t byte = 0;
    ASSERT_EQ(::pread(fd.get(), &byte, 1, at), 1);
    byte ^= 1;
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, at), 1);
    const timespec times[2] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(keep_time ? ::futimens(fd.get(), times) : 0, 0);
  }
  std::string state_of(const std::string& path) {
    for (const auto& e : compared().examples)
      if (e.path == path) return e.state + std::string(": ") + e.what;
    return "";
  }
};

TEST_F(MirrorVerify, NothingIsFoundWhereNothingIsWrong) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  lead();
  RandomApplication(a, 1).run(1000);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    RandomApplication application(a, 2);
    for (int i = 0; i < 100 && !stop; ++i) application.run(20);
  });
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(verify());
    EXPECT_EQ(compared().counts.differences, 0U)
        << state_of(compared().examples.empty() ? "" : compared().examples[0].path);
    EXPECT_GT(compared().counts.objects, 1500U);
    EXPECT_GT(compared().counts.bytes, 1'000'000U);
  }
  stop = true;
  writer.join();
  EXPECT_EQ(compared().last_result, mirror::VerifyResult::clean);
  EXPECT_TRUE(equal());
}

TEST_F(MirrorVerify, EachSortOfDamageIsFoundAndRepairedWhileTheApplicationWrites) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  lead();
  RandomApplication(a, 3).run(500);
  ASSERT_TRUE(equal());
  const std::string quiet = b.tree_path() + "/quiet";
  overwrite(quiet + "/rotten", 400'000, true);
  overwrite(quiet + "/written", 100, false);
  overwrite(quiet + "/written", 299'000, false);
  ASSERT_EQ(std::system(("cd " + quiet +
                         " && chmod 700 mode && setfattr -x user.kept attribute && setfattr -n user.extra -v 2 symlink "
                         "2>/dev/null; cd " +
                         quiet +
                         " && rm missing && cp -p hard copy && mv copy link && echo s > stranger && "
                         "mv sub/deep empty/elsewhere && rm many/some-longer-name-00700 && touch many/some-stranger")
                            .c_str()),
            0);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    RandomApplication application(a, 4);
    for (int i = 0; i < 100 && !stop; ++i) application.run(20);
  });
  EXPECT_TRUE(verify());
  EXPECT_EQ(compared().last_result, mirror::VerifyResult::differs);
  EXPECT_EQ(compared().open, 1U);
  EXPECT_EQ(compared().counts.undecided, 1U);
  EXPECT_EQ(state_of("quiet/rotten"), "undecided: contents");
  EXPECT_EQ(state_of("quiet/mode"), "repaired: mode");
  EXPECT_EQ(state_of("quiet/attribute"), "repaired: extended attributes");
  EXPECT_EQ(peer().state, PeerState::synchronized);
  EXPECT_TRUE(b.log->status().receive.complete) << "it can take over all the time";

  // Nobody knows who is right, until somebody says so.
  EXPECT_TRUE(verify());
  EXPECT_EQ(compared().counts.differences, 1U);
  mirror::VerifyRequest trusting;
  trusting.trust_active = true;
  EXPECT_TRUE(verify(trusting));
  EXPECT_EQ(compared().open, 0U);
  EXPECT_EQ(compared().last_result, mirror::VerifyResult::repaired);
  stop = true;
  writer.join();
  EXPECT_TRUE(verify());
  EXPECT_EQ(compared().last_result, mirror::VerifyResult::clean);
  EXPECT_TRUE(equal());
}

TEST_F(MirrorVerify, TheScrubFindsItAndGoesOnWhereItWasAfterARestart) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  lead();
  EXPECT_EQ(compared().last_scrub_ns, 0);
  overwrite(b.tree_path() + "/quiet/written", 5000, false);
  a.log->set_scrub({true, 100U << 20});
  ASSERT_TRUE(wait([&] { return compared().last_scrub_ns != 0; }));
  EXPECT_EQ(compared().open, 0U);
  EXPECT_TRUE(equal());
  a.log->set_scrub({false, 0});
  a.stop();
  ASSERT_TRUE(a.start());
  a.runtime->set_peers({{b.id(), "peer", {b.address()}}});
  EXPECT_NE(compared().last_scrub_ns, 0) << "remembered";
}

// Either side's connection goes again and again: what was not answered is asked again.
TEST_F(MirrorVerify, APassiveThatIsKilledMeanwhile) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  lead();
  overwrite(b.tree_path() + "/quiet/written", 5000, false);
  mirror::VerifyRequest slow;
  slow.rate = 4U << 20;
  ASSERT_TRUE(a.log->verify(slow));
  std::thread writer([&] { RandomApplication(a, 6).run(1500); });
  for (int round = 0; round < 3; ++round) {
    const auto seen = compared().counts.objects;
    wait([&] { return compared().counts.objects > seen + 200 || compared().state == mirror::VerifyState::idle; });
    b.stop();
    ASSERT_TRUE(b.start(true, round % 2 ? 100'000 : 5));
    ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
    ASSERT_TRUE(wait([&] { return peer().state == PeerState::synchronized; }));
  }
  writer.join();
  ASSERT_TRUE(wait([&] { return compared().last_full_ns != 0; }));
  EXPECT_EQ(compared().counts.differences, 1U);
  EXPECT_EQ(compared().open, 0U);
  EXPECT_TRUE(equal());
}

TEST_F(MirrorVerify, ASampleLooksAtAllAttributesAndFewBytes) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  lead();
  overwrite(b.tree_path() + "/quiet/written", 299'999, false);  // somebody was at it: all of it is looked at
  mirror::VerifyRequest sample;
  sample.kind = VerifyKind::sample;
  sample.rate = 1ULL << 30;
  ASSERT_TRUE(a.log->verify(sample));
  EXPECT_EQ(compared().kind, VerifyKind::sample) << "from this moment on: whoever waits for it must see it";
  ASSERT_TRUE(wait([&] { return compared().last_result != mirror::VerifyResult::none; }));
  EXPECT_EQ(compared().last_result, mirror::VerifyResult::repaired);
  EXPECT_LT(compared().counts.bytes, 900'000U);
  EXPECT_TRUE(equal());
}

TEST_F(MirrorVerify, WhoMayAskAndWhen) {
  ASSERT_TRUE(a.start() && b.start(false));
  fill_quiet_folder();
  ASSERT_TRUE(b.add_set());
  EXPECT_EQ(a.log->verify({}).error().code, ErrorCode::refused) << "not active";
  lead();
  EXPECT_EQ(b.log->verify({}).error().code, ErrorCode::refused);
  mirror::VerifyRequest other;
  other.set = 9;
  EXPECT_EQ(a.log->verify(other).error().code, ErrorCode::not_found);
  RandomApplication(a, 8).run(300);
  mirror::VerifyRequest slow;
  slow.rate = 1024;
  ASSERT_TRUE(a.log->verify(slow));
  EXPECT_EQ(a.log->verify({}).error().code, ErrorCode::busy);
  ASSERT_TRUE(wait([&] { return compared().counts.objects > 0; }));
  a.log->verify_stop();
  ASSERT_TRUE(wait([&] { return compared().last_result == mirror::VerifyResult::interrupted; }));
  EXPECT_TRUE(verify());
  // An epoch that ends is not held up, and nothing is appended after its end.
  ASSERT_TRUE(a.log->verify(slow));
  const auto end = a.log->end_epoch();
  ASSERT_TRUE(end);
  EXPECT_TRUE(a.log->wait_handed_over(b.id(), *end, 10'000).value());
  EXPECT_TRUE(a.log->step_down(*end));
}

}  // namespace
}  // namespace holdfast::platform
