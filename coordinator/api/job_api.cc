#include "coordinator/api/job_api.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/failpoints.h"
#include "common/base/random_id.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/api/answers.h"
#include "coordinator/api/page_token.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/validate/validate.h"

namespace seqpar {
namespace {

constexpr size_t kRequestIdMax = 128;
constexpr size_t kUnreadMax = 512;  // bytes of one violation that a client has found itself
constexpr int kRowsAtOnce = 500;
constexpr int64_t kTracePageBytes = 1 << 20;
constexpr size_t kListPageBytes = 2 << 20;  // a job with a million documents has half of it
constexpr auto kLogsTimeout = std::chrono::seconds(3);

// The same bytes for the same message: maps are written in order.
std::string Canonical(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

// Tells `observer` (null: nobody) how long it lived.
class PhaseTimer {
 public:
  PhaseTimer(EngineObserver* observer, JobPhase phase)
      : observer_(observer), phase_(phase), begin_(std::chrono::steady_clock::now()) {}
  ~PhaseTimer() {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_;
    if (observer_ != nullptr) observer_->RequestPassed(phase_, seconds.count());
  }

 private:
  EngineObserver* const observer_;
  const JobPhase phase_;
  const std::chrono::steady_clock::time_point begin_;
};

// NOT_FOUND where the job's attempts, as far as there are any, have no such attempt or rank.
absl::Status CheckLogsQuery(const v1::GetJobLogsRequest& request, const v1::Job& job) {
  int ranks = 0;
  int attempts = 0;
  for (const v1::AttemptInfo& attempt : job.attempts()) {
    attempts = std::max(attempts, attempt.attempt());
    if (!request.has_attempt() || attempt.attempt() == request.attempt()) {
      ranks = std::max(ranks, attempt.devices_size());
    }
  }
  if (attempts == 0) return absl::OkStatus();
  if (request.has_attempt() && (request.attempt() < 1 || request.attempt() > attempts)) {
    return NotFound("attempt", absl::StrCat(request.attempt(), " of ", job.id(), ": it had 1 to ", attempts));
  }
  if (request.has_rank() && ranks > 0 && (request.rank() < 0 || request.rank() >= ranks)) {
    return NotFound("rank", absl::StrCat(request.rank(), " of ", job.id(), ": it had 0 to ", ranks - 1));
  }
  return absl::OkStatus();
}

// The key under which the store keeps a request: one tenant's never meets another's, nor that of a caller
// without a tenant. A tenant's name has no slash.
std::string KeyOf(const std::string& tenant, const std::string& request_id) {
  return absl::StrCat(tenant, "/", request_id);
}

// What an answer to `request` depends on, but for the page.
std::string QueryOf(v1::ListJobsRequest request) {
  request.clear_page_size();
  request.clear_page_token();
  return Canonical(request);
}

absl::StatusOr<std::vector<int>> StatesOf(const v1::ListJobsRequest& request) {
  std::vector<int> states;
  for (int i = 0; i < request.states_size(); ++i) {
    const auto state = static_cast<v1::JobState>(request.states(i));
    if (state == v1::JOB_STATE_UNSPECIFIED || !v1::JobState_IsValid(state)) {
      return InvalidInput(
          reason::kInvalidArgument,
          {{absl::StrCat("states[", i, "]"), absl::StrCat("is ", request.states(i), ", which is no state"),
            "JOB_STATE_PENDING"}});
    }
    states.push_back(static_cast<int>(StateFromProto(state)));
  }
  return states;
}

template <typename Labels>
bool HasLabels(const v1::Job& job, const Labels& wanted) {
  for (const auto& [name, value] : wanted) {
    const auto found = job.labels().find(name);
    if (found == job.labels().end() || found->second != value) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::optional<v1::Job>> JobApi::FindRepeated(const std::string& key,
                                                            const std::string& request) {
  SEQPAR_ASSIGN_OR_RETURN(const std::optional<JobRow> row, store_->FindByRequestId(key));
  if (!row) return std::optional<v1::Job>();
  if (row->request != request) {
    return MakeError(absl::StatusCode::kAlreadyExists, reason::kRequestIdReused,
                     absl::StrCat("this request_id has started ", row->id, " with another job"));
  }
  if (std::optional<v1::Job> live = engine_->ViewLive(row->id)) return live;
  SEQPAR_ASSIGN_OR_RETURN(v1::Job view, ViewOfRow(*row));
  return std::optional<v1::Job>(std::move(view));
}

absl::StatusOr<bool> JobApi::CheckFits(const std::string& tenant, const JobSpec& spec) {
  const TenantLimits& limits = engine_->LimitsOf(tenant);
  SEQPAR_RETURN_IF_ERROR(CheckDemand(tenant, limits, DemandOf(spec)));
  const auto [cluster, calibration] = engine_->Cluster();
  if (CountDevices(*cluster, false) == 0) return false;  // not known before a node attaches
  PlanOptions options;
  options.first_that_fits = true;
  const absl::Status planned =
      hooks_.plan(WithDevices(spec, limits.devices), *cluster, calibration, options).status();
  if (!planned.ok() && !absl::IsUnavailable(planned)) return planned;
  return true;
}

absl::StatusOr<v1::Job> JobApi::CreateJob(const Caller& caller, const v1::CreateJobRequest& request) {
  const std::string bytes = Canonical(request.job());
  const std::string key = KeyOf(caller.tenant, request.request_id());
  const bool may_repeat =
      !request.request_id().empty() && !request.validate_only() && request.unread().empty();
  if (may_repeat) {
    // Before validation: the job may have been valid then and its output may stand by now.
    SEQPAR_ASSIGN_OR_RETURN(std::optional<v1::Job> repeated, FindRepeated(key, bytes));
    if (repeated) return *std::move(repeated);
  }
  absl::StatusOr<v1::Job> created = CreateNew(caller, request, bytes);
  if (created.ok() || !may_repeat) return created;
  // The same request may have come twice at the same time; then its output may be in use, or stand, by
  // itself.
  SEQPAR_ASSIGN_OR_RETURN(std::optional<v1::Job> repeated, FindRepeated(key, bytes));
  if (repeated) return *std::move(repeated);
  return created;
}

absl::StatusOr<JobRecord> JobApi::Validate(const Caller& caller, const v1::CreateJobRequest& request) {
  const PhaseTimer timer(hooks_.observer, JobPhase::kValidate);
  SEQPAR_RETURN_IF_ERROR(hold_->Wait(JobPhase::kValidate, request.job().name()));
  SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.validate"));
  std::vector<Violation> unread;
  for (const v1::Violation& v : request.unread()) {
    // They go back in trailing metadata, as they came.
    const bool whole = !v.field().empty() && !v.description().empty() &&
                       v.field().size() + v.description().size() + v.nearest().size() <= kUnreadMax;
    unread.push_back(whole ? Violation{v.field(), v.description(), v.nearest()}
                           : Violation{absl::StrCat("unread[", unread.size(), "]"),
                                       absl::StrCat("needs a field and a description, of at most ",
                                                    kUnreadMax, " bytes with its nearest value"),
                                       ""});
  }
  absl::StatusOr<ValidatedJob> valid =
      ValidateJob(request.job(), roots_->ForTenant(caller.tenant), std::move(unread));
  if (request.request_id().size() > kRequestIdMax) {
    std::vector<Violation> violations = ViolationsOf(valid.status());
    violations.push_back({"request_id", absl::StrCat("has more than ", kRequestIdMax, " characters"), ""});
    return InvalidInput(valid.ok() ? reason::kInvalidArgument : reason::kInvalidJob, violations);
  }
  SEQPAR_RETURN_IF_ERROR(valid.status());
  JobRecord record;
  SEQPAR_ASSIGN_OR_RETURN(record.fits, CheckFits(caller.tenant, valid->spec));
  record.tenant = caller.tenant;
  record.spec = std::move(valid->spec);
  record.inputs = std::move(valid->inputs);
  record.ignored_tensors = valid->ignored_tensors;
  return record;
}

absl::StatusOr<v1::Job> JobApi::CreateNew(const Caller& caller, const v1::CreateJobRequest& request,
                                          const std::string& bytes) {
  SEQPAR_ASSIGN_OR_RETURN(JobRecord record, Validate(caller, request));
  if (request.validate_only()) return JobToProto(record.spec);
  const PhaseTimer timer(hooks_.observer, JobPhase::kSubmit);
  SEQPAR_RETURN_IF_ERROR(hold_->Wait(JobPhase::kSubmit, request.job().name()));
  record.id = absl::StrCat("j-", RandomHex(16));
  record.request_id = KeyOf(
      caller.tenant, request.request_id().empty() ? absl::StrCat("r-", RandomHex(32)) : request.request_id());
  record.create_us = clock_->WallMicros();
  SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.submit", {record.id}));
  return engine_->Submit(std::move(record), bytes);
}

absl::StatusOr<v1::Job> JobApi::GetJob(const Caller& caller, const v1::GetJobRequest& request) {
  std::optional<v1::Job> job = engine_->ViewLive(request.id());
  if (!job) {
    SEQPAR_ASSIGN_OR_RETURN(const std::optional<JobRow> row, store_->Get(request.id()));
    if (!row) return NotFound("job", request.id());
    SEQPAR_ASSIGN_OR_RETURN(job, ViewOfRow(*row));
  }
  if (!caller.Sees(job->tenant())) return NotFound("job", request.id());
  return *std::move(job);
}

absl::StatusOr<v1::ListJobsResponse> JobApi::ListJobs(const Caller& caller,
                                                      const v1::ListJobsRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const int page_size, PageSizeOf(request.page_size()));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<int> states, StatesOf(request));
  const std::string query = QueryOf(request);
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!request.page_token().empty()) {
    SEQPAR_ASSIGN_OR_RETURN(const std::string position, ReadPageToken(request.page_token(), query));
    if (!absl::SimpleAtoi(position, &before)) return BadPageToken();
  }
  // One more than a page says whether there is another; who looks for labels may have to look further.
  const int rows_at_once = request.labels().empty() ? page_size + 1 : kRowsAtOnce;
  v1::ListJobsResponse response;
  size_t bytes = 0;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<JobRow> rows,
                            store_->List(before, rows_at_once, states, TenantOf(caller)));
    for (const JobRow& row : rows) {
      SEQPAR_ASSIGN_OR_RETURN(v1::Job job, ViewOfRow(row));
      if (!HasLabels(job, request.labels())) continue;
      if (response.jobs_size() == page_size || bytes >= kListPageBytes) {
        response.set_next_page_token(MakePageToken(absl::StrCat(before), query));
        return response;
      }
      before = row.sequence;
      bytes += row.body.size();
      *response.add_jobs() = std::move(job);
    }
    if (rows.empty()) return response;
    before = rows.back().sequence;
  }
}

