// SPDX-License-Identifier: Apache-2.0
// The one promise of the hot set, in a small world with a disk that loses and tears what was not synced: at every step, and at every call to the
// file in between, what may differ is a subset of what a power cut would leave noted. Each planted flaw must break it.
#include <deque>
#include <random>

#include "mirror/test_hot_file.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

enum class Flaw {
  none,
  note_after_write,
  no_parent_note,
  id_before_guard,
  sync_of_notes_lies,
  drop_without_drain,
  end_of_log_before_drain,
  drop_without_syncfs,
  syncfs_before_drain,
  drop_before_ack,
  drop_after_fence,
};

class World {
 public:
  World(unsigned seed, Flaw flaw) : random_(seed), flaw_(flaw) {
    for (unsigned i = 0; i < 24; ++i) add(id_of(i + 1), i < 6);
    hot_ = storage_.open();
    EXPECT_TRUE(begin_epoch(*hot_, Epoch(3), {Epoch(2), Sequence(0)}));
    storage_.file->lies = flaw == Flaw::sync_of_notes_lies;
    storage_.file->called = [this] { check(); };
  }

  // The first object that differs and is not noted; empty: the promise holds.
  const std::string& broken() const { return broken_; }
  std::uint64_t dropped() const { return dropped_; }
  std::uint64_t made() const { return made_; }

  void run(int steps) {
    for (int i = 0; i < steps && broken_.empty(); ++i) {
      const unsigned what = pick(16);
      if (what < 11)
        act(actors_[pick(actors_.size())]);
      else if (what < 14)
        turn();
      else if (what < 15)
        acked_ += pick(static_cast<unsigned>(last_ - acked_) + 1);
      else if (pick(400) == 0)
        fenced_ = true;
      check();
    }
    for (Actor& a : actors_) a.guard.leave();
  }

 private:
  struct Object {
    FileId id;
    bool folder = false;
    HotGate::Cell cell{0};
    std::uint64_t version = 0, durable = 0;  // of its content on the disk below
    std::uint64_t sequence = 0;              // of the last record about it
    int under_way = 0;                       // changed below, not recorded yet
    bool lost = false;                       // a change of it is in no log: after a fence
  };
  struct Actor {
    int stage = 0;
    std::vector<Object*> about;
    HotGate::Guard guard;
    bool creates = false;
    FileId early;
  };

  unsigned pick(std::size_t n) { return static_cast<unsigned>(random_() % n); }
  Object& add(const FileId& id, bool folder) {
    objects_.emplace_back();
    objects_.back().id = id;
    objects_.back().folder = folder;
    return objects_.back();
  }
  bool enter(Actor& a, const std::vector<Object*>& about) {
    std::vector<HotGate::Object> noted;
    for (Object* o : about) noted.push_back({o->id, o->cell, o->folder});
    return hot_->enter(a.guard, 1, noted).has_value();
  }

  void act(Actor& a) {
    switch (a.stage) {
      case 0: {
        a.creates = pick(4) == 0 && objects_.size() < 400;
        a.about = {a.creates ? &objects_[pick(6)] : &objects_[pick(objects_.size())]};
        if (flaw_ == Flaw::id_before_guard && a.creates) a.early = hot_->fresh(1).value();
        ++a.stage;
        return;
      }
      case 1: {
        const bool blind = flaw_ == Flaw::note_after_write || (flaw_ == Flaw::no_parent_note && a.creates);
        EXPECT_TRUE(enter(a, blind ? std::vector<Object*>{&objects_[23]} : a.about));
        if (a.creates) {
          Object& made = add(flaw_ == Flaw::id_before_guard ? a.early : hot_->fresh(1).value(), pick(3) == 0);
          a.guard.made(made.cell);
          a.about.push_back(&made);
          ++made_;
        }
        ++a.stage;
        return;
      }
      case 2:
        for (Object* o : a.about) ++o->version, ++o->under_way;
        ++a.stage;
        return;
      case 3:
        if (flaw_ == Flaw::note_after_write) {
          a.guard.leave();
          EXPECT_TRUE(enter(a, a.about));
        }
        if (!fenced_) ++last_;
        for (Object* o : a.about) {
          o->sequence = last_;
          o->lost = o->lost || fenced_;
          --o->under_way;
        }
        ++a.stage;
        return;
      default:
        a.guard.leave();
        a.stage = 0;
    }
  }

  void sync_disk() {
    for (Object& o : objects_) o.durable = o.version;
  }

