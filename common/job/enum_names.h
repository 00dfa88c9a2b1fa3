// Enum values as people write them: MASK_KIND_CAUSAL is "causal".
#ifndef SEQPAR_COMMON_JOB_ENUM_NAMES_H_
#define SEQPAR_COMMON_JOB_ENUM_NAMES_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/generated_enum_reflection.h>

#include <string>
#include <vector>

namespace seqpar {

// The value's name without the enum's prefix, in lower case. The prefix is what stands before UNSPECIFIED in
// the name of value 0, as the style guide of protocol buffers has it.
std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value);

// Every short name but "unspecified", in the order of declaration.
std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type);

// The short name of a generated enum's value; "?" for one that this client does not know.
template <typename Enum>
std::string ShortName(Enum value) {
  const google::protobuf::EnumDescriptor* type = google::protobuf::GetEnumDescriptor<Enum>();
  const google::protobuf::EnumValueDescriptor* found = type->FindValueByNumber(value);
  return found == nullptr ? "?" : ShortEnumName(*found);
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_ENUM_NAMES_H_
