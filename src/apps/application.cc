// SPDX-License-Identifier: Apache-2.0
#include "apps/application.h"

#include <algorithm>

namespace holdfast::apps {
namespace {

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 64) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

// systemd.unit(5): letters, digits, ":-_.\@", and one of the suffixes that can be started.
bool is_unit(std::string_view text) {
  constexpr std::string_view suffixes[] = {".service", ".socket", ".timer", ".target", ".path", ".slice"};
  if (text.size() > 255 || std::none_of(std::begin(suffixes), std::end(suffixes), [&](std::string_view s) {
        return text.size() > s.size() && text.ends_with(s);
      }))
    return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(":-_.\\@").find(c) != std::string_view::npos;
  });
}

bool is_plain_path(std::string_view path) {
  if (path.size() < 2 || path.size() > 4095 || path.front() != '/' || path.back() == '/') return false;
  if (path.find('\0') != std::string_view::npos || path.find("//") != std::string_view::npos) return false;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at + 1), path.size());
    const std::string_view part = path.substr(at + 1, end - at - 1);
    if (part == "." || part == ".." || part.size() > 255) return false;
    at = end;
  }
  return true;
}

}  // namespace

std::vector<Resource> start_order(const std::vector<Application>& applications) {
  std::vector<Resource> all;
  for (const Application& a : applications) all.insert(all.end(), a.resources.begin(), a.resources.end());
  return all;
}

std::vector<Resource> stop_order(const std::vector<Application>& applications) {
  std::vector<Resource> all = start_order(applications);
  std::reverse(all.begin(), all.end());
  return all;
}

bool path_within(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

Status validate(const Application& a) {
  if (!is_name(a.name))
    return fail(ErrorCode::invalid,
                "\"{}\" is not a name for an application: letters, digits, '-', '_' and '.', at most 64", a.name);
  if (a.resources.empty() && a.data_paths.empty())
    return fail(ErrorCode::invalid, "{} has neither units nor folders: name what to protect", a.name);
  for (const Resource& r : a.resources) {
    if (!is_unit(r.unit))
      return fail(ErrorCode::invalid, "\"{}\" is not the name of a systemd unit: write it like nginx.service", r.unit);
    if (std::count_if(a.resources.begin(), a.resources.end(), [&](const Resource& o) { return o.unit == r.unit; }) > 1)
      return fail(ErrorCode::invalid, "{} is named twice", r.unit);
    if (r.start_timeout_ms <= 0 || r.stop_timeout_ms <= 0)
      return fail(ErrorCode::invalid, "the time limits of {} must be above zero", r.unit);
  }
  for (const std::string& path : a.data_paths) {
    if (!is_plain_path(path))
      return fail(ErrorCode::invalid, "\"{}\" is not the full name of a folder: write it like /srv/data", path);
    for (const std::string& other : a.data_paths)
      if (&other != &path && path_within(path, other))
        return fail(ErrorCode::invalid, "{} lies in {}, which is named as well", path, other);
  }
  if (a.check_interval_ms < 100 || a.check_timeout_ms < 100)
    return fail(ErrorCode::invalid, "checks of {} more often than every 100 ms are refused", a.name);
  return {};
}

Status check_against(const Application& added, const std::vector<Application>& existing) {
  for (const Application& other : existing) {
    if (other.name == added.name)
      return fail(ErrorCode::exists, "{} is already protected: unprotect it first, or give this one another name",
                  added.name);
    for (const Resource& r : added.resources)
      for (const Resource& o : other.resources)
        if (r.unit == o.unit) return fail(ErrorCode::exists, "{} belongs to {} already", r.unit, other.name);
    for (const std::string& path : added.data_paths)
      for (const std::string& o : other.data_paths) {
        if (path == o) return fail(ErrorCode::exists, "{} is already protected, by {}", path, other.name);
        if (path_within(path, o))
          return fail(ErrorCode::refused, "{} lies in {}, which {} protects already", path, o, other.name);
        if (path_within(o, path))
          return fail(ErrorCode::refused, "{} holds {}, which {} protects already: unprotect that first", path, o,
                      other.name);
      }
  }
  return {};
}

}  // namespace holdfast::apps
