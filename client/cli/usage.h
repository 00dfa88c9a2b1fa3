// What is said of a command line that cannot be parsed.
#ifndef SEQPAR_CLIENT_CLI_USAGE_H_
#define SEQPAR_CLIENT_CLI_USAGE_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace seqpar {

// The innermost command that was given: of "local up --slts 4" it is "up".
const CLI::App& InnermostCommand(const CLI::App& app);

// The names of an app's subcommands.
std::vector<std::string> CommandNames(const CLI::App& app);

// The options that may stand at this command: its own, then those of the commands around it.
std::vector<const CLI::Option*> OptionsAt(const CLI::App& command);

// After a failed parse: each word that means nothing where it stands, with the nearest that does, a line
// each;
// "" where the parser's own message says everything.
std::string ExplainUnknownWords(const CLI::App& app);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_USAGE_H_
