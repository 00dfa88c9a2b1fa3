#include "client/cli/call.h"

#include <algorithm>
#include <optional>

#include "client/cli/job_file.h"

namespace seqpar {

namespace {

// The answer is only better by what it may add.
constexpr double kRestSeconds = 5;

ClientOptions OptionsOf(const CliConfig& config) {
  ClientOptions options;
  options.server = config.server;
  options.timeout_seconds = config.timeout_seconds;
  return options;
}

}  // namespace

std::unique_ptr<SeqparService> Connect(const CliConfig& config) {
  ClientOptions options = OptionsOf(config);
  options.tls = config.tls;
  return ConnectService(options);
}

std::unique_ptr<SeqparService> ConnectHere(const CliConfig& config, const std::string& server) {
  ClientOptions options = OptionsOf(config);
  options.server = server;
  return ConnectService(options);
}

int Fail(const absl::Status& status, const CliConfig& config) {
  PrintError(status, config);
  return ExitCodeOf(status);
}

absl::StatusOr<v1::Job> LoadJob(const CliConfig& config, bool* usage_error) {
  absl::StatusOr<std::string> text = ReadText(config.file);
  *usage_error = !text.ok();
  if (!text.ok()) return text.status();
  v1::Job job;
  const absl::Status parsed = ParseJob(*text, config.assignments, &job);
  if (parsed.ok()) return job;
  const std::optional<v1::CreateJobRequest> rest = AskAboutTheRest(job, parsed);
  if (!rest) return OfFile(parsed, config.file, /*every=*/false);
  CliConfig asking = config;
  asking.timeout_seconds = std::min(config.timeout_seconds, kRestSeconds);
  return WholeRefusal(parsed, Connect(asking)->CreateJob(*rest).status());
}

}  // namespace seqpar
