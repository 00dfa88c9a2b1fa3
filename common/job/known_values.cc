#include "common/job/known_values.h"

#include <google/protobuf/descriptor.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/version.h"

namespace seqpar {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

absl::Status CheckValue(const std::string& path, const FieldDescriptor& field, int value) {
  if (field.enum_type()->FindValueByNumber(value) != nullptr) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat(path, " is ", value, ", which version ", kVersion,
                                " does not know: whoever asks for it is newer"));
}

// `index`: of a repeated field's element; -1: the field is not repeated.
absl::Status CheckField(const std::string& path, const Message& message, const FieldDescriptor& field,
                        int index) {
  const Reflection& reflection = *message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    return CheckValue(path, field,
                      index < 0 ? reflection.GetEnumValue(message, &field)
                                : reflection.GetRepeatedEnumValue(message, &field, index));
  }
  return CheckKnownValues(path, index < 0 ? reflection.GetMessage(message, &field)
                                          : reflection.GetRepeatedMessage(message, &field, index));
}

}  // namespace

absl::Status CheckKnownValues(const std::string& name, const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool can_hold = field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM ||
                          field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!can_hold || field->is_map()) continue;
    const std::string path = absl::StrCat(name, ".", std::string(field->name()));
    if (!field->is_repeated()) {
      SEQPAR_RETURN_IF_ERROR(CheckField(path, message, *field, -1));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      SEQPAR_RETURN_IF_ERROR(CheckField(absl::StrCat(path, "[", i, "]"), message, *field, i));
    }
  }
  return absl::OkStatus();
}

}  // namespace seqpar
