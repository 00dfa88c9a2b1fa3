// Changes messages at random by reflection, so that what comes out is a message of the same type: numbers at
// the ends of their ranges, values of enums that nobody knows, lists that grow, shrink and change their
// order, fields that come and go, and values that are taken from elsewhere in the message, so that ids keep
// meeting each other.
#ifndef SEQPAR_TESTS_FUZZ_MUTATE_H_
#define SEQPAR_TESTS_FUZZ_MUTATE_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>

namespace seqpar {

// Makes one to four changes anywhere in `message`; the same ones for the same seed. Strings stay UTF-8, as a
// peer's must be.
void Mutate(uint32_t seed, google::protobuf::Message* message);

// Text that is not a message: changes bytes, cuts, repeats and inserts pieces of itself. The result has at
// most `bytes_max`.
std::string MutateBytes(uint32_t seed, std::string text, size_t bytes_max);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_FUZZ_MUTATE_H_
