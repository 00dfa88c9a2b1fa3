#include "common/base/utf8.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace seqpar {
namespace {

struct Range {
  uint32_t first, last;
};

// Coarse, by whole blocks: Unicode's EastAsianWidth.txt (W and F) and its combining marks.
constexpr Range kWide[] = {{0x1100, 0x115f},  {0x2e80, 0x303e},   {0x3041, 0xa4cf},   {0xa960, 0xa97f},
                           {0xac00, 0xd7a3},  {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                           {0xffe0, 0xffe6},  {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff},
                           {0x20000, 0x3fffd}};
constexpr Range kMarks[] = {{0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x064b, 0x065f},
                            {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200f}, {0x20d0, 0x20ff},
                            {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};

template <size_t n>
bool IsIn(const Range (&ranges)[n], uint32_t character) {
  return std::any_of(std::begin(ranges), std::end(ranges), [character](const Range& range) {
    return range.first <= character && character <= range.last;
  });
}

// REQUIRES: a sequence of `length` begins there.
uint32_t CharacterAt(const std::string& text, size_t at, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (length == 1) return byte(at);
  uint32_t character = byte(at) & (0xffU >> (length + 1));
  for (size_t i = 1; i < length; ++i) character = character << 6 | (byte(at + i) & 0x3fU);
  return character;
}

// Of what begins at text[at]; *length: its bytes.
size_t ColumnsAt(const std::string& text, size_t at, size_t* length) {
  *length = Utf8SequenceLength(text, at);
  if (*length == 0) *length = 1;
  if (*length == 1) return 1;
  const uint32_t character = CharacterAt(text, at, *length);
  return IsIn(kMarks, character) ? 0 : IsIn(kWide, character) ? 2 : 1;
}

}  // namespace

size_t Utf8SequenceLength(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(at + 1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool surrogate = first == 0xed && second > 0x9f;
  const bool past_end = first == 0xf4 && second > 0x8f;
  return overlong || surrogate || past_end ? 0 : length;
}

std::string ToUtf8(const std::string& text) {
  std::string clean;
  clean.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = Utf8SequenceLength(text, at);
    if (length == 0) {
      clean.push_back('?');
      ++at;
    } else {
      clean.append(text, at, length);
      at += length;
    }
  }
  return clean;
}

size_t Utf8Columns(const std::string& text) {
  size_t columns = 0;
  for (size_t at = 0, length = 0; at < text.size(); at += length) columns += ColumnsAt(text, at, &length);
  return columns;
}

std::string Utf8Beginning(const std::string& text, size_t columns) {
  size_t at = 0;
  for (size_t length = 0; at < text.size(); at += length) {
    const size_t more = ColumnsAt(text, at, &length);
    if (more > columns) break;
    columns -= more;
  }
  return text.substr(0, at);
}

}  // namespace seqpar
