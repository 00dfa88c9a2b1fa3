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

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_UTF8_H_
