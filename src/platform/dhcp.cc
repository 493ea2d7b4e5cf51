// SPDX-License-Identifier: Apache-2.0
#include "platform/dhcp.h"

#include <filesystem>
#include <fstream>
#include <sstream>

namespace holdfast::platform {
namespace {

struct LeaseFiles {
  const char* client;
  const char* folder;
  const char* name_part;  // must occur in the file's name
  const char* before;     // what stands right before the address
};

constexpr LeaseFiles clients[] = {
    {"dhclient", "/var/lib/dhcp", ".leases", "fixed-address "},
    {"dhclient", "/var/lib/dhclient", ".lease", "fixed-address "},
    {"dhclient", "/var/lib/dhcp", ".leases", "iaaddr "},
    {"systemd-networkd", "/run/systemd/netif/leases", "", "ADDRESS="},
    {"NetworkManager", "/var/lib/NetworkManager", ".lease", "ADDRESS="},
    {"NetworkManager", "/var/lib/NetworkManager", ".lease", "fixed-address "},
};

bool holds(const std::string& text, const std::string& needle) {
  for (std::size_t at = text.find(needle); at != std::string::npos; at = text.find(needle, at + 1)) {
    const std::size_t end = at + needle.size();
    if (end == text.size() || std::string(" ;\n\r{/").find(text[end]) != std::string::npos)
      return true;  // 10.0.0.1 is not 10.0.0.12
  }
  return false;
}

}  // namespace

std::optional<std::string> dhcp_lease_of(const std::string& address, const std::string& root) {
  for (const LeaseFiles& files : clients) {
    std::error_code ignored;  // a folder that is not there holds no lease
    for (const auto& entry : std::filesystem::directory_iterator(root + files.folder, ignored)) {
      if (entry.path().filename().string().find(files.name_part) == std::string::npos) continue;
      std::ifstream in(entry.path());
      std::stringstream text;
      text << in.rdbuf();
      if (holds(text.str(), files.before + address))
        return std::string(files.client) + " (" + entry.path().string() + ")";
    }
  }
  return std::nullopt;
}

}  // namespace holdfast::platform
