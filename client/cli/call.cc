#include "client/cli/call.h"

#include "client/cli/job_file.h"

namespace seqpar {

std::unique_ptr<SeqparService> Connect(const CliConfig& config, const std::string& server) {
  ClientOptions options;
  options.server = server;
  options.timeout_seconds = config.timeout_seconds;
  return ConnectService(options);
}

std::unique_ptr<SeqparService> Connect(const CliConfig& config) { return Connect(config, config.server); }

int Fail(const absl::Status& status, const CliConfig& config) {
  PrintError(status, config);
  return ExitCodeOf(status);
}

absl::StatusOr<v1::Job> LoadJob(const CliConfig& config, bool* usage_error) {
  absl::StatusOr<std::string> text = ReadText(config.file);
  *usage_error = !text.ok();
  if (!text.ok()) return text.status();
  return ParseJob(*text, config.assignments);
}

}  // namespace seqpar
