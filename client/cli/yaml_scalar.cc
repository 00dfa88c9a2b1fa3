#include "client/cli/yaml_scalar.h"

#include <google/protobuf/descriptor.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::EnumValueDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

// yaml-cpp tags quoted scalars with "!" and plain ones with "?".
bool IsQuoted(const YAML::Node& node) { return node.Tag() == "!"; }

// Whole numbers up to 2^53 may also be written as 8e9 or 8.0.
bool AsWholeDouble(const std::string& text, double* value) {
  constexpr double kExactMax = 9007199254740992.0;
  return absl::SimpleAtod(text, value) && std::isfinite(*value) && std::fabs(*value) <= kExactMax;
}

template <typename Int>
bool ReadInteger(const YAML::Node& node, Int* value, ScalarProblem* problem) {
  constexpr Int kMin = std::numeric_limits<Int>::min();
  constexpr Int kMax = std::numeric_limits<Int>::max();
  const std::string& text = node.IsScalar() ? node.Scalar() : "";
  double number = 0;
  if (!node.IsScalar() || IsQuoted(node) || !absl::SimpleAtod(text, &number) || !std::isfinite(number)) {
    problem->description = absl::StrCat("must be a whole number, is ", DescribeNode(node));
    return false;
  }
  if (absl::SimpleAtoi(text, value)) return true;
  if (number < static_cast<double>(kMin)) {
    problem->description = absl::StrCat("must be at least ", kMin, ", is ", text);
    problem->nearest = absl::StrCat(kMin);
    return false;
  }
  // As a double the largest 64-bit value rounds up to the next power of two, which is already too large.
  if (number >= static_cast<double>(kMax)) {
    problem->description = absl::StrCat("must be at most ", kMax, ", is ", text);
    problem->nearest = absl::StrCat(kMax);
    return false;
  }
  if (!AsWholeDouble(text, &number) || number != std::floor(number)) {
    problem->description = absl::StrCat("must be a whole number, is ", text);
    problem->nearest = absl::StrCat(static_cast<Int>(std::round(number)));
    return false;
  }
  *value = static_cast<Int>(number);
  return true;
}

bool ReadDouble(const YAML::Node& node, double* value, ScalarProblem* problem) {
  if (node.IsScalar() && !IsQuoted(node) && absl::SimpleAtod(node.Scalar(), value) && std::isfinite(*value)) {
    return true;
  }
  problem->description = absl::StrCat("must be a number, is ", DescribeNode(node));
  return false;
}

bool ReadBool(const YAML::Node& node, bool* value, ScalarProblem* problem) {
  const std::string text = node.IsScalar() && !IsQuoted(node) ? node.Scalar() : "";
  if (text == "true" || text == "false") {
    *value = text == "true";
    return true;
  }
  problem->description = absl::StrCat("must be true or false, is ", DescribeNode(node));
  if (text == "yes" || text == "on" || text == "1" || text == "True") problem->nearest = "true";
  if (text == "no" || text == "off" || text == "0" || text == "False") problem->nearest = "false";
  return false;
}

// Short names as people write them; the full names too, which is what the service's JSON has.
const EnumValueDescriptor* ReadEnum(const YAML::Node& node, const EnumDescriptor& type,
                                    ScalarProblem* problem) {
  const std::vector<std::string> names = ShortEnumNames(type);
  const std::string text = node.IsScalar() ? node.Scalar() : "";
  for (int i = 1; i < type.value_count() && node.IsScalar(); ++i) {
    if (text == ShortEnumName(*type.value(i)) || text == type.value(i)->name()) return type.value(i);
  }
  problem->description =
      absl::StrCat("must be one of ", absl::StrJoin(names, ", "), ", is ", DescribeNode(node));
  if (node.IsScalar()) problem->nearest = NearestName(text, names);
  return nullptr;
}

}  // namespace

std::string DescribeNode(const YAML::Node& node) {
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  if (!node.IsScalar()) return "nothing";
  return absl::StrCat(IsQuoted(node) ? "the text '" : "'", node.Scalar(), "'");
}

bool WriteScalar(const YAML::Node& node, const FieldDescriptor* field, Message* message,
                 ScalarProblem* problem) {
  const Reflection* to = message->GetReflection();
  const bool add = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!ReadInteger(node, &value, problem)) return false;
      add ? to->AddInt32(message, field, value) : to->SetInt32(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!ReadInteger(node, &value, problem)) return false;
      add ? to->AddInt64(message, field, value) : to->SetInt64(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (!ReadInteger(node, &value, problem)) return false;
      add ? to->AddUInt64(message, field, value) : to->SetUInt64(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!ReadDouble(node, &value, problem)) return false;
      add ? to->AddDouble(message, field, value) : to->SetDouble(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool value = false;
      if (!ReadBool(node, &value, problem)) return false;
      add ? to->AddBool(message, field, value) : to->SetBool(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumValueDescriptor* value = ReadEnum(node, *field->enum_type(), problem);
      if (value == nullptr) return false;
      add ? to->AddEnum(message, field, value) : to->SetEnum(message, field, value);
      return true;
    }
    case FieldDescriptor::CPPTYPE_STRING:
      if (node.IsScalar()) {
        add ? to->AddString(message, field, node.Scalar()) : to->SetString(message, field, node.Scalar());
        return true;
      }
      problem->description = absl::StrCat("must be text, is ", DescribeNode(node));
      return false;
    default:
      problem->description = absl::StrCat("is a ", field->cpp_type_name(), ", which files cannot hold");
      return false;
  }
}

}  // namespace seqpar
