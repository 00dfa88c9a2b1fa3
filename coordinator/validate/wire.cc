#include "coordinator/validate/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace seqpar {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// proto/seqpar/v1/job.proto numbers what the coordinator fills in from here on.
constexpr int kFirstOutputField = 100;

// "MASK_KIND_WINDOW" is "window" in a job file: the name less what all values of the enum begin with.
std::string JobFileName(const EnumDescriptor& type, const EnumValueDescriptor& value) {
  const std::string unspecified = type.value(0)->name();
  const size_t prefix = unspecified.size() - std::string("UNSPECIFIED").size();
  std::string name = value.name().substr(prefix);
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return name;
}

void CheckEnum(const std::string& field, const EnumDescriptor& type, int value, Violations* v) {
  if (type.FindValueByNumber(value) != nullptr) return;
  std::string known;
  for (int i = 1; i < type.value_count(); ++i) {
    absl::StrAppend(&known, i > 1 ? ", " : "", JobFileName(type, *type.value(i)));
  }
  v->Add(field, absl::StrCat("is ", value, ", which has no meaning here; must be one of ", known),
         JobFileName(type, *type.value(1)));
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
