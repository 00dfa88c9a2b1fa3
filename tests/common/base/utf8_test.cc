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

TEST(Utf8, ColumnsOfATerminal) {
  const std::vector<std::pair<std::string, size_t>> cases = {
      {"", 0},
      {"abc", 3},
      {"\xc3\xa9", 1},          // e with an accent
      {"e\xcc\x81", 1},         // the same of two characters
      {"\xe9\x95\xb7", 2},      // a Chinese character
      {"\xf0\x9f\x98\x80", 2},  // an emoji
      {"\xe2\x82\xac", 1},      // the euro's sign
      {"a\xff", 2},             // a byte of no character
  };
  for (const auto& [text, columns] : cases) EXPECT_EQ(Utf8Columns(text), columns) << text;
}

TEST(Utf8, ABeginningIsOfWholeCharacters) {
  const std::string text = "a\xe9\x95\xb7\xc3\xa9z";
  EXPECT_EQ(Utf8Beginning(text, 0), "");
  EXPECT_EQ(Utf8Beginning(text, 2), "a");
  EXPECT_EQ(Utf8Beginning(text, 3), "a\xe9\x95\xb7");
  EXPECT_EQ(Utf8Beginning(text, 4), "a\xe9\x95\xb7\xc3\xa9");
  EXPECT_EQ(Utf8Beginning(text, 99), text);
}

}  // namespace
}  // namespace seqpar
