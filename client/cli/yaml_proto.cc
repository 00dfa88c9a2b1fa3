#include "client/cli/yaml_proto.h"

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cli/yaml_scalar.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

// Writes one parsed scalar into a field: sets it, or appends where the field is repeated.
struct Target {
  Message* message;
  const FieldDescriptor* field;
};

class Walker {
 public:
  Walker(const YamlOptions& options, std::vector<Violation>* violations)
      : options_(options), violations_(violations) {}

  // Where the following nodes come from, for the end of each description: "" means "line N".
  void SetOrigin(const std::string& origin) { origin_ = origin; }

  void ReadMessage(const YAML::Node& node, const std::string& path, Message* message) {
    const Descriptor* type = message->GetDescriptor();
    const auto shorthand = options_.scalar_shorthand.find(type->full_name());
    if (node.IsScalar() && shorthand != options_.scalar_shorthand.end()) {
      ReadField(node, Join(path, shorthand->second), type->FindFieldByName(shorthand->second), message);
      return;
    }
    if (!node.IsMap()) {
      Add(node, path, absl::StrCat("must be a mapping, is ", DescribeNode(node)));
      return;
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
      const std::string field_path = Join(path, name);
      const FieldDescriptor* field = FindField(entry.first, name, path, *type);
      if (field == nullptr) continue;
      if (!seen.insert(name).second) {
        Add(entry.first, field_path, "is given twice");
      } else if (const FieldDescriptor* other = OneofPeer(*message, *field)) {
        Add(entry.first, field_path,
            absl::StrCat("cannot be given together with ", Join(path, other->name())));
      } else {
        ReadField(entry.second, field_path, field, message);
      }
    }
  }

