// SPDX-License-Identifier: Apache-2.0
// One description of a struct's members serves writing and reading: `template <class V> void fields(V& v, T& t)` calls
// v("name", t.member) for each. Private to control's .cc files (includes all of nlohmann-json).
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace holdfast::control {

constexpr std::size_t longest_text = 64 * 1024;
constexpr std::size_t longest_list = 10'000;

struct WallTime {  // written as ISO 8601
  std::int64_t& ms;
};
std::string iso_time(std::int64_t wall_ms);
Result<std::int64_t> from_iso_time(std::string_view text);

struct FieldWriter {
  nlohmann::json out = nlohmann::json::object();

  template <class T>
  void operator()(const char* name, T& value) {
    out[name] = encode(value);
  }
  void operator()(const char* name, WallTime time) {
    if (time.ms == 0)
      out[name] = nullptr;
    else
      out[name] = iso_time(time.ms);
  }
  template <class T>
  static nlohmann::json encode(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else {
      FieldWriter inner;
      fields(inner, value);
      return std::move(inner.out);
    }
  }
  template <class T>
  static nlohmann::json encode(std::vector<T>& list) {
    nlohmann::json array = nlohmann::json::array();
    for (T& item : list) array.push_back(encode(item));
    return array;
  }
  template <class T>
  static nlohmann::json encode(std::optional<T>& value) {
    return value ? encode(*value) : nlohmann::json(nullptr);
  }
};

enum class Unknown { ignored, refused };  // answers of a newer server may have more members; requests may not

// The first error is kept; later fields are still visited and cheap.
struct FieldReader {
  const nlohmann::json& in;
  Unknown unknown;
  std::string error{};
  std::set<std::string> known{};

  template <class T>
  void operator()(const char* name, T& value) {
    known.insert(name);
    const auto found = in.find(name);
    if (found == in.end() || found->is_null() || !error.empty()) return;
    if (std::string problem = decode(*found, value); !problem.empty()) error = std::string(name) + " " + problem;
  }
  void operator()(const char* name, WallTime time) {
    std::string text;
    (*this)(name, text);
    if (!error.empty() || text.empty()) return;
    if (auto ms = from_iso_time(text))
      time.ms = *ms;
    else
      error = std::string(name) + " " + ms.error().message;
  }

  template <class T>
  std::string decode(const nlohmann::json& json, T& value) {
    if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) return "must be text";
      value = json.get<std::string>();
      if (value.size() > longest_text) return "is too long";
      if (value.find('\0') != std::string::npos) return "holds a zero byte";
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) return "must be true or false";
      value = json.get<bool>();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!json.is_number()) return "must be a number";
      value = json.get<T>();
    } else if constexpr (std::is_integral_v<T>) {
      return decode_integer(json, value);
    } else {
      return decode_object(json, value);
    }
    return {};
  }
  template <class T>
  std::string decode(const nlohmann::json& json, std::vector<T>& list) {
    if (!json.is_array()) return "must be a list";
    if (json.size() > longest_list) return "is too long";
    list.clear();
    for (const auto& item : json) {
      T value{};
      if (std::string problem = decode(item, value); !problem.empty()) return "has an item that " + problem;
      list.push_back(std::move(value));
    }
    return {};
  }
  template <class T>
  std::string decode(const nlohmann::json& json, std::optional<T>& value) {
    return decode(json, value.emplace());
  }

  template <class T>
  static std::string decode_integer(const nlohmann::json& json, T& value) {
    if (!json.is_number_integer()) return "must be a whole number";
    if (json.is_number_unsigned()) {
      const auto wide = json.get<std::uint64_t>();
      if (!std::in_range<T>(wide)) return "is out of range";
      value = static_cast<T>(wide);
    } else {
      const auto wide = json.get<std::int64_t>();
      if (!std::in_range<T>(wide)) return "is out of range";
      value = static_cast<T>(wide);
    }
    return {};
  }
  template <class T>
  std::string decode_object(const nlohmann::json& json, T& value) {
    if (!json.is_object()) return "must be an object";
    FieldReader inner{json, unknown};
    fields(inner, value);
    return inner.finish();
  }
  std::string finish() const {
    if (!error.empty()) return error;
    if (unknown == Unknown::refused)
      for (const auto& [name, value] : in.items())
        if (!known.contains(name)) return "has the unknown member \"" + name.substr(0, 40) + "\"";
    return {};
  }
};

template <class T>
nlohmann::json write_fields(const T& value) {
  FieldWriter writer;
  fields(writer,
         const_cast<T&>(value));  // the description takes a reference for both directions; writing changes nothing
  return std::move(writer.out);
}

template <class T>
Result<T> read_fields(const nlohmann::json& json, const char* what, Unknown unknown) {
  T value{};
  FieldReader reader{json, unknown};
  if (std::string problem = reader.decode_object(json, value); !problem.empty())
    return fail(ErrorCode::invalid, "{}: {}", what, problem);
  return value;
}

}  // namespace holdfast::control
