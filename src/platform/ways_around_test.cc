// SPDX-License-Identifier: Apache-2.0
#include "platform/ways_around.h"

#include <linux/fscrypt.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "platform/test_mount_space.h"

namespace holdfast::platform {
namespace {

std::string why(const fs::path& path) {
  const auto s = check_protectable(path, {});
  if (s) return "fine";
  EXPECT_FALSE(s.error().hint.empty() && s.error().message.find(": ") == std::string::npos)
      << "no next step: " << s.error().message;
  return s.error().message;
}

class WaysAround : public MountSpace {
 protected:
  fs::path folder(const char* name) {
    const fs::path made = disk.parent_path() / name;
    fs::create_directories(made);
    return made;
  }
};

// A process with mounts of its own; ends with the object.
class Elsewhere {
 public:
  explicit Elsewhere(unsigned long propagation) {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const bool apart = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | propagation, nullptr) == 0;
      if (write(ready[1], apart ? "y" : "n", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ready[1]);
    char told = 0;
    EXPECT_EQ(read(ready[0], &told, 1), 1);
    EXPECT_EQ(told, 'y');
    close(ready[0]);
  }
  ~Elsewhere() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

TEST_F(WaysAround, ABoundPartIsRefusedAndSoIsAWholeThatNothingSpreadsTo) {
  run([&] {
    EXPECT_EQ(why(path), "fine");
    const fs::path bound = folder("bound");
    ASSERT_EQ(mount((path / "sub").c_str(), bound.c_str(), nullptr, MS_BIND, nullptr), 0);
    EXPECT_NE(why(path).find("through " + bound.string()), std::string::npos) << why(path);
    ASSERT_EQ(umount2(bound.c_str(), 0), 0);

    // All of the disk once more, as a peer: what covers the folder covers it there.
    ASSERT_EQ(mount(disk.c_str(), bound.c_str(), nullptr, MS_BIND, nullptr), 0);
    EXPECT_EQ(why(path), "fine");
    ASSERT_TRUE(cover(path));
    EXPECT_EQ(try_create(bound / "srv/data/past"), EROFS);
    ASSERT_TRUE(uncover(path));
    ASSERT_EQ(mount(nullptr, bound.c_str(), nullptr, MS_PRIVATE, nullptr), 0);
    EXPECT_NE(why(path).find("through " + (bound / "srv/data").string()), std::string::npos) << why(path);
    ASSERT_EQ(mount(nullptr, bound.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr), 0);
    EXPECT_EQ(why(path), "fine") << "nobody writes there";
    ASSERT_EQ(umount2(bound.c_str(), 0), 0);

    ASSERT_EQ(mount((disk / "srv").c_str(), bound.c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_EQ(mount(nullptr, bound.c_str(), nullptr, MS_PRIVATE, nullptr), 0);
    EXPECT_NE(why(path).find("through " + (bound / "data").string()), std::string::npos) << why(path);
    fs::create_directories(disk / "other");
    EXPECT_EQ(why(disk / "other"), "fine") << "is not in what is bound";
    EXPECT_NE(why(bound / "data"), "fine") << "the same from the other side";
    ASSERT_EQ(umount2(bound.c_str(), 0), 0);
  });
}

TEST_F(WaysAround, AContainerThatHasTheFolderIsRefusedByName) {
  run([&] {
    {
      const Elsewhere slave(MS_SLAVE);
      EXPECT_EQ(why(path), "fine") << "a service of systemd: the cover spreads to it";
    }
    const Elsewhere container(MS_PRIVATE);
    EXPECT_NE(why(path).find(fmt::format("(pid {})", container.pid())), std::string::npos) << why(path);
  });
}

TEST_F(WaysAround, LayersOfOverlaysAreRefused) {
  run([&] {
    const fs::path merged = folder("merged"), lower = folder("lower");
    for (const char* d : {"up", "work", "low", "apart"}) fs::create_directories(path / d);
    fs::create_directories(disk / "work");
    const auto overlay = [&](const fs::path& low, const fs::path& up, const fs::path& work) {
      const std::string options =
          fmt::format("lowerdir={},upperdir={},workdir={}", low.string(), up.string(), work.string());
      ASSERT_EQ(mount("overlay", merged.c_str(), "overlay", 0, options.c_str()), 0) << strerror(errno) << options;
    };
    overlay(lower, path / "up", path / "work");
    EXPECT_NE(why(path).find("the overlay at " + merged.string()), std::string::npos) << why(path);
    EXPECT_NE(why(path / "up").find("up is a layer"), std::string::npos) << why(path / "up");
    fs::create_directories(path / "up/in");
    EXPECT_NE(why(path / "up/in").find("lies in " + (path / "up").string()), std::string::npos) << why(path / "up/in");
    EXPECT_EQ(why(path / "apart"), "fine");
    ASSERT_EQ(umount2(merged.c_str(), 0), 0);
    fs::create_directories(disk / "up");
    overlay(path / "low", disk / "up", disk / "work");
    EXPECT_NE(why(path).find("holds " + (path / "low").string()), std::string::npos) << why(path);
    ASSERT_EQ(umount2(merged.c_str(), 0), 0);
    EXPECT_EQ(why(path), "fine");
  });
}

TEST(WaysAroundText, LayersOfOptions) {
  const auto layers =
      overlay_layers(R"(rw,lowerdir=/a\:b:/c d::relative,upperdir=/u\,p,workdir=/w,index=off,lowerdir+=/m)");
  EXPECT_EQ(layers, (std::vector<std::string>{"/a:b", "/c d", "/u,p", "/w", "/m"}));
  EXPECT_TRUE(overlay_layers("rw,xino=off").empty());
  EXPECT_TRUE(overlay_layers("").empty());
}

TEST(WaysAroundText, SwapFilesAndExports) {
  EXPECT_EQ(first_paths("Filename Type Size\n/srv/a\\040b file 1 0 -2\n/dev/sda2 partition 1 0 -3\n"),
            (std::vector<std::string>{"/srv/a b", "/dev/sda2"}));
  EXPECT_EQ(first_paths("# Version 1.1\n# Path Client(Flags)\n/srv\t10.0.0.0/8(rw)\n"),
            std::vector<std::string>{"/srv"});
  EXPECT_TRUE(first_paths("").empty());
}

TEST_F(WaysAround, AnImageInUseIsRefused) {
  run([&] {
    ASSERT_TRUE(run_checked({.argv = {"truncate", "-s", "1M", path / "image"}}));
    const auto device = run_checked({.argv = {"losetup", "--find", "--show", path / "image"}});
    ASSERT_TRUE(device) << device.error().message;
    const std::string name = device->substr(0, device->find('\n'));
    EXPECT_NE(why(path).find("the image of " + name), std::string::npos) << why(path);
    ASSERT_TRUE(run_checked({.argv = {"losetup", "-d", name}}));
    EXPECT_EQ(why(path), "fine");
  });
}

TEST_F(WaysAround, NamesThatNoLineCanCarryAreRefusedAndOthersAreRight) {
  run([&] {
    for (const std::string& odd : {std::string("new\nline"), std::string("tab\t"), std::string("\xff"),
                                   std::string("\xc3"), std::string("\x7f")}) {
      fs::create_directories(disk / odd);
      const std::string said = why(disk / odd);
      EXPECT_NE(said.find("rename it"), std::string::npos) << said;
      EXPECT_TRUE(std::all_of(said.begin(), said.end(), [](char c) { return c >= 0x20 && c < 0x7f; })) << said;
    }
    for (const std::string& good :
         {std::string("with space"), std::string(255, 'l'), std::string("\xc3\xa4\xe2\x82\xac"),
          std::string("back\\slash"), std::string("#\"'$%:,;")}) {
      const fs::path name = disk / good;
      fs::create_directories(name / "sub");
      EXPECT_EQ(why(name), "fine");
      const auto clone = clone_tree(name);
      ASSERT_TRUE(clone) << clone.error().message;
      ASSERT_TRUE(cover(name)) << good;
      EXPECT_TRUE(is_covered(name).value());
      EXPECT_EQ(try_create(name / "x"), EROFS);
      EXPECT_EQ(mounts_at(name), 1);
      ASSERT_TRUE(uncover(name)) << good;
      EXPECT_EQ(mounts_at(name), 0);
      ASSERT_EQ(mount("t", (name / "sub").c_str(), "tmpfs", 0, nullptr), 0);
      EXPECT_NE(why(name).find("holds a mount"), std::string::npos);
      ASSERT_EQ(umount2((name / "sub").c_str(), 0), 0);
    }
  });
}

TEST_F(WaysAround, WhatAMountForbidsTheCloneForbids) {
  run([&] {
    const fs::path strict = disk;
    constexpr unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME;
    ASSERT_EQ(mount(nullptr, strict.c_str(), nullptr, MS_BIND | MS_REMOUNT | flags, nullptr), 0);
    const auto clone = clone_tree(path);
    ASSERT_TRUE(clone) << clone.error().message;
    struct statvfs vfs {};
    ASSERT_EQ(fstatvfs(clone->get(), &vfs), 0);
    constexpr unsigned long kept = ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME;
    EXPECT_EQ(vfs.f_flag & kept, kept);
    ASSERT_EQ(mount(nullptr, strict.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr), 0);
    EXPECT_NE(why(path).find("read-only"), std::string::npos) << why(path);
  });
}

TEST_F(WaysAround, EncryptedFoldersAreRefused) {
  run([&] {
    const fs::path image = disk.parent_path() / "encrypting", at = folder("at");
    ASSERT_TRUE(run_checked({.argv = {"truncate", "-s", "16M", image}}));
    ASSERT_TRUE(run_checked({.argv = {"mkfs.ext4", "-q", "-F", "-O", "encrypt", image}}));
    if (!run_checked({.argv = {"mount", "-o", "loop", image, at}})) GTEST_SKIP() << "this kernel encrypts no files";
    struct Unmount {
      fs::path at;
      ~Unmount() { umount2(at.c_str(), MNT_DETACH); }
    } unmount{at};
    fs::create_directories(at / "data/secret");
    EXPECT_EQ(why(at / "data"), "fine");
    const UniqueFd fd(open((at / "data/secret").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    fscrypt_policy_v1 policy{};
    policy.contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS;
    policy.filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS;
    if (ioctl(fd.get(), FS_IOC_SET_ENCRYPTION_POLICY, &policy) != 0) GTEST_SKIP() << "this kernel encrypts no files";
    EXPECT_NE(why(at / "data").find("secret is encrypted"), std::string::npos) << why(at / "data");
  });
}

}  // namespace
}  // namespace holdfast::platform
