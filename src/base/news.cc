// SPDX-License-Identifier: Apache-2.0
#include "base/news.h"

namespace holdfast {

bool News::first(const std::string& who, const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (told_.size() >= most_who && !told_.contains(who)) told_.clear();
  std::set<std::string>& of_this = told_[who];
  if (of_this.size() >= most_what && !of_this.contains(what)) of_this.clear();
  return of_this.insert(what).second;
}

void News::forget(const std::string& who) {
  const std::lock_guard lock(mutex_);
  told_.erase(who);
}

std::string without_port(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  const bool bare_v6 = !address.starts_with('[') && address.find(':') != colon;
  const bool no_port = colon == std::string_view::npos || bare_v6 || address.ends_with(']');
  return std::string(no_port ? address : address.substr(0, colon));
}

}  // namespace holdfast
