#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/call.h"
#include "client/cli/commands.h"
#include "client/cli/interrupt.h"
#include "client/cli/progress.h"
#include "client/cli/render.h"
#include "client/lib/wait.h"
#include "common/base/clock.h"
#include "common/base/random_id.h"
#include "common/base/status.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

constexpr int kPageSizeMax = 500;

int TerminalColumns(int fd) {
  struct winsize size;
  return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

// Follows the job to its end and prints it. Progress goes to standard error where the answer is JSON.
int Follow(SeqparService& service, const std::string& id, const CliConfig& config, bool events_as_json) {
  ExitOnInterrupt(absl::StrCat("\nseqpar: interrupted; job ", id,
                               " goes on. To follow it again: seqpar watch ", id,
                               "; to end it: seqpar cancel ", id, "\n"));
  const bool json = config.output == OutputFormat::kJson;
  const int fd = json ? STDERR_FILENO : STDOUT_FILENO;
  ProgressPrinter progress(isatty(fd) != 0, TerminalColumns(fd), [json](const std::string& text) {
    std::FILE* to = json ? stderr : stdout;
    std::fputs(text.c_str(), to);
    std::fflush(to);
  });

  WaitOptions options;
  options.wait_seconds = config.wait_seconds;
  options.reconnect_seconds = config.reconnect_seconds;
  WaitHooks hooks;
  hooks.on_change = [&](const v1::Job& job) {
    if (events_as_json) {
      PrintOut(ToJson(job, /*pretty=*/false));
    } else {
      progress.Show(job);
    }
  };
  hooks.on_message = [&](const std::string& text) { progress.Note(absl::StrCat("seqpar: ", text)); };
  hooks.sleep = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
  const absl::StatusOr<v1::Job> job = WaitForJob(service, id, options, Clock::System(), hooks);
  progress.Finish();
  if (!job.ok()) return Fail(job.status(), config);
  if (!json) PrintOut(absl::StrCat("\n", RenderJob(*job)));
  if (json && !events_as_json) PrintOut(ToJson(*job));
  return ExitCodeOf(*job);
}

// Adds the states named; false, with a note, for a word that is none.
bool AddStates(const std::vector<std::string>& names, v1::ListJobsRequest* request) {
  for (const std::string& name : names) {
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    if (!v1::JobState_Parse(absl::StrCat("JOB_STATE_", absl::AsciiStrToUpper(name)), &state)) {
      const std::vector<std::string> known = ShortEnumNames(*v1::JobState_descriptor());
      PrintNote(absl::StrCat("seqpar: --state ", name, ": must be one of ", absl::StrJoin(known, ", "),
                             "; nearest: ", NearestName(absl::AsciiStrToLower(name), known)));
      return false;
    }
    request->add_states(state);
  }
  return true;
}

// REQUIRES: each is key=value.
void AddLabels(const std::vector<std::string>& labels, v1::ListJobsRequest* request) {
  for (const std::string& label : labels) {
    const size_t equals = label.find('=');
    (*request->mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
}

}  // namespace

int RunSubmit(const CliConfig& config) {
  bool usage_error = false;
  absl::StatusOr<v1::Job> job = LoadJob(config, &usage_error);
  if (!job.ok()) {
    PrintError(job.status(), config);
    return usage_error ? kExitUsage : ExitCodeOf(job.status());
  }
  v1::CreateJobRequest request;
  *request.mutable_job() = *std::move(job);
  // An id of our own makes a repeated submit safe: it can be asked again which job it started.
  request.set_request_id(config.request_id.empty() ? absl::StrCat("cli-", RandomHex(16)) : config.request_id);
  request.set_validate_only(config.validate_only);
  const std::unique_ptr<SeqparService> service = Connect(config);
  const absl::StatusOr<v1::Job> created = service->CreateJob(request);
  if (!created.ok()) {
    const absl::StatusCode code = created.status().code();
    if (code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded) {
      PrintNote(absl::StrCat(
          "seqpar: whether the job was accepted is not known; repeat the command with --request-id ",
          request.request_id(), ": that never starts a second one"));
    }
    return Fail(created.status(), config);
  }
  if (config.validate_only) {
    if (config.output == OutputFormat::kJson) PrintOut(ToJson(*created));
    PrintNote("the job is valid; nothing was submitted");
    return kExitOk;
  }
  if (config.wait) {
    PrintNote(absl::StrCat("submitted ", created->id()));
    return Follow(*service, created->id(), config, /*events_as_json=*/false);
  }
  PrintOut(config.output == OutputFormat::kJson ? ToJson(*created) : created->id() + "\n");
  return kExitOk;
}

int RunGet(const CliConfig& config) {
  v1::GetJobRequest request;
  request.set_id(config.job);
  return Answer(Connect(config)->GetJob(request), config, RenderJob);
}

int RunList(const CliConfig& config) {
  v1::ListJobsRequest request;
  if (!AddStates(config.states, &request)) return kExitUsage;
  AddLabels(config.labels, &request);
  const std::unique_ptr<SeqparService> service = Connect(config);
  v1::ListJobsResponse all;
  while (all.jobs_size() < config.limit) {
    request.set_page_size(std::min(config.limit - all.jobs_size(), kPageSizeMax));
    const absl::StatusOr<v1::ListJobsResponse> page = service->ListJobs(request);
    if (!page.ok()) return Fail(page.status(), config);
    all.MergeFrom(*page);
    all.set_next_page_token(page->next_page_token());
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
  }
  return Answer(absl::StatusOr<v1::ListJobsResponse>(std::move(all)), config, RenderJobs);
}

int RunWatch(const CliConfig& config) {
  return Follow(*Connect(config), config.job, config, config.output == OutputFormat::kJson);
}

int RunCancel(const CliConfig& config) {
  v1::CancelJobRequest request;
  request.set_id(config.job);
  const absl::StatusOr<v1::Job> cancelled = Connect(config)->CancelJob(request);
  if (cancelled.ok() && cancelled->state() == v1::JOB_STATE_RUNNING) {
    // Not that it was stopped: it may have come to its end before.
    PrintNote(absl::StrCat("asked to end; to see how it does: seqpar watch ", cancelled->id()));
  }
  return Answer(cancelled, config,
                [](const v1::Job& job) { return absl::StrCat(job.id(), "  ", RenderProgress(job), "\n"); });
}

int RunLogs(const CliConfig& config) {
  v1::GetJobLogsRequest request;
  request.set_id(config.job);
  if (config.rank.has_value()) request.set_rank(*config.rank);
  if (config.attempt.has_value()) request.set_attempt(*config.attempt);
  return Answer(Connect(config)->GetJobLogs(request), config, RenderLogs);
}

int RunNodes(const CliConfig& config) {
  const std::unique_ptr<SeqparService> service = Connect(config);
  v1::ListNodesRequest request;
  v1::ListNodesResponse all;
  do {
    const absl::StatusOr<v1::ListNodesResponse> page = service->ListNodes(request);
    if (!page.ok()) return Fail(page.status(), config);
    all.mutable_nodes()->MergeFrom(page->nodes());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return Answer(absl::StatusOr<v1::ListNodesResponse>(std::move(all)), config, RenderNodes);
}

int RunDrain(const CliConfig& config) {
  v1::DrainNodeRequest request;
  request.set_name(config.node);
  request.set_undo(config.undo);
  return Answer(Connect(config)->DrainNode(request), config, [](const v1::Node& node) {
    v1::ListNodesResponse one;
    *one.add_nodes() = node;
    return RenderNodes(one);
  });
}

int RunBackup(const CliConfig& config) {
  v1::BackupStoreRequest request;
  request.set_name(config.backup);
  return Answer(Connect(config)->BackupStore(request), config,
                [](const v1::BackupStoreResponse& backup) { return absl::StrCat(backup.file(), "\n"); });
}

}  // namespace seqpar
