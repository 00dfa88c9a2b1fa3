#include "client/cli/complete.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/completion.h"
#include "client/cli/job_file.h"
#include "client/cli/usage.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;

const CLI::App* FindCommand(const CLI::App& app, const std::string& name) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_name() == name) return sub;
  }
  return nullptr;
}

const CLI::Option* FindOption(const CLI::App& command, const std::string& word) {
  for (const CLI::Option* option : OptionsAt(command)) {
    for (const std::string& name : option->get_lnames())
      if (word == "--" + name) return option;
    for (const std::string& name : option->get_snames())
      if (word == "-" + name) return option;
  }
  return nullptr;
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// "config.hidden_size=", ... of everything that a job file may say.
void AddFields(const Descriptor& type, const std::string& prefix, std::vector<std::string>* fields) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (prefix.empty() && field.number() >= kFirstOutputOnlyField) continue;
    const std::string name = absl::StrCat(prefix, field.name());
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_map()) {
      AddFields(*field.message_type(), name + ".", fields);
    } else {
      fields->push_back(name + (field.is_map() ? "." : "="));
    }
  }
}

// "mask.kind=" -> "mask.kind=full", ...
std::vector<std::string> EnumValues(const std::string& assignment) {
  const std::string path = assignment.substr(0, assignment.find('='));
  const Descriptor* type = v1::Job::descriptor();
  const FieldDescriptor* field = nullptr;
  for (size_t begin = 0; type != nullptr && begin <= path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    field = type->FindFieldByName(path.substr(begin, dot - begin));
    type = field == nullptr ? nullptr : field->message_type();
    begin = dot + 1;
  }
  std::vector<std::string> values;
  if (field == nullptr || field->enum_type() == nullptr) return values;
  for (const std::string& name : ShortEnumNames(*field->enum_type())) {
    values.push_back(absl::StrCat(path, "=", name));
  }
  return values;
}

Completions ValuesOf(const CLI::Option& option, const std::string& begun) {
  const auto is = [&](const char* name) { return option.check_lname(name); };
  Completions found;
  if (is("output")) {
    found.words = {"table", "json"};
  } else if (is("state") && option.get_items_expected_max() > 1) {  // of list; that of local is a folder
    found.words = ShortEnumNames(*v1::JobState_descriptor());
  } else if (is("set")) {
    if (absl::StrContains(begun, "=")) {
      found.words = EnumValues(begun);
    } else {
      AddFields(*v1::Job::descriptor(), "", &found.words);
    }
  } else {
    found.files = is("file") || is("cluster") || is("data") || is("write") || is("state") || is("out");
  }
  return found;
}

Completions Positional(const CLI::App& command, const LiveNames& live) {
  Completions found;
  for (const CLI::Option* option : command.get_options([](const CLI::Option*) { return true; })) {
    if (!option->get_positional()) continue;
    const std::string name = option->get_name(/*positional=*/true);
    if (name == "job") found.words = live.jobs();
    if (name == "node") found.words = live.nodes();
    if (name == "shell") found.words = CompletionShells();
    found.files = name == "file";
  }
  return found;
}

Completions Unfiltered(const CLI::App& app, const std::vector<std::string>& words, const LiveNames& live) {
  const CLI::App* command = &app;
  const CLI::Option* awaiting = nullptr;  // the option whose value comes next
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (awaiting != nullptr) {
      awaiting = nullptr;
    } else if (absl::StartsWith(words[i], "-")) {
      const CLI::Option* option = FindOption(*command, words[i]);
      if (option != nullptr && TakesValue(*option)) awaiting = option;
    } else if (const CLI::App* sub = FindCommand(*command, words[i])) {
      command = sub;
    }
  }
  const std::string begun = words.empty() ? "" : words.back();
  if (awaiting != nullptr) return ValuesOf(*awaiting, begun);
  Completions found;
  if (absl::StartsWith(begun, "-")) {
    for (const CLI::Option* option : OptionsAt(*command)) {
      for (const std::string& name : option->get_lnames()) found.words.push_back("--" + name);
    }
    return found;
  }
  found = Positional(*command, live);
  for (const std::string& name : CommandNames(*command)) found.words.push_back(name);
  if (found.words.empty() && !found.files) {
    for (const CLI::Option* option : OptionsAt(*command)) {
      if (option->get_lnames().empty()) continue;
      found.words.push_back("--" + option->get_lnames().front());
    }
  }
  return found;
}

}  // namespace

Completions Complete(const CLI::App& app, const std::vector<std::string>& words, const LiveNames& live) {
  Completions found = Unfiltered(app, words, live);
  const std::string begun = words.empty() ? "" : words.back();
  std::vector<std::string> fitting;
  for (std::string& word : found.words) {
    if (absl::StartsWith(word, begun)) fitting.push_back(std::move(word));
  }
  found.words = std::move(fitting);
  return found;
}

}  // namespace seqpar
