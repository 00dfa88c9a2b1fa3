// Makes a fuzz target of a function that takes a message. Inputs are messages in protobuf's text format, so
// that a corpus and a crash can be read; the mutator is tests/fuzz/mutate.h's.
#ifndef SEQPAR_TESTS_FUZZ_MESSAGE_TARGET_H_
#define SEQPAR_TESTS_FUZZ_MESSAGE_TARGET_H_

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "tests/fuzz/mutate.h"

namespace seqpar {

// False, without a word, for what is no message.
inline bool ReadMessage(const uint8_t* data, size_t size, google::protobuf::Message* message) {
  class Silent : public google::protobuf::io::ErrorCollector {
    void AddError(int, google::protobuf::io::ColumnNumber, const std::string&) override {}
  } silent;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&silent);
  parser.SetRecursionLimit(64);
  return parser.ParseFromString(std::string(reinterpret_cast<const char*>(data), size), message);
}

template <typename M>
size_t MutateMessage(uint8_t* data, size_t size, size_t size_max, unsigned seed) {
  M message;
  if (!ReadMessage(data, size, &message)) message.Clear();
  Mutate(seed, &message);
  std::string text;
  google::protobuf::TextFormat::PrintToString(message, &text);
  if (text.size() > size_max) return size <= size_max ? size : 0;
  std::memcpy(data, text.data(), text.size());
  return text.size();
}

}  // namespace seqpar

// SEQPAR_FUZZ_MESSAGE(M, Function): void Function(const M&).
#define SEQPAR_FUZZ_MESSAGE(M, Function)                                                                  \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {                               \
    M message;                                                                                            \
    if (::seqpar::ReadMessage(data, size, &message)) Function(message);                                   \
    return 0;                                                                                             \
  }                                                                                                       \
  extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max, unsigned seed) { \
    return ::seqpar::MutateMessage<M>(data, size, size_max, seed);                                        \
  }

#endif  // SEQPAR_TESTS_FUZZ_MESSAGE_TARGET_H_