absl::StatusOr<v1::Job> JobApi::CancelJob(const Caller& caller, const v1::CancelJobRequest& request) {
  v1::GetJobRequest get;
  get.set_id(request.id());
  SEQPAR_RETURN_IF_ERROR(GetJob(caller, get).status());
  std::optional<v1::Job> live = engine_->Cancel(request.id());
  SEQPAR_RETURN_IF_ERROR(engine_->Health());
  if (live) return *std::move(live);
  return GetJob(caller, get);
}

absl::StatusOr<v1::PlanJobResponse> JobApi::PlanJob(const Caller& caller, const v1::PlanJobRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const ValidatedJob valid,
                          ValidateJob(request.job(), roots_->ForTenant(caller.tenant)));
  auto [cluster, calibration] = engine_->Cluster();
  int64_t devices = engine_->LimitsOf(caller.tenant).devices;
  if (request.has_cluster()) {
    SEQPAR_ASSIGN_OR_RETURN(ClusterSnapshot given, ClusterFromProto(request.cluster()));
    cluster = std::make_shared<ClusterSnapshot>(std::move(given));
    calibration = Calibration();    // learnt on other machines
    devices = TenantLimits::kNone;  // of which the tenant has a share here
  } else {
    SEQPAR_RETURN_IF_ERROR(
        CheckDemand(caller.tenant, engine_->LimitsOf(caller.tenant), DemandOf(valid.spec)));
  }
  PlanOptions options;
  options.all_candidates = request.all_candidates();
  SEQPAR_ASSIGN_OR_RETURN(const PlannedJob planned,
                          hooks_.plan(WithDevices(valid.spec, devices), *cluster, calibration, options));
  v1::PlanJobResponse response;
  *response.mutable_plan() = PlanToProto(planned.plan);
  *response.mutable_explanation() = ExplanationToProto(planned.explanation);
  return response;
}

