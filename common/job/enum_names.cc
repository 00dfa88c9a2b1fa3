#include "common/job/enum_names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace seqpar {
namespace {

constexpr char kUnspecified[] = "UNSPECIFIED";

}  // namespace

std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value) {
  std::string name = value.name();
  const std::string& zero = value.type()->value(0)->name();
  if (absl::EndsWith(zero, kUnspecified)) {
    const std::string prefix = zero.substr(0, zero.size() - (sizeof(kUnspecified) - 1));
    if (absl::StartsWith(name, prefix)) name = name.substr(prefix.size());
  }
  return absl::AsciiStrToLower(name);
}

std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (absl::EndsWith(type.value(i)->name(), kUnspecified)) continue;
    names.push_back(ShortEnumName(*type.value(i)));
  }
  return names;
}

}  // namespace seqpar
