#include "client/cli/completion.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace seqpar {
namespace {

std::vector<std::string> Words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    words.push_back(sub->get_name());
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    for (const std::string& name : option->get_snames()) words.push_back("-" + name);
  }
  return words;
}

// One case a command: "local up" -> its words, and the global flags, which every subcommand takes too.
void AddCases(const CLI::App& app, const std::string& path, const std::string& global, std::string* cases) {
  absl::StrAppend(cases, "    \"", path, "\") words=\"", absl::StrJoin(Words(app), " "),
                  path.empty() ? "" : " ", path.empty() ? "" : global, "\" ;;\n");
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    AddCases(*sub, path.empty() ? sub->get_name() : absl::StrCat(path, " ", sub->get_name()), global, cases);
  }
}

// Names that may stand where `path` is so far: what the script compares words with.
void AddPaths(const CLI::App& app, const std::string& path, std::vector<std::string>* paths) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string here = path.empty() ? sub->get_name() : absl::StrCat(path, " ", sub->get_name());
    paths->push_back(absl::StrCat("\"", here, "\""));
    AddPaths(*sub, here, paths);
  }
}

}  // namespace

std::string BashCompletion(const CLI::App& app) {
  std::string global;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    for (const std::string& name : option->get_lnames()) {
      if (name != "version" && name != "help")
        absl::StrAppend(&global, global.empty() ? "" : " ", "--", name);
    }
  }
  std::string cases;
  AddCases(app, "", global, &cases);
  std::vector<std::string> paths;
  AddPaths(app, "", &paths);
  return absl::StrCat(R"(# source <(seqpar completion bash)
_seqpar() {
  local current=${COMP_WORDS[COMP_CWORD]} command="" next word words i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    next=${command:+$command }$word
    case "$next" in
      )",
                      absl::StrJoin(paths, " | "), R"() command=$next ;;
    esac
  done
  case "$command" in
)",
                      cases, R"(  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
}
complete -o filenames -F _seqpar seqpar
)");
}

std::string ZshCompletion(const CLI::App& app) {
  std::string script = BashCompletion(app);
  // zsh has no mapfile; its bashcompinit knows compgen and complete.
  const std::string from_words = "mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")";
  const std::string from_files = "mapfile -t COMPREPLY < <(compgen -f -- \"$current\")";
  script.replace(script.find(from_words), from_words.size(),
                 "COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))");
  script.replace(script.find(from_files), from_files.size(), "COMPREPLY=($(compgen -f -- \"$current\"))");
  script.replace(0, script.find('\n') + 1,
                 "# source <(seqpar completion zsh)\nautoload -U +X compinit bashcompinit && compinit && "
                 "bashcompinit\n");
  return script;
}

}  // namespace seqpar
