// What each subcommand does. Every function prints its answer and returns the process's exit code.
#ifndef SEQPAR_CLIENT_CLI_COMMANDS_H_
#define SEQPAR_CLIENT_CLI_COMMANDS_H_

#include "client/cli/config.h"

namespace seqpar {

int RunSubmit(const CliConfig& config);
int RunPlan(const CliConfig& config);
int RunGet(const CliConfig& config);
int RunList(const CliConfig& config);
int RunWatch(const CliConfig& config);
int RunCancel(const CliConfig& config);
int RunLogs(const CliConfig& config);
int RunTrace(const CliConfig& config);
int RunNodes(const CliConfig& config);
int RunDrain(const CliConfig& config);
int RunBackup(const CliConfig& config);

int RunLocalUp(const CliConfig& config);
int RunLocalDown(const CliConfig& config);
int RunLocalStatus(const CliConfig& config);
int RunLocalAddress(const CliConfig& config);

int RunExample(const CliConfig& config);
int RunExampleText(const CliConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_COMMANDS_H_