absl::StatusOr<v1::GetJobLogsResponse> JobApi::GetJobLogs(const Caller& caller,
                                                          const v1::GetJobLogsRequest& request) {
  v1::GetJobRequest get;
  get.set_id(request.id());
  SEQPAR_ASSIGN_OR_RETURN(const v1::Job job, GetJob(caller, get));
  SEQPAR_RETURN_IF_ERROR(CheckLogsQuery(request, job));
  std::optional<int> rank, attempt;
  if (request.has_rank()) rank = request.rank();
  if (request.has_attempt()) attempt = request.attempt();
  return engine_->AskLogs(job, rank, attempt)->Wait(kLogsTimeout);
}

absl::StatusOr<v1::GetJobTraceResponse> JobApi::GetJobTrace(const Caller& caller,
                                                            const v1::GetJobTraceRequest& request) {
  v1::GetJobRequest get;
  get.set_id(request.id());
  SEQPAR_ASSIGN_OR_RETURN(const v1::Job job, GetJob(caller, get));
  const int attempt = request.has_attempt() ? request.attempt() : job.attempt();
  if (request.has_attempt() && (attempt < 1 || attempt > job.attempt())) {
    return NotFound("attempt", absl::StrCat(attempt, " of job ", job.id()));
  }
  const std::string query = absl::StrCat("trace ", job.id(), " ", attempt);
  int rank = -1;
  int64_t number = 0;
  if (!request.page_token().empty()) {
    SEQPAR_ASSIGN_OR_RETURN(const std::string position, ReadPageToken(request.page_token(), query));
    const std::vector<std::string> parts = absl::StrSplit(position, '/');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &rank) || !absl::SimpleAtoi(parts[1], &number)) {
      return BadPageToken();
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<TraceRow> rows,
                          store_->LoadTraces(job.id(), attempt, rank, number, kTracePageBytes));
  v1::GetJobTraceResponse response;
  response.set_attempt(attempt);
  for (const TraceRow& row : rows) {
    if (!response.add_chunks()->ParseFromString(row.chunk)) {
      return MakeError(absl::StatusCode::kInternal, reason::kStorage, "job store: a trace cannot be read");
    }
  }
  if (!rows.empty()) {
    response.set_next_page_token(
        MakePageToken(absl::StrCat(rows.back().rank, "/", rows.back().number), query));
  }
  return response;
}

absl::Status JobApi::WatchJob(const Caller& caller, const v1::WatchJobRequest& request,
                              const std::shared_ptr<Watcher>& watcher) {
  v1::GetJobRequest get;
  get.set_id(request.id());
  SEQPAR_RETURN_IF_ERROR(GetJob(caller, get).status());
  if (engine_->Watch(request.id(), request.revision(), watcher)) return absl::OkStatus();
  SEQPAR_ASSIGN_OR_RETURN(const v1::Job job, GetJob(caller, get));  // it has ended meanwhile
  if (job.revision() > request.revision()) watcher->Offer(job);
  watcher->End(absl::OkStatus());
  return absl::OkStatus();
}

}  // namespace seqpar
