// SPDX-License-Identifier: Apache-2.0
// protect and unprotect: what can't be protected is refused here, by name, on this node and on every peer, before anything changes.
#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <future>

#include "base/log.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/holders.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "platform/descriptors.h"
#include "platform/held_files.h"
#include "platform/mounts.h"
#include "platform/process.h"
#include "platform/tree_probe.h"

namespace holdfast::daemon {

using control::Accepted;
using control::Caller;
using nlohmann::json;

namespace {

constexpr double space_margin = 1.1;

std::uint64_t bytes_under(const std::string& path) {
  const auto out = platform::run_checked({.argv = {"du", "-sxB1", "--", path}, .timeout_ms = 120'000});
  return out ? std::strtoull(out->c_str(), nullptr, 10) : 0;
}

// The folder, or the one in which it will be made.
std::filesystem::path there_of(const std::string& path) {
  std::filesystem::path at(path);
  std::error_code ignored;
  while (!std::filesystem::exists(at, ignored) && at.has_relative_path()) at = at.parent_path();
  return at;
}

std::uint64_t bytes_free(const std::string& path) {
  const std::filesystem::path at = there_of(path);
  struct statvfs fs {};
  return statvfs(at.c_str(), &fs) == 0 ? static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize : 0;
}

// What the file system can hold there, as [limit, most]; an older node says nothing, and nothing is known of it.
json limits_of(const std::string& path) {
  json all = json::array();
  const auto fd = platform::open_file(there_of(path), O_RDONLY | O_DIRECTORY);
  const auto told = fd ? platform::probe_limits(fd->get()) : tl::unexpected(fd.error());
  if (!told) log_warning("what {} can hold is not known: {}", path, told.error().to_string());
  for (std::size_t i = 0; told && i < ports::limit_count; ++i)
    if (const auto what = ports::TreeLimits::at(i); told->limits.most(what) != ports::no_limit)
      all.push_back({static_cast<unsigned>(what), told->limits.most(what)});
  return all;
}

ports::TreeLimits limits_from(const json& told) {
  ports::TreeLimits limits;
  for (const auto& one : told)
    if (one.is_array() && one.size() == 2 && one[0].is_number_unsigned() && one[1].is_number_unsigned())
      if (const auto what = one[0].get<std::uint64_t>(); what >= 1 && what <= ports::limit_count)
        limits.set(static_cast<ports::Limit>(what), one[1].get<std::uint64_t>());
  return limits;
}

std::string mib(std::uint64_t bytes) { return fmt::format("{} MiB", (bytes + (1u << 20) - 1) >> 20); }

Status check_not_ours(const std::string& path, const std::string& state_dir) {
  for (const std::string& own : {state_dir, std::string("/run"), std::string("/etc"), std::string("/proc"),
                                 std::string("/sys"), std::string("/dev"), std::string("/boot"), std::string("/usr")}) {
    if (apps::path_within(path, own) || apps::path_within(own, path))
      return tl::unexpected(Error{ErrorCode::refused,
                                  fmt::format("{} can't be protected: it holds or is part of {}", path, own),
                                  "protect the folder of the application's data", 0});
  }
  return {};
}

// A folder's name as an application's: what that can't have becomes '-'.
std::string name_after(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string().substr(0, 64);
  for (char& c : name)
    if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' && c != '.') c = '-';
  return name;
}

// What is asked of a node that is to hold a copy. Holders do not matter where units are: those are stopped there.
json facts_wanted(const apps::Application& a) { return {{"paths", a.data_paths}, {"units", !a.resources.empty()}}; }

std::vector<std::string> set_paths(const ClusterConfig& config) {
  std::vector<std::string> paths;
  for (const SetConfig& s : config.sets) paths.push_back(s.path);
  return paths;
}

}  // namespace

Result<apps::Application> ApiHandlers::application_for(const control::ProtectRequest& r) const {
  apps::ProtectRequest request;
  request.name = r.application;
  if (!r.what.empty() && r.what.front() == '/') {
    request.plugin = "files";
    std::string path = r.what;
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    request.paths = {path};
    if (request.name.empty()) request.name = name_after(path);
  } else {
    if (r.what.find('/') != std::string::npos)
      return tl::unexpected(
          Error{ErrorCode::invalid, fmt::format("'{}' is not an absolute path", r.what), "write it like /srv/data", 0});
    request.plugin = r.what;
  }
  return apps::make_application(request, host_facts());
}

Result<ApiHandlers::Sizes> ApiHandlers::check_protect_here(const apps::Application& application,
                                                           const ClusterConfig& config) const {
  Sizes sizes;
  for (const std::string& path : application.data_paths) {
    HF_ASSIGN(sizes[path], platform::check_protectable(path, set_paths(config)));
  }
  if (!application.resources.empty()) return sizes;
  // Nobody would stop them: what they have open would stay open below the capture.
  for (const std::string& path : application.data_paths) {
    const std::vector<std::string> holders = holders_of(path, 5);
    if (holders.empty()) continue;
    std::string list;
    for (const std::string& h : holders) list += (list.empty() ? "" : ", ") + h;
    return tl::unexpected(Error{ErrorCode::busy, fmt::format("{} is in use by {}", path, list),
                                "stop them, protect the folder, start them again", 0});
  }
  return sizes;
}

// A peer says what it has; this side judges.
Result<std::string> ApiHandlers::protect_facts(const json& body) const {
  json paths = json::array();
  const Snapshot s = d_.snapshot();
  for (const auto& p : list_of(body, "paths")) {
    if (!p.is_string()) continue;
    const std::string path = p.get<std::string>();
    std::error_code ignored;
    const bool exists = std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
    Result<std::uint64_t> possible = 0;
    if (Status ours = check_not_ours(path, d_.paths().state); !ours)
      possible = tl::unexpected(std::move(ours).error());
    else if (exists)
      possible = platform::check_protectable(path, set_paths(s.config));
    else if (Status made = platform::check_protectable_once_made(path, set_paths(s.config)); !made)
      possible = tl::unexpected(std::move(made).error());
    paths.push_back({{"path", path},
                     {"free", bytes_free(path)},
                     {"used", possible.value_or(0)},
                     {"exists", exists},
                     {"limits", limits_of(path)},
                     {"error", possible ? "" : possible.error().to_string()},
                     {"holders", flag_of(body, "units") ? std::vector<std::string>() : holders_of(path, 5)}});
  }
  return dump(json{{"facts", host_facts_text()}, {"paths", paths}});
}

// Here only, when a folder becomes protected: one that is missing later means that its disk is, and must never be made up for.
Result<std::string> ApiHandlers::make_folders(const json& body) const {
  const Snapshot s = d_.snapshot();
  for (const auto& p : list_of(body, "paths")) {
    if (!p.is_string()) continue;
    const std::string path = p.get<std::string>();
    HF_TRY(check_not_ours(path, d_.paths().state));
    if (std::filesystem::path(path).lexically_normal() != path || path.front() != '/')
      return fail(ErrorCode::invalid, "{} is no plain path", path);
    HF_TRY(platform::check_protectable_once_made(path, set_paths(s.config)));
    std::error_code ec;
    if (std::filesystem::create_directories(path, ec)) log_info("{} was made for the copy", path);
    if (ec) return fail(ErrorCode::io, "{} can't be made: {}", path, ec.message());
  }
  return std::string("{}");
}

// `sizes`: of the folders here. `answer` is what protect_facts() said on the node `name`. Folders that are yet to be made there are added to
// `missing`.
Status ApiHandlers::judge_copy(const apps::Application& application, const Sizes& sizes, const std::string& name,
                               const json& answer, json& missing) {
  HF_ASSIGN(const apps::HostFacts facts, host_facts_from_text(text_of(answer, "facts", "[]")));
  HF_TRY(apps::check_peer(application, facts, name));
  for (const std::string& path : application.data_paths) {
    const json& told = list_of(answer, "paths");
    const auto p =
        std::find_if(told.begin(), told.end(), [&](const json& one) { return text_of(one, "path") == path; });
    if (p == told.end()) return fail(ErrorCode::corrupt, "{} does not say what it has for {}", name, path);
    if (!flag_of(*p, "exists")) missing.push_back(path);
    if (const std::string error = text_of(*p, "error"); !error.empty())
      return fail(ErrorCode::refused, "on {}: {}", name, error);
    std::string holders;
    for (const auto& h : list_of(*p, "holders"))
      if (h.is_string()) holders += (holders.empty() ? "" : ", ") + h.get<std::string>();
    if (!holders.empty())
      return fail(ErrorCode::busy, "{} is in use on {} by {}: stop them there first", path, name, holders);
    const std::uint64_t needed = static_cast<std::uint64_t>(static_cast<double>(sizes.at(path)) * space_margin);
    const std::uint64_t room = number_of(*p, "free") + number_of(*p, "used");
    if (room < needed)
      return tl::unexpected(
          Error{ErrorCode::no_space,
                fmt::format("{} has {} of space for {}, its copy needs {}", name, mib(room), path, mib(needed)),
                fmt::format("make room on {}", name), 0});
    HF_TRY(platform::check_held_by(path, limits_from(list_of(*p, "limits")), name));
  }
  return {};
}

// --- a node that joins is asked and judged like a peer at protect, for each application that there is already

Result<control::JoinAsksReply> ApiHandlers::join_asks(const Caller& caller, const control::JoinAsksRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_ASSIGN(const control::CertificateKind kind, control::certificate_kind_from_text(r.kind));
  if (const Status known = tokens_.check(r.token, s.node.cluster_id, kind); !known) {
    d_.event("warning", "join_refused", "joining from " + caller.address, "join: " + known.error().message);
    return tl::unexpected(known.error());
  }
  if (kind == control::CertificateKind::witness || s.config.applications.empty()) return control::JoinAsksReply{};
  json asks = json::array();
  for (const apps::Application& a : s.config.applications) asks.push_back(facts_wanted(a));
  return control::JoinAsksReply{dump(asks)};
}

// On the joiner: one answer for each thing that is asked, in that order.
Result<std::string> ApiHandlers::answer_join(const std::string& asks, std::vector<std::string>& missing) const {
  const json wanted = json::parse(asks, nullptr, false);
  if (!wanted.is_array()) return fail(ErrorCode::corrupt, "the cluster asks something that can't be read");
  json answers = json::array();
  for (const json& one : wanted) {
    HF_ASSIGN(const std::string text, protect_facts(one));
    answers.push_back(json::parse(text, nullptr, false));
    for (const json& p : list_of(answers.back(), "paths"))
      if (!flag_of(p, "exists")) missing.push_back(text_of(p, "path"));
  }
  return dump(answers);
}

// On the active, which has the data.
Result<nlohmann::json> ApiHandlers::judge_joiner(const json& request) const {
  const Snapshot s = d_.snapshot();
  const json answers = json::parse(text_of(request, "facts", "[]"), nullptr, false);
  if (!answers.is_array() || answers.size() != s.config.applications.size())
    return fail(ErrorCode::stale, "what the cluster protects was changed meanwhile: join again");
  json missing = json::array();  // the joiner makes them
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Sizes sizes;
    for (const std::string& path : s.config.applications[i].data_paths) sizes[path] = bytes_under(path);
    HF_TRY(judge_copy(s.config.applications[i], sizes, text_of(request, "name"), answers[i], missing));
  }
  return json::object();
}

Result<control::ProtectReply> ApiHandlers::protect(const Caller& caller, const control::ProtectRequest& r) {
  HF_ASSIGN(const auto forwarded, forward("protect", caller, control::to_json(r), 180'000));
  if (forwarded) return control::protect_reply_from_json(*forwarded);
  const Snapshot s = d_.snapshot();
  const std::string policy = r.write_policy.empty() ? "write-back" : r.write_policy;
  if (policy != "write-back" && policy != "write-through")
    return fail(ErrorCode::invalid, "write policy '{}' is neither write-back nor write-through", policy);
  HF_ASSIGN(const apps::Application application, application_for(r));
  HF_TRY(apps::check_against(application, s.config.applications));
  for (const std::string& path : application.data_paths) HF_TRY(check_not_ours(path, d_.paths().state));
  // All nodes look at the same time: each reads every folder.
  std::vector<std::pair<const cluster::Member*, std::future<Result<std::string>>>> asked;
  for (const cluster::Member& m : s.value->members)
    if (m.kind == cluster::MemberKind::data && m.id != s.node.node_id)
      asked.emplace_back(&m, std::async([this, &application, id = m.id] {
        return d_.ask_peer(id, "protect_facts", facts_wanted(application), 120'000);
      }));
  HF_ASSIGN(const Sizes sizes, check_protect_here(application, s.config));
  std::vector<std::pair<const cluster::Member*, json>> lacking;  // peers, and the folders that are to be made there
  for (auto& [peer, answer] : asked) {
    const Result<std::string> text = answer.get();
    if (!text)
      return tl::unexpected(
          Error{ErrorCode::unavailable,
                fmt::format("{} can't be asked whether it can hold a copy: {}", peer->name, text.error().message),
                "bring it back first: holdfast status shows its state", 0});
    json missing = json::array();
    HF_TRY(judge_copy(application, sizes, peer->name, json::parse(*text, nullptr, false), missing));
    if (!missing.empty()) lacking.emplace_back(peer, std::move(missing));
  }
  for (const auto& [peer, paths] : lacking) {
    const auto made = d_.ask_peer(peer->id, "make_folders", {{"paths", paths}}, 30'000);
    if (!made) return fail(made.error().code, "on {}: {}", peer->name, made.error().message);
  }
  ProtectOrder order;
  order.actor = caller.actor;
  order.application = application;
  for (const std::string& path : application.data_paths) order.sets.push_back({0, path, application.name, policy});
  control::ProtectReply reply;
  HF_ASSIGN(reply.plan, d_.plans().protect(order));
  reply.application = application.name;
  reply.paths = application.data_paths;
  if (!application.resources.empty())
    reply.warnings.push_back(application.name + " is stopped for a moment, and started again under protection");
  return reply;
}

Result<Accepted> ApiHandlers::unprotect(const Caller& caller, const control::UnprotectRequest& r) {
  HF_ASSIGN(const auto forwarded, forward("unprotect", caller, control::to_json(r)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  const Snapshot s = d_.snapshot();
  const apps::Application* found = nullptr;
  for (const apps::Application& a : s.config.applications) {
    bool match = a.name == r.what || a.plugin == r.what;
    for (const std::string& path : a.data_paths) match = match || path == r.what;
    if (match) found = &a;
  }
  if (found == nullptr) {
    std::string names;
    for (const apps::Application& a : s.config.applications) names += (names.empty() ? "" : ", ") + a.name;
    return tl::unexpected(Error{ErrorCode::not_found, fmt::format("'{}' is not protected", r.what),
                                names.empty() ? "nothing is" : "protected are " + names, 0});
  }
  std::vector<SetConfig> sets;
  for (const SetConfig& set : s.config.sets)
    if (set.application == found->name) sets.push_back(set);
  HF_ASSIGN(const std::string id, d_.plans().unprotect(caller.actor, *found, sets));
  return Accepted{id, "holdfast protect " + (found->plugin == "files" ? found->data_paths.front() : found->plugin),
                  found->name + " is no longer protected; its data stays where it is"};
}

}  // namespace holdfast::daemon
