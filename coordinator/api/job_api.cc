#include "coordinator/api/job_api.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/random_id.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/validate/validate.h"

namespace seqpar {
namespace {

constexpr size_t kRequestIdMax = 128;
constexpr int kPageDefault = 50;
constexpr int kPageMax = 500;
constexpr auto kLogsTimeout = std::chrono::seconds(3);

// The same bytes for the same message: maps are written in order.
std::string Canonical(const v1::Job& job) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  job.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

absl::Status NotFound(const char* what, const std::string& id) {
  return MakeError(absl::StatusCode::kNotFound, reason::kNotFound,
                   absl::StrCat("there is no ", what, " ", id));
}

absl::StatusOr<int> PageSize(int asked) {
  if (asked < 0) {
    return InvalidInput(reason::kInvalidArgument, {{"page_size", "is negative", absl::StrCat(kPageDefault)}});
  }
  return asked == 0 ? kPageDefault : std::min(asked, kPageMax);
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

absl::StatusOr<std::optional<v1::Job>> JobApi::FindRepeated(const std::string& request_id,
                                                            const std::string& request) {
  SEQPAR_ASSIGN_OR_RETURN(const std::optional<JobRow> row, store_->FindByRequestId(request_id));
  if (!row) return std::optional<v1::Job>();
  if (row->request != request) {
    return MakeError(absl::StatusCode::kAlreadyExists, reason::kRequestIdReused,
                     absl::StrCat("request_id ", request_id, " has started ", row->id, " with another job"));
  }
  if (std::optional<v1::Job> live = engine_->ViewLive(row->id)) return live;
  SEQPAR_ASSIGN_OR_RETURN(v1::Job view, ViewOfRow(*row));
  return std::optional<v1::Job>(std::move(view));
}

absl::Status JobApi::CheckFits(const JobSpec& spec) {
  auto [cluster, calibration] = engine_->Cluster();
  if (CountDevices(cluster, false) == 0) return absl::OkStatus();  // not known before a node attaches
  const absl::Status planned = seqpar::PlanJob(spec, cluster, calibration, {}).status();
  return absl::IsUnavailable(planned) ? absl::OkStatus() : planned;
}

absl::StatusOr<v1::Job> JobApi::CreateJob(const v1::CreateJobRequest& request) {
  std::string request_id = request.request_id();
  if (request_id.size() > kRequestIdMax) {
    return InvalidInput(reason::kInvalidArgument, {{"request_id", "has more than 128 characters", ""}});
  }
  const std::string bytes = Canonical(request.job());
  if (!request_id.empty() && !request.validate_only()) {
    // Before validation: the job may have been valid then and its output may stand by now.
    SEQPAR_ASSIGN_OR_RETURN(std::optional<v1::Job> repeated, FindRepeated(request_id, bytes));
    if (repeated) return *std::move(repeated);
  }
  SEQPAR_RETURN_IF_ERROR(hold_->Wait(JobPhase::kValidate, request.job().name()));
  SEQPAR_ASSIGN_OR_RETURN(ValidatedJob valid, ValidateJob(request.job(), *roots_));
  SEQPAR_RETURN_IF_ERROR(CheckFits(valid.spec));
  if (request.validate_only()) return JobToProto(valid.spec);
  SEQPAR_RETURN_IF_ERROR(hold_->Wait(JobPhase::kSubmit, request.job().name()));
  if (request_id.empty()) request_id = absl::StrCat("r-", RandomHex(32));
  JobRecord record;
  record.id = absl::StrCat("j-", RandomHex(16));
  record.request_id = request_id;
  record.spec = std::move(valid.spec);
  record.inputs = std::move(valid.inputs);
  record.create_us = clock_->WallMicros();
  absl::StatusOr<v1::Job> job = engine_->Submit(std::move(record), bytes);
  if (job.ok()) return job;
  // The same request may have come twice at the same time; then its output is in use by itself, too.
  SEQPAR_ASSIGN_OR_RETURN(std::optional<v1::Job> repeated, FindRepeated(request_id, bytes));
  if (repeated) return *std::move(repeated);
  return job.status();
}

absl::StatusOr<v1::Job> JobApi::GetJob(const v1::GetJobRequest& request) {
  if (std::optional<v1::Job> live = engine_->ViewLive(request.id())) return *std::move(live);
  SEQPAR_ASSIGN_OR_RETURN(const std::optional<JobRow> row, store_->Get(request.id()));
  if (!row) return NotFound("job", request.id());
  return ViewOfRow(*row);
}

absl::StatusOr<v1::ListJobsResponse> JobApi::ListJobs(const v1::ListJobsRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const int page_size, PageSize(request.page_size()));
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!request.page_token().empty() && !absl::SimpleHexAtoi(request.page_token(), &before)) {
    return InvalidInput(reason::kInvalidArgument,
                        {{"page_token", "is not one that this service gave out", ""}});
  }
  std::vector<int> states;
  for (const int state : request.states()) {
    if (state != v1::JOB_STATE_UNSPECIFIED) {
      states.push_back(static_cast<int>(StateFromProto(static_cast<v1::JobState>(state))));
    }
  }
  v1::ListJobsResponse response;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<JobRow> rows, store_->List(before, kPageMax, states));
    for (const JobRow& row : rows) {
      SEQPAR_ASSIGN_OR_RETURN(v1::Job job, ViewOfRow(row));
      if (!HasLabels(job, request.labels())) continue;
      if (response.jobs_size() == page_size) {
        response.set_next_page_token(absl::StrCat(absl::Hex(before)));
        return response;
      }
      before = row.sequence;
      *response.add_jobs() = std::move(job);
    }
    if (rows.size() < kPageMax) return response;
    before = rows.back().sequence;
  }
}