  void turn() {
    switch (turn_stage_) {
      case 0: {
        turn_ = hot_->open_next(Epoch(3)).value();
        end_ = last_;
        if (flaw_ == Flaw::syncfs_before_drain) sync_disk();
        ++turn_stage_;
        return;
      }
      case 1:
        if (flaw_ != Flaw::drop_without_drain && !hot_->wait_left_behind(turn_, [] { return true; })) return;
        if (fenced_ && flaw_ != Flaw::drop_after_fence) return;  // for ever
        if (flaw_ != Flaw::end_of_log_before_drain) end_ = last_;
        ++turn_stage_;
        return;
      case 2:
        if (flaw_ != Flaw::drop_without_syncfs && flaw_ != Flaw::syncfs_before_drain) sync_disk();
        ++turn_stage_;
        return;
      default:
        if (acked_ < end_ && flaw_ != Flaw::drop_before_ack) return;
        EXPECT_TRUE(hot_->drop(turn_, {Epoch(3), Sequence(end_)}));
        ++dropped_;
        turn_stage_ = 0;
    }
  }

  void check() {
    if (!broken_.empty()) return;
    // What a power cut now would leave of the notes.
    HotSetFile after;
    after.disk.files.clear();
    auto content = std::make_shared<MemorySegments::Content>(*storage_.disk.files.at(1));
    after.disk.files[1] = content;
    after.disk.power_cut(static_cast<unsigned>(random_()), pick(3) * 50);
    after.file = std::make_unique<WatchedFile>(after.disk.open(1).value());
    const auto found = after.open();
    EXPECT_EQ(found->header().epoch, Epoch(3));
    const auto notes = found->notes().value();
    for (const Object& o : objects_) {
      const bool may_differ = o.version != o.durable || o.sequence > acked_ || o.under_way > 0 || o.lost;
      if (!may_differ || covers(notes, 1, o.id, o.folder)) continue;
      // A folder of this generation's blocks is noted as one object, listing and all.
      broken_ = fmt::format("{} {} differs and is not noted", o.folder ? "folder" : "file", o.id.to_hex());
      return;
    }
  }

  std::mt19937 random_;
  const Flaw flaw_;
  HotSetFile storage_;
  std::unique_ptr<HotSet> hot_;
  std::deque<Object> objects_;
  std::array<Actor, 5> actors_;
  std::uint64_t last_ = 0, acked_ = 0, end_ = 0, dropped_ = 0, made_ = 0;
  bool fenced_ = false;
  int turn_stage_ = 0;
  HotSet::Turn turn_;
  std::string broken_;
};

TEST(HotSetModel, WhatDiffersIsNotedAtEveryInstant) {
  std::uint64_t dropped = 0, made = 0;
  for (unsigned seed = 1; seed <= 150; ++seed) {
    World world(seed, Flaw::none);
    world.run(400);
    ASSERT_EQ(world.broken(), "") << "seed " << seed;
    dropped += world.dropped();
    made += world.made();
  }
  EXPECT_GT(dropped, 500U) << "generations must come to an end for this to mean anything";
  EXPECT_GT(made, 500U);
}

class HotSetFlaws : public ::testing::TestWithParam<Flaw> {};

TEST_P(HotSetFlaws, IsCaught) {
  for (unsigned seed = 1; seed <= 400; ++seed) {
    World world(seed, GetParam());
    world.run(400);
    if (!world.broken().empty()) return;
  }
  ADD_FAILURE() << "not caught";
}

std::string name_of(const ::testing::TestParamInfo<Flaw>& flaw) {
  static constexpr const char* all[] = {"None",           "NoteAfterWrite",    "NoParentNote",
                                        "IdBeforeGuard",  "SyncOfNotesLies",   "DropWithoutDrain",
                                        "EndBeforeDrain", "DropWithoutSyncfs", "SyncfsBeforeDrain",
                                        "DropBeforeAck",  "DropAfterFence"};
  return all[static_cast<int>(flaw.param)];
}

INSTANTIATE_TEST_SUITE_P(All, HotSetFlaws,
                         ::testing::Values(Flaw::note_after_write, Flaw::no_parent_note, Flaw::id_before_guard,
                                           Flaw::sync_of_notes_lies, Flaw::drop_without_drain,
                                           Flaw::end_of_log_before_drain, Flaw::drop_without_syncfs,
                                           Flaw::syncfs_before_drain, Flaw::drop_before_ack, Flaw::drop_after_fence),
                         name_of);

}  // namespace
}  // namespace holdfast::mirror
