// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/succession.h"

#include <systemd/sd-daemon.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "platform/descriptors.h"

namespace holdfast::mirror_process {
namespace {

constexpr const char* epoch_name = "holdfast-epoch";
constexpr const char* capture_name = "holdfast-capture";
constexpr std::uint32_t version = 1;
constexpr std::uint64_t store_patience_us = 2'000'000;
constexpr std::size_t most_text = 64 * 1024;

Status store(const char* name, int fd) {
  // Not polled: nobody writes to such a socket any more, and systemd would let go of it for that.
  const std::string text = fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0", name);
  const int sent = sd_pid_notify_with_fds(0, 0, text.c_str(), &fd, 1);
  if (sent <= 0) return fail(ErrorCode::unavailable, "systemd keeps no descriptors for this unit");
  return {};
}

void empty_store() {
  for (const char* name : {epoch_name, capture_name})
    (void)sd_notify(0, fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name).c_str());
}

Result<Succession> read_epoch(int fd) {
  HF_ASSIGN(const std::string text, platform::read_whole(fd, most_text));
  return decode_handed(text);
}

}  // namespace

std::string encode_handed(const mirror::NodeLog::Handed& handed, std::int64_t began_ns) {
  nlohmann::json waits = nlohmann::json::array();
  for (const NodeId id : handed.waits) waits.push_back(to_hex(id));
  return nlohmann::json{{"version", version},
                        {"epoch", handed.epoch.value},
                        {"end", {{"epoch", handed.end.epoch.value}, {"seq", handed.end.sequence.value}}},
                        {"waits", waits},
                        {"began_ns", began_ns}}
      .dump();
}

Result<Succession> decode_handed(std::string_view text) {
  const auto damaged = [] { return fail(ErrorCode::corrupt, "what the mirror before this one left can't be read"); };
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return damaged();
  const auto number = [](const nlohmann::json& in, const char* name) -> std::optional<std::uint64_t> {
    const auto found = in.find(name);
    if (found == in.end() || !found->is_number_unsigned()) return std::nullopt;
    return found->get<std::uint64_t>();
  };
  if (number(json, "version") != version)
    return fail(ErrorCode::unavailable, "what the mirror before this one left has another form");
  const auto end = json.find("end"), waits = json.find("waits");
  if (end == json.end() || !end->is_object() || waits == json.end() || !waits->is_array()) return damaged();
  const auto epoch = number(json, "epoch"), end_epoch = number(*end, "epoch"), sequence = number(*end, "seq"),
             began = number(json, "began_ns");
  if (!epoch || !end_epoch || !sequence || !began) return damaged();
  Succession out;
  out.handed.epoch = Epoch(*epoch);
  out.handed.end = {Epoch(*end_epoch), Sequence(*sequence)};
  out.began_ns = static_cast<std::int64_t>(*began);
  for (const auto& each : *waits) {
    if (!each.is_string()) return damaged();
    HF_ASSIGN(const NodeId id, node_id_from_hex(each.get<std::string>()));
    out.handed.waits.insert(id);
  }
  return out;
}

namespace {

Status leave_all(const Succession& succession) {
  HF_ASSIGN(const platform::UniqueFd epoch,
            platform::nameless_file(encode_handed(succession.handed, succession.began_ns)));
  HF_TRY(store(epoch_name, epoch.get()));
  for (const auto& each : succession.captures) {
    HF_ASSIGN(const capture::Descriptor packed, capture::pack(each));
    HF_TRY(store(capture_name, packed.get()));
  }
  if (sd_notify_barrier(0, store_patience_us) < 0)
    return fail(ErrorCode::timeout, "systemd did not take the descriptors in time");
  return {};
}

}  // namespace

Status leave(const Succession& succession) {
  Status left = leave_all(succession);
  if (!left) empty_store();
  return left;
}

Result<std::optional<Succession>> take_succession() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(1, &names);
  std::vector<capture::Descriptor> captures;
  platform::UniqueFd epoch;
  for (int i = 0; i < count; ++i) {
    const std::string name = names[i];
    free(names[i]);
    const int fd = SD_LISTEN_FDS_START + i;
    if (name == capture_name)
      captures.emplace_back(fd);
    else
      epoch.reset(fd);  // another name is nobody's: it is closed in the end
  }
  free(names);
  if (count <= 0) return std::optional<Succession>();
  empty_store();  // else systemd would go on keeping them after our own death, too
  HF_ASSIGN(Succession out, read_epoch(epoch.get()));
  for (const auto& each : captures) {
    HF_ASSIGN(auto capture, capture::unpack(each));
    out.captures.push_back(std::move(capture));
  }
  return std::optional<Succession>(std::move(out));
}

}  // namespace holdfast::mirror_process
