#include "coordinator/validate/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// proto/seqpar/v1/job.proto numbers what the coordinator fills in from here on.
constexpr int kFirstOutputField = 100;

void CheckEnum(const std::string& field, const EnumDescriptor& type, int value, Violations* v) {
  if (type.FindValueByNumber(value) != nullptr) return;
  const std::vector<std::string> known = ShortEnumNames(type);
  v->Add(
      field,
      absl::StrCat("is ", value, ", which has no meaning here; must be one of ", absl::StrJoin(known, ", ")),
      known.front());
}

void CheckMessage(const std::string& prefix, const Message& message, Violations* v) {
  const Reflection& reflection = *message.GetReflection();
  if (!reflection.GetUnknownFields(message).empty()) {
    const int number = reflection.GetUnknownFields(message).field(0).number();
    v->Add(prefix.empty() ? "job" : prefix.substr(0, prefix.size() - 1),
           absl::StrCat("has a field that this version does not know (number ", number, ")"));
  }
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string path = prefix + field->name();
    if (prefix.empty() && field->number() >= kFirstOutputField) {
      v->Add(path, "is set by the coordinator, not in a job", "leave it out");
      continue;
    }
    if (field->is_repeated()) continue;  // labels, document lengths and names: no enums, no unknown fields
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      CheckMessage(path + ".", reflection.GetMessage(message, field), v);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      CheckEnum(path, *field->enum_type(), reflection.GetEnumValue(message, field), v);
    }
  }
}

}  // namespace

void CheckWire(const v1::Job& job, Violations* violations) { CheckMessage("", job, violations); }

}  // namespace seqpar
