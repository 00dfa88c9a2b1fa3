// What the commands that ask the service have in common.
#ifndef SEQPAR_CLIENT_CLI_CALL_H_
#define SEQPAR_CLIENT_CLI_CALL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/config.h"
#include "client/cli/exit_codes.h"
#include "client/cli/output.h"
#include "client/lib/client.h"

namespace seqpar {

// The service that the flags name.
std::unique_ptr<SeqparService> Connect(const CliConfig& config);
// One that a command started on this machine's loopback: in the clear, and no token goes there.
std::unique_ptr<SeqparService> ConnectHere(const CliConfig& config, const std::string& server);

// Prints the error and returns its exit code.
int Fail(const absl::Status& status, const CliConfig& config);

// The job in --file with every --set. Where it is wrong in its form, the service is asked about the rest of
// it, if it can be reached, so that one answer holds everything. A file that cannot be read is a mistake on
// the command line, not an answer of the service: `usage_error` says so.
absl::StatusOr<v1::Job> LoadJob(const CliConfig& config, bool* usage_error);

// Prints the answer as JSON, or rendered for people.
template <typename Message, typename Render>
int Answer(const absl::StatusOr<Message>& answer, const CliConfig& config, Render render) {
  if (!answer.ok()) return Fail(answer.status(), config);
  PrintOut(config.output == OutputFormat::kJson ? ToJson(*answer) : render(*answer));
  return kExitOk;
}

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_CALL_H_
