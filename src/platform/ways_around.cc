// SPDX-License-Identifier: Apache-2.0
#include "platform/ways_around.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;

tl::unexpected<Error> refuse(std::string why, std::string hint) {
  return tl::unexpected(Error{ErrorCode::refused, std::move(why), std::move(hint), 0});
}

std::string text_of(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The same folder, as its file system names it.
std::string path_on_disk(const Mount& holder, const std::string& path) {
  const std::string rest = holder.point == "/" ? path : path.substr(holder.point.size());
  return holder.root == "/" ? rest : holder.root + rest;
}

// What is mounted at a place that `holder` shows comes to light in `other`, too.
bool hears_of(const Mount& other, const Mount& holder) {
  for (const std::string& field : holder.propagation) {
    if (!field.starts_with("shared:")) continue;
    const std::string group = field.substr(field.find(':'));
    for (const std::string& theirs : other.propagation)
      if (theirs.substr(std::min(theirs.find(':'), theirs.size())) == group) return true;
  }
  return false;
}

// Where `mount` shows the folder, or a part of it, and lets it be written to. Empty: it doesn't.
std::string way_in(const Mount& mount, const Mount& holder, const std::string& on_disk) {
  if (mount.device != holder.device || mount_has_option(mount, "ro")) return {};
  if (mount.root != on_disk && path_lies_in(mount.root, on_disk)) return mount.point;  // a part: nothing will cover it
  if (!path_lies_in(on_disk, mount.root) || hears_of(mount, holder)) return {};
  const std::string rest = mount.root == "/" ? on_disk : on_disk.substr(mount.root.size());
  return mount.point == "/" ? rest : mount.point + rest;
}

}  // namespace

std::vector<MountNamespace> other_mount_namespaces() {
  std::vector<MountNamespace> out;
  std::error_code error;
  std::set<std::string> seen{fs::read_symlink("/proc/thread-self/ns/mnt", error).string()};
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code gone;  // processes come and go while we look
    const std::string space = fs::read_symlink(it->path() / "ns/mnt", gone).string();
    if (gone || space.empty() || !seen.insert(space).second) continue;
    auto mounts = parse_mountinfo(text_of(it->path() / "mountinfo"));
    if (!mounts) continue;
    std::string command = text_of(it->path() / "comm");
    while (!command.empty() && command.back() == '\n') command.pop_back();
    out.push_back({std::stoi(name), std::move(command), std::move(*mounts)});
  }
  return out;
}

Status check_other_mounts(const std::string& path, const std::vector<Mount>& mounts,
                          const std::vector<MountNamespace>& others) {
  const Mount* holder = mount_containing(mounts, path, false);
  if (holder == nullptr) return fail(ErrorCode::not_found, "no mount holds {}", path);
  const std::string on_disk = path_on_disk(*holder, path);
  for (const Mount& m : mounts) {
    if (&m == holder || m.point == holder->point || is_our_cover(m)) continue;
    if (const std::string way = way_in(m, *holder, on_disk); !way.empty())
      return refuse(fmt::format("{} can be changed through {} as well, which would not be replicated", path, way),
                    fmt::format("unmount {} (after protecting, what is bound is the protected folder)", m.point));
  }
  for (const MountNamespace& other : others)
    for (const Mount& m : other.mounts)
      if (const std::string way = way_in(m, *holder, on_disk); !way.empty())
        return refuse(
            fmt::format("{} (pid {}) has mounts of its own and can change {} through its {}, which would not be "
                        "replicated",
                        other.command, other.pid, path, way),
            "stop it (a container or service), protect the folder, start it again");
  return {};
}

std::vector<std::string> overlay_layers(std::string_view options) {
  std::vector<std::string> out;
  std::string key, value;
  bool in_value = false;
  const auto done = [&] {
    if (in_value && !value.empty() && value.front() == '/' &&
        (key == "upperdir" || key == "workdir" || key == "lowerdir" || key == "lowerdir+" || key == "datadir+"))
      out.push_back(value);
    value.clear();
  };
  for (std::size_t i = 0; i <= options.size(); ++i) {
    const char c = i < options.size() ? options[i] : ',';
    if (c == '\\' && i + 1 < options.size()) {
      value.push_back(options[++i]);
    } else if (c == ',') {
      done();
      key.clear();
      in_value = false;
    } else if (c == '=' && !in_value) {
      key.swap(value);
      value.clear();
      in_value = true;
    } else if (c == ':' && in_value && key == "lowerdir") {
      done();
    } else {
      value.push_back(c);
    }
  }
  return out;
}

Status check_overlays(const std::string& path, const std::vector<Mount>& mounts) {
  for (const Mount& m : mounts) {
    if (m.type != "overlay") continue;
    for (const std::string& layer : overlay_layers(m.super_options)) {
      std::error_code missing;
      const std::string real =
          fs::canonical(layer, missing).string();  // missing: it is told as another namespace sees it
      if (missing || (!path_lies_in(real, path) && !path_lies_in(path, real))) continue;
      const std::string where = real == path               ? "is"
                                : path_lies_in(real, path) ? "holds " + real + ","
                                                           : "lies in " + real + ",";
      return refuse(fmt::format("{} {} a layer of the overlay at {}, which works past what is mounted over it", path,
                                where, m.point),
                    fmt::format("unmount {} (or stop the container that it is of)", m.point));
    }
  }
  return {};
}

std::vector<std::string> first_paths(std::string_view text) {
  std::vector<std::string> out;
  std::istringstream in{std::string(text)};
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.front() != '/') continue;
    out.push_back(unescape_mount_text(std::string_view(line).substr(0, line.find_first_of(" \t"))));
  }
  return out;
}

Status check_kernel_users(const std::string& path) {
  std::error_code error;
  for (fs::directory_iterator it("/sys/block", error), end; !error && it != end; it.increment(error)) {
    std::string image = text_of(it->path() / "loop/backing_file");
    while (!image.empty() && image.back() == '\n') image.pop_back();
    if (!image.empty() && path_lies_in(image, path))
      return refuse(fmt::format("{} is the image of /dev/{}, which writes to it past the capture", image,
                                it->path().filename().string()),
                    fmt::format("detach it (umount, losetup -d /dev/{}), protect the folder, attach it again",
                                it->path().filename().string()));
  }
  for (const std::string& file : first_paths(text_of("/proc/swaps")))
    if (path_lies_in(file, path))
      return refuse(fmt::format("{} is a swap file", file), "swapoff it and keep it elsewhere");
  for (const std::string& exported : first_paths(text_of("/proc/fs/nfs/exports")))
    if (path_lies_in(exported, path) || path_lies_in(path, exported))
      return refuse(
          fmt::format("{} is exported by NFS as {}, whose clients would write past the capture", path, exported),
          "exportfs -u it, protect the folder, export it again");
  return {};
}

}  // namespace holdfast::platform
