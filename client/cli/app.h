// The command line: subcommands, flags, help.
#ifndef SEQPAR_CLIENT_CLI_APP_H_
#define SEQPAR_CLIENT_CLI_APP_H_

#include <CLI/CLI.hpp>
#include <memory>

#include "client/cli/config.h"

namespace seqpar {

// Every subcommand and flag, bound to `config`, which must outlive the result.
std::unique_ptr<CLI::App> MakeApp(CliConfig* config);

// Parses, runs, and returns the exit code (exit_codes.h).
int RunApp(int argc, char** argv);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_APP_H_
