// The engine's side of jobs: events to machines, and their actions to effects.
#include <algorithm>
#include <set>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/job/proto.h"
#include "coordinator/commit/staging.h"
#include "coordinator/engine/engine.h"
#include "coordinator/job_machine/checkpoints.h"
#include "coordinator/report/learn.h"
#include "coordinator/report/report.h"

namespace seqpar {
namespace {

CheckpointName CheckpointOf(const JobRecord& record) {
  return {record.checkpoint_attempt, record.checkpoint_layers};
}

// What the ranks of the current attempt are told.
v1::Checkpoints CheckpointsOf(const JobRecord& record, int64_t interval_us) {
  v1::Checkpoints checkpoints;
  const int first_layer = record.attempts.back().first_layer;
  const std::string& target = record.spec.output_file;
  for (const int layers : CheckpointLayers(record.spec, record.plan, first_layer, interval_us)) {
    checkpoints.add_after_layers(layers);
  }
  if (checkpoints.after_layers_size() > 0) {
    checkpoints.set_staging_file(CheckpointBase(target, record.id, record.attempt));
  }
  if (first_layer > 0) {
    checkpoints.set_layers(first_layer);
    checkpoints.set_file(CheckpointPath(target, record.id, {record.checkpoint_attempt, first_layer}));
  }
  return checkpoints;
}

}  // namespace

void Engine::Apply(const std::string& job, const JobEvent& event) {
  const auto found = live_.find(job);
  if (found == live_.end()) {
    return;
  }
  JobRecord& record = found->second;
  const Stage before = record.stage;
  const bool over = record.ended();  // in this batch
  const std::vector<JobAction> actions = Step(&record, event, config_.machine, Time());
  for (const JobAction& action : actions) {
    std::visit([&](const auto& a) { Do(&record, a); }, action);
  }
  Enlist(record);
  if (!over) observer_->JobStepped(record, event);
  if (record.stage == before) return;
  const absl::Status& why = record.ended() ? record.error : record.cause;
  LogInfo("job", {{"job", job},
                  {"attempt", record.attempt},
                  {"phase", PhaseName(record.phase)},
                  {"stage", StageName(record.stage)},
                  {"state", StateName(record.state)},
                  {"why", why.message()}});
  if (!record.HoldsDevices()) {
    registry_.Release(job);
    queue_.Release(record.tenant);
    schedule_ = true;
  }
}

void Engine::Add(JobRecord record) {
  tenants_.Add(record.id, record.tenant, record.output_bytes);
  if (!record.spec.output_file.empty()) targets_[record.spec.output_file] = record.id;
  Enlist(record);
  const std::string id = record.id;
  live_.emplace(id, std::move(record));
}

void Engine::Remove(const std::string& job) {
  const auto found = live_.find(job);
  if (found == live_.end()) return;
  const JobRecord& record = found->second;
  if (const auto target = targets_.find(record.spec.output_file);
      target != targets_.end() && target->second == job) {
    targets_.erase(target);
  }
  queue_.Remove(TurnOf(record));
  tenants_.Remove(job);
  // One that waited may have kept others of its tenant waiting.
  schedule_ = queue_.Release(record.tenant) || schedule_;
  timed_.erase(job);
  due_.Set(job, Alarms::kNever);
  live_.erase(found);
}

int64_t Engine::DueUs(const JobRecord& record) const {
  const Now now = Time();
  int64_t due_us = record.not_before_us > now.boot_us ? record.not_before_us : Alarms::kNever;
  // Deadlines are of the wall clock: where that was set back meanwhile it is too early, and due again.
  if (const int64_t deadline_us = DeadlineUs(record); deadline_us != 0) {
    due_us = std::min(due_us, now.boot_us + std::max<int64_t>(0, deadline_us - now.wall_us));
  }
  return due_us;
}

void Engine::Enlist(const JobRecord& record) {
  const bool queued = record.stage == Stage::kQueued;
  due_.Set(record.id, queued ? DueUs(record) : Alarms::kNever);
  if (queued || record.ended()) {
    timed_.erase(record.id);
  } else {
    timed_.insert(record.id);
  }
  if (queued) {
    queue_.Add(TurnOf(record));
  } else {
    queue_.Remove(TurnOf(record));
  }
  if (record.ended()) {
    tenants_.Remove(record.id);
  } else {
    tenants_.Hold(record.id, record.HoldsDevices() ? static_cast<int64_t>(record.plan.ranks.size()) : 0);
  }
}

std::vector<std::string> Engine::Holders() const {
  std::vector<std::string> holders;
  for (const std::string& job : timed_) {
    if (const auto found = live_.find(job); found != live_.end() && found->second.HoldsDevices()) {
      holders.push_back(job);
    }
  }
  return holders;
}

void Engine::ApplyToHolders(const JobEvent& event) {
  for (const std::string& job : Holders()) Apply(job, event);
}

void Engine::Do(JobRecord* record, const action::Persist& a) {
  Dirty& dirty = dirty_[record->id];
  dirty.record = true;
  dirty.plan = dirty.plan || a.plan;
}

void Engine::Do(JobRecord* record, const action::PersistBlob& a) {
  batch_.blobs.push_back({record->id, record->attempt, a.group, a.rank, record->blobs[a.group][a.rank]});
}

void Engine::Do(JobRecord* record, const action::PersistResult& a) {
  batch_.results.push_back(
      {record->id, record->attempt, a.rank, record->ranks[a.rank].result.SerializeAsString()});
}

void Engine::Do(JobRecord* record, const action::Publish&) {
  // Here and not when it is written: who asks before that sees the new state already.
  record->revision = revisions_.Next();
  dirty_[record->id].publish = true;
}

void Engine::Do(JobRecord* record, const action::PrepareStaging& a) {
  const auto spec = std::make_shared<JobSpec>(record->spec);
  placing_.insert(record->id);
  WorkLater(record->id,
            [this, id = record->id, spec, inputs = record->inputs, attempt = a.attempt,
             from = CheckpointOf(*record)]() -> std::optional<JobEvent> {
              if (!hold_->Wait(JobPhase::kPlace, id).ok()) return std::nullopt;
              absl::Status status = Failpoint("coordinator.place", {id, attempt});
              if (status.ok()) status = CheckInputs(*roots_, inputs);
              const bool gone = from.layers > 0 && !HasCheckpoint(*roots_, *spec, id, from);
              if (attempt > 1) UnlinkCheckpoints(*roots_, *spec, id, attempt, gone ? CheckpointName() : from);
              if (status.ok()) status = PrepareStaging(*roots_, *spec, id, attempt);
              // In one: a job that ends between the two would leave its file, which each took the other to
              // clean.
              Post([this, id, spec, attempt, ready = event::StagingReady{status, gone}] {
                placing_.erase(id);
                if (live_.count(id) != 0) return Apply(id, ready);
                CleanLater(id, *spec, attempt, true);  // ended meanwhile: the file was made for nothing
              });
              return std::nullopt;
            });
}

void Engine::Do(JobRecord* record, const action::UnlinkStaging&) {
  if (placing_.count(record->id) != 0) return;  // its file is being made: cleaned once that is done
  // One attempt more than began: a placement may have made its file already.
  CleanLater(record->id, record->spec, record->NextAttempt(), record->ended());
}

void Engine::CleanLater(const std::string& job, const JobSpec& spec, int attempt, bool ended) {
  Later([this, job, spec, attempt, ended] {
    work_->Run([this, job, spec, attempt, ended] {
      PassFailpoint("coordinator.clean", {job, attempt});
      UnlinkStaging(*roots_, spec, job, attempt);
      if (ended) UnlinkCheckpoints(*roots_, spec, job, attempt, {});
      if (ended) Post([this, job] { batch_.cleaned.push_back(job); });
    });
  });
}

void Engine::Do(JobRecord* record, const action::KeepCheckpoint& a) {
  const CheckpointName name{record->attempt, a.layers};
  WorkLater(record->id, [this, id = record->id, spec = record->spec, name]() -> std::optional<JobEvent> {
    return event::CheckpointKept{name.attempt, name.layers, KeepCheckpoint(*roots_, spec, id, name)};
  });
}

void Engine::Do(JobRecord* record, const action::DropCheckpoints&) {
  WorkLater(record->id,
            [this, id = record->id, spec = record->spec,
             kept = CheckpointOf(*record)]() -> std::optional<JobEvent> {
              PassFailpoint("coordinator.checkpoint.drop", {id, kept.attempt});
              // Of earlier attempts, and this one's that are whole: it may be writing the next.
              DropEarlierCheckpoints(*roots_, spec, id, kept);
              return std::nullopt;
            });
}

v1::GangId Engine::IdOf(const JobRecord& record) const {
  v1::GangId id;
  id.set_term(store_->term());
  id.set_job(record.id);
  id.set_attempt(record.attempt);
  return id;
}

void Engine::Do(JobRecord* record, const action::StartGang& a) {
  std::map<std::string, v1::CoordinatorMessage> messages;
  for (size_t i = 0; i < record->ranks.size(); ++i) {
    const RankRecord& rank = record->ranks[i];
    if ((!a.node.empty() && rank.node != a.node) || rank.state != RankState::kAssigned) continue;
    v1::StartRanks::Placement* placement = messages[rank.node].mutable_start()->add_ranks();
    placement->set_rank(static_cast<int>(i));
    placement->set_device(rank.device);
  }
  const v1::Job job = JobToProto(record->spec);
  const v1::Plan plan = PlanToProto(record->plan);
  for (auto& [node, message] : messages) {
    v1::StartRanks* start = message.mutable_start();
    *start->mutable_gang() = IdOf(*record);
    *start->mutable_job() = job;
    *start->mutable_plan() = plan;
    start->mutable_job()->set_id(record->id);
    if (!record->spec.output_file.empty()) {
      start->set_staging_file(StagingPath(record->spec.output_file, record->id, record->attempt));
    }
    *start->mutable_checkpoints() = CheckpointsOf(*record, config_.machine.checkpoint_interval_us);
    start->set_bootstrap_timeout_ms(config_.machine.bootstrap_timeout_us / 1000);
    SendLater(node, std::move(message));
  }
}

void Engine::Do(JobRecord* record, const action::SendBlobTable& a) {
  v1::CoordinatorMessage message;
  v1::BlobTable* table = message.mutable_blobs();
  *table->mutable_gang() = IdOf(*record);
  table->set_group(a.group);
  for (const auto& [rank, blob] : record->blobs[a.group]) table->add_blobs(blob);
  std::set<std::string> nodes;
  for (const RankRecord& rank : record->ranks) {
    if (a.node.empty() || rank.node == a.node) nodes.insert(rank.node);
  }
  WorkLater(record->id, [this, id = record->id, message, nodes]() -> std::optional<JobEvent> {
    if (!hold_->Wait(JobPhase::kBootstrap, id).ok()) return std::nullopt;
    Post([this, message, nodes] {
      for (const std::string& node : nodes) SendLater(node, message);
    });
    return std::nullopt;
  });
}

void Engine::Do(JobRecord* record, const action::StopGang& a) {
  std::map<std::string, v1::CoordinatorMessage> messages;
  for (size_t i = 0; i < record->ranks.size(); ++i) {
    const RankRecord& rank = record->ranks[i];
    if (rank.gone || (!a.node.empty() && rank.node != a.node)) continue;
    messages[rank.node].mutable_stop()->add_ranks(static_cast<int>(i));
  }
  for (auto& [node, message] : messages) {
    *message.mutable_stop()->mutable_gang() = IdOf(*record);
    *message.mutable_stop()->mutable_reason() = StatusToProto(a.reason);
    SendLater(node, std::move(message));
  }
}

void Engine::Do(JobRecord* record, const action::Merge&) {
  WorkLater(
      record->id,
      [this, id = record->id, spec = record->spec, attempt = record->attempt]() -> std::optional<JobEvent> {
        if (!hold_->Wait(JobPhase::kMerge, id).ok()) return std::nullopt;
        const absl::StatusOr<int64_t> inode = SyncStaging(*roots_, spec, id, attempt);
        return event::Merged{inode.status(), inode.value_or(0)};
      });
}

void Engine::Do(JobRecord* record, const action::Commit&) {
  WorkLater(record->id,
            [this, id = record->id, spec = record->spec, attempt = record->attempt,
             inode = record->staged_inode]() -> std::optional<JobEvent> {
              PassFailpoint("coordinator.commit", {id, attempt});
              return event::Committed{CommitStaging(*roots_, spec, id, attempt, inode)};
            });
}

void Engine::Do(JobRecord* record, const action::Report&) {
  // Fewer layers than were predicted say little about the prediction.
  if (record->report && record->attempts.back().first_layer == 0) {
    calibration_ = Learn(calibration_, record->plan, record->spec.pass, *record->report);
    batch_.settings["calibration"] = CalibrationToText(calibration_);
  }
  WorkLater(record->id, [this, id = record->id]() -> std::optional<JobEvent> {
    if (!hold_->Wait(JobPhase::kReport, id).ok()) return std::nullopt;
    PassFailpoint("coordinator.report", {id});
    return event::Reported{};
  });
}

}  // namespace seqpar
