// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace holdfast {
namespace {

TEST(Utf8, WellFormedTextIsReadable) {
  for (const char* text :
       {"", "a b", "gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac", "\xf0\x9f\x90\x98", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_readable(text)) << text;
}

TEST(Utf8, WhatIsNotIsShownAsBytes) {
  EXPECT_EQ(readable("a\\b"), "a\\x5cb");
  for (const auto& [text, shown] : std::initializer_list<std::pair<const char*, const char*>>{
           {"a\nb", "a\\x0ab"},
           {"\x7f", "\\x7f"},
           {"\xff", "\\xff"},
           {"\xc3", "\\xc3"},
           {"\xc0\xaf", "\\xc0\\xaf"},                       // overlong
           {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},              // overlong
           {"\xed\xa0\x80", "\\xed\\xa0\\x80"},              // a surrogate
           {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}}) {  // beyond the last one
    EXPECT_FALSE(is_readable(text));
    EXPECT_EQ(readable(text), shown);
  }
}

}  // namespace
}  // namespace holdfast
