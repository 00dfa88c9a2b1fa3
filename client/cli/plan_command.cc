#include <chrono>
#include <future>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/call.h"
#include "client/cli/commands.h"
#include "client/cli/coordinator_process.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_file.h"
#include "client/cli/render.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(10);

// An answer of a service has a reason; where nothing answers there is none.
bool NothingAnswers(const absl::Status& status) {
  return absl::IsUnavailable(status) && ReasonOf(status).empty();
}

// For a cluster that is only a file any coordinator will do, so one is started for this question where none
// answers. CANCELLED after Ctrl-C; whatever happens, nothing is left running.
absl::StatusOr<v1::PlanJobResponse> AskPrivately(const v1::PlanJobRequest& request, const CliConfig& config,
                                                 const InterruptLatch& interrupt) {
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<PrivateCoordinator> coordinator,
                          PrivateCoordinator::Start([&] { return interrupt.interrupted(); }));
  const std::unique_ptr<SeqparService> service = ConnectHere(config, coordinator->address());
  std::future<absl::StatusOr<v1::PlanJobResponse>> answer =
      std::async(std::launch::async, [&] { return service->PlanJob(request); });
  while (answer.wait_for(kPoll) != std::future_status::ready) {
    // Without its coordinator the call ends at once.
    if (interrupt.interrupted()) coordinator.reset();
  }
  if (interrupt.interrupted()) return absl::CancelledError("interrupted");
  return answer.get();
}

int PlanPrivately(const v1::PlanJobRequest& request, const CliConfig& config,
                  const absl::Status& unanswered) {
  const InterruptLatch interrupt;
  const absl::StatusOr<v1::PlanJobResponse> answer = AskPrivately(request, config, interrupt);
  if (interrupt.interrupted()) return kExitInterrupted;
  if (absl::IsNotFound(answer.status()) && ReasonOf(answer.status()).empty()) {
    // No binary to start: what the user can mend is the server, too.
    return Fail(Annotate(unanswered, std::string(answer.status().message())), config);
  }
  return Answer(answer, config, RenderPlan);
}

}  // namespace

int RunPlan(const CliConfig& config) {
  bool usage_error = false;
  absl::StatusOr<v1::Job> job = LoadJob(config, &usage_error);
  if (!job.ok()) {
    PrintError(job.status(), config);
    return usage_error ? kExitUsage : ExitCodeOf(job.status());
  }
  v1::PlanJobRequest request;
  *request.mutable_job() = *std::move(job);
  request.set_all_candidates(config.output == OutputFormat::kJson);
  if (!config.cluster_file.empty()) {
    const absl::StatusOr<std::string> text = ReadText(config.cluster_file);
    if (!text.ok()) {
      PrintError(text.status(), config);
      return kExitUsage;
    }
    absl::StatusOr<v1::Cluster> cluster = ParseCluster(*text);
    if (!cluster.ok()) return Fail(OfFile(cluster.status(), config.cluster_file, /*every=*/true), config);
    *request.mutable_cluster() = *std::move(cluster);
  }
  const absl::StatusOr<v1::PlanJobResponse> answer = Connect(config)->PlanJob(request);
  if (request.has_cluster() && NothingAnswers(answer.status())) {
    return PlanPrivately(request, config, answer.status());
  }
  return Answer(answer, config, RenderPlan);
}

}  // namespace seqpar