absl::StatusOr<v1::Job> JobApi::CancelJob(const v1::CancelJobRequest& request) {
  std::optional<v1::Job> live = engine_->Cancel(request.id());
  SEQPAR_RETURN_IF_ERROR(engine_->Health());
  if (live) return *std::move(live);
  v1::GetJobRequest get;
  get.set_id(request.id());
  return GetJob(get);
}

absl::StatusOr<v1::PlanJobResponse> JobApi::PlanJob(const v1::PlanJobRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const ValidatedJob valid, ValidateJob(request.job(), *roots_));
  auto [cluster, calibration] = engine_->Cluster();
  if (request.has_cluster()) {
    SEQPAR_ASSIGN_OR_RETURN(cluster, ClusterFromProto(request.cluster()));
    calibration = Calibration();  // learnt on other machines
  }
  PlanOptions options;
  options.all_candidates = request.all_candidates();
  SEQPAR_ASSIGN_OR_RETURN(const PlannedJob planned,
                          seqpar::PlanJob(valid.spec, cluster, calibration, options));
  v1::PlanJobResponse response;
  *response.mutable_plan() = PlanToProto(planned.plan);
  *response.mutable_explanation() = ExplanationToProto(planned.explanation);
  return response;
}

absl::StatusOr<v1::GetJobLogsResponse> JobApi::GetJobLogs(const v1::GetJobLogsRequest& request) {
  v1::GetJobRequest get;
  get.set_id(request.id());
  SEQPAR_RETURN_IF_ERROR(GetJob(get).status());
  std::optional<int> rank, attempt;
  if (request.has_rank()) rank = request.rank();
  if (request.has_attempt()) attempt = request.attempt();
  return engine_->AskLogs(request.id(), rank, attempt)->Wait(kLogsTimeout);
}

absl::Status JobApi::WatchJob(const v1::WatchJobRequest& request, const std::shared_ptr<Watcher>& watcher) {
  if (engine_->Watch(request.id(), request.revision(), watcher)) return absl::OkStatus();
  SEQPAR_ASSIGN_OR_RETURN(const std::optional<JobRow> row, store_->Get(request.id()));
  if (!row) return NotFound("job", request.id());
  SEQPAR_ASSIGN_OR_RETURN(const v1::Job job, ViewOfRow(*row));
  if (job.revision() > request.revision()) watcher->Offer(job);
  watcher->End(absl::OkStatus());
  return absl::OkStatus();
}

absl::StatusOr<v1::ListNodesResponse> JobApi::ListNodes(const v1::ListNodesRequest& request) {
  SEQPAR_ASSIGN_OR_RETURN(const int page_size, PageSize(request.page_size()));
  v1::ListNodesResponse response;
  for (v1::Node& node : engine_->Nodes()) {
    // By name; the token is the last name given.
    if (node.name() <= request.page_token()) continue;
    if (response.nodes_size() == page_size) {
      response.set_next_page_token(response.nodes(page_size - 1).name());
      break;
    }
    *response.add_nodes() = std::move(node);
  }
  return response;
}

absl::StatusOr<v1::Node> JobApi::GetNode(const v1::GetNodeRequest& request) {
  for (v1::Node& node : engine_->Nodes()) {
    if (node.name() == request.name()) return std::move(node);
  }
  return NotFound("node", request.name());
}

}  // namespace seqpar
