// Text from outside (what processes print, names in files) on its way into what must be UTF-8: JSON and the
// strings of messages. A message with one string that is not UTF-8 is not parsed at all.
#ifndef SEQPAR_COMMON_BASE_UTF8_H_
#define SEQPAR_COMMON_BASE_UTF8_H_

#include <cstddef>
#include <string>

namespace seqpar {

// The length of the UTF-8 sequence that begins at text[at]; 0 where none does: a stray byte, a sequence that
// is cut off, an overlong form, a surrogate, or what is past the last character. REQUIRES: at < text.size().
size_t Utf8SequenceLength(const std::string& text, size_t at);

// `text` with '?' in the place of each byte that belongs to no character.
std::string ToUtf8(const std::string& text);

// How many columns of a terminal `text`, of one line, takes: two for a wide character (East Asia's, emoji),
// none for a mark on the one before it, one for every other and for a byte that belongs to none.
size_t Utf8Columns(const std::string& text);
// The longest beginning of `text` that takes at most `columns`, of whole characters.
std::string Utf8Beginning(const std::string& text, size_t columns);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_UTF8_H_
