// SPDX-License-Identifier: Apache-2.0
// For tests only: what a transition asked for, by kind.
#pragma once

#include <variant>
#include <vector>

#include "cluster/step.h"

namespace holdfast::cluster {

template <class T>
std::vector<T> all(const Actions& actions) {
  std::vector<T> found;
  for (const Action& a : actions)
    if (const T* t = std::get_if<T>(&a)) found.push_back(*t);
  return found;
}

template <class T>
std::vector<T> sent(const Actions& actions) {
  std::vector<T> found;
  for (const auto& s : all<out::Send>(actions))
    if (const T* t = std::get_if<T>(&s.envelope.body)) found.push_back(*t);
  return found;
}

}  // namespace holdfast::cluster
