// The engine's side of clients: what they ask and submit.
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/error_info.h"
#include "common/base/log.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/record_codec.h"

namespace seqpar {
namespace {

// When those who are refused may try again: about what it takes until something has changed.
constexpr int kRetryQueueSeconds = 5, kRetryDiskSeconds = 30;

}  // namespace

absl::Status Engine::Admission() const {
  SEQPAR_RETURN_IF_ERROR(Health());
  if (!store_->has_reserve()) {
    return WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage,
                               "the disk of the job store is full: no new jobs until there is room"),
                     kRetryDiskSeconds);
  }
  if (live_.size() >= config_.max_live_jobs) {
    const absl::Status refused = MakeError(
        absl::StatusCode::kResourceExhausted, reason::kTooManyJobs,
        absl::StrCat(live_.size(), " jobs have not ended, of ", config_.max_live_jobs, " that there may be"));
    return WithRetry(
        WithMetadata(refused, {{"limit", "jobs"}, {"value", absl::StrCat(config_.max_live_jobs)}}),
        kRetryQueueSeconds);
  }
  return absl::OkStatus();
}

absl::Status Engine::Admission(const JobRecord& record) const {
  SEQPAR_RETURN_IF_ERROR(Admission());
  JobDemand demand;
  demand.output_bytes = record.output_bytes;
  SEQPAR_RETURN_IF_ERROR(
      CheckRoom(record.tenant, LimitsOf(record.tenant), tenants_.Of(record.tenant), demand));
  const std::string& target = record.spec.output_file;
  const auto other = targets_.find(target);
  if (other == targets_.end()) return absl::OkStatus();
  const std::string owner = CallFor(record.tenant, other->second, live_.at(other->second).tenant);
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kOutputInUse,
                   absl::StrCat(target, " is the output of ", owner, ", which has not ended"));
}

std::optional<std::string> Engine::WaitsBehind(const Turn& turn) const {
  if (const Turn* first = queue_.FirstHeld(turn.tenant); first != nullptr && *first < turn) {
    return absl::StrCat("waits behind ", first->job, " of its tenant, which has all that it may have");
  }
  if (queue_.IsAmongFirst(turn, kPassJobs)) return std::nullopt;
  return absl::StrCat("waits for its turn: at least ", kPassJobs, " jobs are before it");
}

absl::StatusOr<v1::Job> Engine::Submit(JobRecord record, const std::string& request) {
  // Here and not in the engine's thread, which answers heartbeats: it lays out every tensor of the output.
  record.output_bytes = DemandOf(record.spec).output_bytes;
  // Shared: it is being set still when whoever waits for it goes on.
  const auto promise = std::make_shared<std::promise<absl::StatusOr<v1::Job>>>();
  auto future = promise->get_future();
  Post([this, promise, &record, &request] {
    // Known when the batch has been written.
    const auto outcome = std::make_shared<absl::Status>(Admission(record));
    v1::Job view;
    if (outcome->ok()) {
      record.sequence = store_->NewSequence();
      Step(&record, event::Submitted{}, config_.machine, Time());
      if (const std::optional<std::string> behind = WaitsBehind(TurnOf(record))) {
        Step(&record, event::Waits{*behind}, config_.machine, Time());
      } else {
        schedule_ = true;
      }
      record.revision = revisions_.Next();
      JobRow row = RowOf(record, Time().boot_us);
      row.request = request;
      batch_.inserts.push_back(std::move(row));
      inserted_[record.id] = outcome;
      LogInfo("job submitted", {{"job", record.id}, {"name", record.spec.name}, {"phase", "submit"}});
      view = ViewOf(record, Time().boot_us);
      Add(std::move(record));
    }
    Later([this, promise, outcome, view = std::move(view)] {
      if (outcome->ok()) {
        if (const auto job = live_.find(view.id()); job != live_.end()) observer_->JobSubmitted(job->second);
        promise->set_value(view);
      } else {
        promise->set_value(*outcome);
      }
    });
  });
  return future.get();
}

std::optional<v1::Job> Engine::ViewLive(const std::string& id) {
  return Call<std::optional<v1::Job>>([this, id]() -> std::optional<v1::Job> {
    const auto found = live_.find(id);
    if (found == live_.end()) return std::nullopt;
    return ViewOf(found->second, Time().boot_us);
  });
}

