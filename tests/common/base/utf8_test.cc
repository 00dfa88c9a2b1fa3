#include "common/base/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace seqpar {
namespace {

TEST(Utf8, CharactersOfEveryLengthAreLeftAsTheyAre) {
  for (const std::string text :
       {"a", "\xc3\xa9", "\xe2\x82\xac", "\xed\x9f\xbf", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_EQ(Utf8SequenceLength(text, 0), text.size());
    EXPECT_EQ(ToUtf8(text), text);
  }
  EXPECT_EQ(ToUtf8(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_EQ(ToUtf8(""), "");
}

TEST(Utf8, EveryOtherByteIsAQuestionMark) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xff", "?"},                 // no such byte
      {"a\x80z", "a?z"},             // a stray one
      {"\xe2\x82", "??"},            // cut off
      {"\xe2\x82z", "??z"},          // by another character
      {"\xc0\x80", "??"},            // overlong
      {"\xe0\x9f\xbf", "???"},       // overlong
      {"\xf0\x8f\xbf\xbf", "????"},  // overlong
      {"\xed\xa0\x80", "???"},       // a surrogate
      {"\xf4\x90\x80\x80", "????"},  // past the last character
      {"\xf5\x80\x80\x80", "????"},
  };
  for (const auto& [text, clean] : cases) {
    EXPECT_EQ(Utf8SequenceLength(text, text[0] == 'a' ? 1 : 0), 0u);
    EXPECT_EQ(ToUtf8(text), clean);
  }
}

}  // namespace
}  // namespace seqpar