  // "a.b.c=value"
  void Assign(const std::string& assignment, Message* message) {
    SetOrigin("--set");
    const size_t equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0) {
      violations_->push_back({"--set", absl::StrCat("must be key=value, is '", assignment, "'"), ""});
      return;
    }
    const std::string path = assignment.substr(0, equals);
    YAML::Node value;
    try {
      value = YAML::Load(assignment.substr(equals + 1));
    } catch (const YAML::Exception& error) {
      violations_->push_back({path, absl::StrCat("is not YAML: ", error.msg, " (--set)"), ""});
      return;
    }
    AssignAt(path, value, message);
  }

 private:
  void AssignAt(const std::string& path, const YAML::Node& value, Message* message) {
    const std::vector<std::string> names = absl::StrSplit(path, '.');
    std::string at;
    for (size_t i = 0; i < names.size(); ++i) {
      const FieldDescriptor* field = FindField(value, names[i], at, *message->GetDescriptor());
      if (field == nullptr) return;
      at = Join(at, names[i]);
      const Reflection* reflection = message->GetReflection();
      if (field->is_map() && i + 1 < names.size()) {
        const std::string key = absl::StrJoin(names.begin() + static_cast<int64_t>(i) + 1, names.end(), ".");
        RemoveMapEntry(key, field, message);
        if (!value.IsNull()) ReadMapEntry(key, value, Join(at, key), field, message);
        return;
      }
      if (i + 1 == names.size()) {
        reflection->ClearField(message, field);
        if (!value.IsNull()) ReadField(value, at, field, message);
        return;
      }
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) {
        Add(value, path, absl::StrCat(at, " has no fields of its own"));
        return;
      }
      message = reflection->MutableMessage(message, field);
    }
  }

  void ReadField(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
                 Message* message) {
    if (node.IsNull()) {
      Add(node, path, "has no value: leave it out, or give one");
    } else if (field->is_map()) {
      ReadMap(node, path, field, message);
    } else if (field->is_repeated()) {
      if (!node.IsSequence()) {
        Add(node, path, absl::StrCat("must be a list, is ", DescribeNode(node)));
        return;
      }
      for (size_t i = 0; i < node.size(); ++i) {
        ReadValue(node[i], absl::StrCat(path, "[", i, "]"), {message, field});
      }
    } else {
      ReadValue(node, path, {message, field});
    }
  }

  void ReadMap(const YAML::Node& node, const std::string& path, const FieldDescriptor* field,
               Message* message) {
    if (!node.IsMap()) {
      Add(node, path, absl::StrCat("must be a mapping, is ", DescribeNode(node)));
      return;
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        Add(entry.first, path, absl::StrCat("must have words as keys, not ", DescribeNode(entry.first)));
      } else if (!seen.insert(entry.first.Scalar()).second) {
        Add(entry.first, Join(path, entry.first.Scalar()), "is given twice");
      } else {
        ReadMapEntry(entry.first.Scalar(), entry.second, Join(path, entry.first.Scalar()), field, message);
      }
    }
  }

  // Maps of the contract have string keys.
  void ReadMapEntry(const std::string& key, const YAML::Node& value, const std::string& path,
                    const FieldDescriptor* field, Message* message) {
    Message* entry = message->GetReflection()->AddMessage(message, field);
    entry->GetReflection()->SetString(entry, field->message_type()->map_key(), key);
    ReadField(value, path, field->message_type()->map_value(), entry);
  }

  void RemoveMapEntry(const std::string& key, const FieldDescriptor* field, Message* message) {
    const Reflection* reflection = message->GetReflection();
    const FieldDescriptor* key_field = field->message_type()->map_key();
    for (int i = reflection->FieldSize(*message, field) - 1; i >= 0; --i) {
      const Message& entry = reflection->GetRepeatedMessage(*message, field, i);
      if (entry.GetReflection()->GetString(entry, key_field) != key) continue;
      reflection->SwapElements(message, field, i, reflection->FieldSize(*message, field) - 1);
      reflection->RemoveLast(message, field);
    }
  }

  void ReadValue(const YAML::Node& node, const std::string& path, const Target& to) {
    const Reflection* reflection = to.message->GetReflection();
    if (to.field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ReadMessage(node, path,
                  to.field->is_repeated() ? reflection->AddMessage(to.message, to.field)
                                          : reflection->MutableMessage(to.message, to.field));
      return;
    }
    ScalarProblem problem;
    if (!WriteScalar(node, to.field, to.message, &problem))
      Add(node, path, problem.description, problem.nearest);
  }

  // Null, with the violation added, where there is no such field or it is not for files.
  const FieldDescriptor* FindField(const YAML::Node& node, const std::string& name, const std::string& path,
                                   const Descriptor& type) {
    const FieldDescriptor* field = type.FindFieldByName(name);
    const bool outermost = path.empty();
    if (field != nullptr && outermost && IsOutputOnly(*field)) {
      Add(node, Join(path, name), "is set by the service, not by whoever submits");
      return nullptr;
    }
    if (field == nullptr) Add(node, Join(path, name), "unknown field", NearestField(name, type, outermost));
    return field;
  }

  bool IsOutputOnly(const FieldDescriptor& field) const {
    return options_.first_output_only_field > 0 && field.number() >= options_.first_output_only_field;
  }

  // The whole path where a sub-message has exactly this field; else the shortest name that contains the word
  // ("layers" is num_hidden_layers); else the nearest by spelling.
  std::string NearestField(const std::string& name, const Descriptor& type, bool outermost) const {
    std::vector<std::string> names;
    std::string longer;
    for (int i = 0; i < type.field_count(); ++i) {
      const FieldDescriptor& field = *type.field(i);
      if (outermost && IsOutputOnly(field)) continue;
      names.push_back(field.name());
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_map() &&
          field.message_type()->FindFieldByName(name) != nullptr) {
        return absl::StrCat(field.name(), ".", name);
      }
      const bool contains = name.size() >= 3 && field.name().find(name) != std::string::npos;
      if (contains && (longer.empty() || field.name().size() < longer.size())) longer = field.name();
    }
    return longer.empty() ? NearestName(name, names) : longer;
  }

  // Another member of the field's oneof that the message already has.
  const FieldDescriptor* OneofPeer(const Message& message, const FieldDescriptor& field) const {
    const auto* oneof = field.real_containing_oneof();
    if (oneof == nullptr) return nullptr;
    return message.GetReflection()->GetOneofFieldDescriptor(message, oneof);
  }

  void Add(const YAML::Node& node, const std::string& path, const std::string& what,
           const std::string& nearest = "") {
    const std::string where = origin_.empty() ? absl::StrCat("line ", node.Mark().line + 1) : origin_;
    violations_->push_back({path, absl::StrCat(what, " (", where, ")"), nearest});
  }

  const YamlOptions& options_;
  std::vector<Violation>* violations_;
  std::string origin_;
};

// Hears a document, and forgets it.
class Deaf : public YAML::EventHandler {
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
  }
  void OnMapEnd() override {}
};

// The documents in `text`; of more than two only two are counted. YAML::LoadAll would do, but yaml-cpp 0.7
// finds empty documents without end in some texts (",a: b"), and takes memory for each.
int CountDocuments(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  Deaf deaf;
  int count = 0;
  while (count < 2 && parser.HandleNextDocument(deaf)) ++count;
  return count;
}

}  // namespace

absl::Status ParseYaml(const std::string& text, const std::vector<std::string>& assignments,
                       const YamlOptions& options, const char* reason, Message* message) {
  message->Clear();
  std::vector<Violation> violations;
  Walker walker(options, &violations);
  try {
    const int documents = CountDocuments(text);
    const YAML::Node document = YAML::Load(text);  // the first
    if (documents != 1 || document.IsNull()) {
      violations.push_back(
          {"", absl::StrCat("must hold one YAML document, holds ", documents > 1 ? "2 or more" : "0"), ""});
    } else {
      walker.ReadMessage(document, "", message);
    }
  } catch (const YAML::Exception& error) {
    violations.push_back(
        {"", absl::StrCat("is not YAML: ", error.msg, " (line ", error.mark.line + 1, ")"), ""});
  }
  for (const std::string& assignment : assignments) walker.Assign(assignment, message);
  return violations.empty() ? absl::OkStatus() : InvalidInput(reason, violations);
}

}  // namespace seqpar
