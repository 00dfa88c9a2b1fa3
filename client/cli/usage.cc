#include "client/cli/usage.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

std::vector<std::string> LongNames(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : OptionsAt(command)) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

}  // namespace

const CLI::App& InnermostCommand(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return *at;
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

std::vector<const CLI::Option*> OptionsAt(const CLI::App& command) {
  std::vector<const CLI::Option*> options;
  for (const CLI::App* at = &command; at != nullptr; at = at->get_parent()) {
    for (const CLI::Option* option : at->get_options([](const CLI::Option*) { return true; })) {
      if (option->get_positional()) continue;
      // Every command has its own --help; --version is the program's.
      const bool of_this_command_only = option->check_lname("help") || option->check_lname("version");
      if (at == &command || !of_this_command_only) options.push_back(option);
    }
  }
  return options;
}

std::string ExplainUnknownWords(const CLI::App& app) {
  const CLI::App& command = InnermostCommand(app);
  const std::vector<std::string> commands = CommandNames(command);
  std::string text;
  for (const std::string& word : app.remaining(/*recurse=*/true)) {
    if (absl::StartsWith(word, "-")) {
      const std::string name = word.substr(0, word.find('='));
      absl::StrAppend(&text, "seqpar: no option '", name,
                      "'; nearest: ", NearestName(name, LongNames(command)), "\n");
    } else if (!commands.empty()) {
      absl::StrAppend(&text, "seqpar: no command '", word, "'; nearest: ", NearestName(word, commands), "\n");
      break;  // what follows belonged to it
    } else {
      absl::StrAppend(&text, "seqpar: unexpected '", word, "'\n");
    }
  }
  return text;
}

}  // namespace seqpar