std::optional<v1::Job> Engine::Cancel(const std::string& id) {
  return Call<std::optional<v1::Job>>([this, id]() -> std::optional<v1::Job> {
    const auto found = live_.find(id);
    if (found == live_.end()) return std::nullopt;
    LogInfo("cancel requested", {{"job", id}, {"phase", PhaseName(found->second.phase)}});
    Apply(id, event::CancelRequested{});
    return ViewOf(found->second, Time().boot_us);
  });
}

bool Engine::Watch(const std::string& id, int64_t revision, const std::shared_ptr<Watcher>& watcher) {
  return Call<bool>([this, id, revision, watcher] {
    const auto found = live_.find(id);
    if (found == live_.end()) return false;
    watchers_.Add(id, watcher);
    // What is about to be published is not to be seen before it is written, and not twice.
    const auto dirty = dirty_.find(id);
    const bool soon = dirty != dirty_.end() && dirty->second.publish;
    if (!soon && found->second.revision > revision) watcher->Offer(ViewOf(found->second, Time().boot_us));
    return true;
  });
}

std::pair<std::shared_ptr<const ClusterSnapshot>, Calibration> Engine::Cluster() {
  return Call<std::pair<std::shared_ptr<const ClusterSnapshot>, Calibration>>(
      [this] { return std::make_pair(registry_.Snapshot(), calibration_); });
}

std::vector<v1::Node> Engine::Nodes(const std::optional<std::string>& tenant) {
  return Call<std::vector<v1::Node>>([this, tenant] {
    std::vector<v1::Node> nodes;
    for (const auto& [name, node] : registry_.nodes()) {
      if (!node.known() && !node.drained) continue;
      const int64_t left_us = leases_.Left(name, Time().boot_us).value_or(0);
      nodes.push_back(NodeRegistry::ToProto(name, node, static_cast<double>(left_us) / 1e6));
      if (tenant) HideOthers(*tenant, &nodes.back());
    }
    registry_.AddLinks(&nodes);
    return nodes;
  });
}

void Engine::HideOthers(const std::string& tenant, v1::Node* node) const {
  for (v1::NodeDevice& device : *node->mutable_devices()) {
    const auto found = live_.find(device.job());
    if (device.job().empty() || (found != live_.end() && found->second.tenant == tenant)) continue;
    device.set_job("other");
    device.clear_rank();
  }
}

absl::StatusOr<v1::Node> Engine::Drain(const std::string& name, bool undo) {
  return Call<absl::StatusOr<v1::Node>>([this, name, undo]() -> absl::StatusOr<v1::Node> {
    const NodeEntry* node = registry_.Find(name);
    if (node == nullptr || (!node->known() && !node->drained)) {
      return MakeError(absl::StatusCode::kNotFound, reason::kNotFound,
                       absl::StrCat("no node is called ", name));
    }
    registry_.SetDrained(name, !undo);
    batch_.drains[name] = !undo;
    schedule_ = true;
    LogInfo(undo ? "drain undone" : "node drained", {{"node", name}});
    const int64_t left_us = leases_.Left(name, Time().boot_us).value_or(0);
    std::vector<v1::Node> drained = {NodeRegistry::ToProto(name, *node, static_cast<double>(left_us) / 1e6)};
    registry_.AddLinks(&drained);
    return std::move(drained.front());
  });
}

std::shared_ptr<LogCollector> Engine::AskLogs(const v1::Job& job, std::optional<int> rank,
                                              std::optional<int> attempt) {
  return Call<std::shared_ptr<LogCollector>>([this, id = job.id(), holders = HoldersOf(job), rank, attempt] {
    auto collector = std::make_shared<LogCollector>(holders);
    const int64_t query = next_log_query_++;
    log_queries_[query] = {collector, Time().boot_us};
    v1::CoordinatorMessage message;
    message.mutable_logs()->set_query(query);
    message.mutable_logs()->set_job(id);
    if (rank) message.mutable_logs()->set_rank(*rank);
    if (attempt) message.mutable_logs()->set_attempt(*attempt);
    for (const auto& [name, node] : registry_.nodes()) {
      if (node.link == nullptr) continue;
      collector->Expect(name);
      SendLater(name, message);
    }
    return collector;
  });
}

}  // namespace seqpar
