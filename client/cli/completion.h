// Shell completion, made from the command line itself so that it cannot fall behind.
#ifndef SEQPAR_CLIENT_CLI_COMPLETION_H_
#define SEQPAR_CLIENT_CLI_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>

namespace seqpar {

// A script to be sourced: subcommands, then flags of the subcommand at hand; files where neither fits.
std::string BashCompletion(const CLI::App& app);
// The same script behind zsh's bashcompinit.
std::string ZshCompletion(const CLI::App& app);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_COMPLETION_H_
