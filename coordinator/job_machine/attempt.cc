// An attempt from its placement to its report: what goes right.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/retry.h"
#include "common/job/proto.h"
#include "coordinator/job_machine/checkpoints.h"
#include "coordinator/job_machine/stepper.h"
#include "coordinator/report/report.h"

namespace seqpar {
namespace {

constexpr size_t kGroupsMax = 64;  // of a rank or a gang: it has a handful

// Whether what a worker gives as the reason for its rank's failure is known here to be so, and none of the
// job's doing: its node was told to stop, and has said so before, since when it gets no ranks; or its lease
// ran out while no coordinator was there to renew it.
bool IsExcused(const RankRecord& rank, const absl::Status& error) {
  const std::string why = ReasonOf(error);
  return (why == reason::kNodeDrained && rank.draining) || (why == reason::kRankLost && rank.unheard);
}

std::vector<RankOutcome> OutcomesOf(const JobRecord& record) {
  std::vector<RankOutcome> outcomes;
  for (const RankRecord& rank : record.ranks) outcomes.push_back({&rank.result, rank.threads});
  return outcomes;
}

}  // namespace

// --- placing ---

void Stepper::On(const event::Placed& e) {
  SEQPAR_CHECK(r_.stage == Stage::kQueued);
  SEQPAR_CHECK(e.devices.size() == e.plan.ranks.size());
  r_.stage = Stage::kPlacing;
  r_.phase = JobPhase::kPlace;
  r_.reason.clear();
  r_.cause = absl::OkStatus();
  r_.consequences.clear();
  r_.broken_by.clear();
  r_.plan = e.plan;
  r_.blobs.clear();
  r_.ranks.assign(e.plan.ranks.size(), RankRecord());
  for (size_t i = 0; i < r_.ranks.size(); ++i) {
    r_.ranks[i].node = e.plan.ranks[i].node;
    r_.ranks[i].device = e.plan.ranks[i].device;
    r_.ranks[i].threads = e.devices[i].threads;
    r_.ranks[i].incarnation = e.devices[i].incarnation;
  }
  actions_.push_back(action::Publish{});
  actions_.push_back(action::PrepareStaging{r_.NextAttempt()});
}

void Stepper::On(const event::StagingReady& e) {
  if (r_.stage != Stage::kPlacing) {
    // The job ended meanwhile.
    actions_.push_back(action::UnlinkStaging{});
    return;
  }
  absl::Status status = e.status;
  if (status.ok() && !r_.broken_by.empty()) {
    if (MayExcuse(r_.broken_by)) return PlaceAgain();
    status = MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                       absl::StrCat("node ", r_.broken_by, " went away once more before its ranks began"));
  }
  r_.attempt = r_.NextAttempt();
  r_.state = JobState::kRunning;
  r_.phase = JobPhase::kBootstrap;
  r_.stage = Stage::kRunning;
  if (r_.start_us == 0) r_.start_us = now_.wall_us;
  r_.attempt_begin_us = now_.boot_us;
  r_.execute_begin_us = r_.pace_begin_us = 0;
  AttemptRecord attempt;
  attempt.attempt = r_.attempt;
  attempt.start_us = now_.wall_us;
  attempt.mesh = r_.plan.mesh.ToString();
  if (e.checkpoint_gone) r_.checkpoint_layers = r_.checkpoint_attempt = 0;
  attempt.first_layer = r_.checkpoint_layers;
  if (!CheckpointLayers(r_.spec, r_.plan, attempt.first_layer, config_.checkpoint_interval_us).empty()) {
    r_.checkpoints = true;
  }
  for (RankRecord& rank : r_.ranks) {
    rank.progress_us = now_.boot_us;
    attempt.devices.push_back(rank.Where());
  }
  r_.attempts.push_back(std::move(attempt));
  if (!status.ok()) {
    // Nothing was started: every rank is as good as gone.
    for (RankRecord& rank : r_.ranks) rank.gone = true;
    r_.phase = JobPhase::kPlace;
    return BeginStop(Annotate(status, "phase place"), true);
  }
  PersistAndPublish(true);
  actions_.push_back(action::StartGang{});
}

void Stepper::PlaceAgain() {
  ++r_.excuses[r_.broken_by];
  r_.stage = Stage::kQueued;
  r_.phase = JobPhase::kPlan;
  r_.reason = absl::StrCat("waits again: node ", r_.broken_by, " of its plan went away before it began");
  r_.ranks.clear();
  actions_.push_back(action::UnlinkStaging{});
  PersistAndPublish();
}

// --- a new process of the coordinator ---

void Stepper::On(const event::Restored&) {
  r_.attempt_begin_us = r_.execute_begin_us = now_.boot_us;
  r_.pace_begin_us = 0;
  r_.not_before_us = 0;
  for (RankRecord& rank : r_.ranks) {
    rank.progress_us = now_.boot_us;
    rank.unheard = true;
  }
  // A cancel is stored with what it led to. A damaged row that has lost that could never be cancelled again.
  const bool may_end =
      r_.stage == Stage::kQueued || r_.stage == Stage::kRunning || r_.stage == Stage::kMerging;
  if (r_.cancel_requested && may_end) return EndEarly(CancelledByUser());
  switch (r_.stage) {
    case Stage::kRunning:
    case Stage::kMerging:
      r_.stage = Stage::kRunning;
      return FinishIfAllHave();
    case Stage::kCommitting:
      RebuildReport().IgnoreError();  // it passed before it was recorded
      actions_.push_back(action::Commit{});
      return;
    case Stage::kReporting:
      RebuildReport().IgnoreError();  // it passed before it was recorded
      actions_.push_back(action::Report{});
      return;
    case Stage::kStopping:
      // The only error that keeps the report.
      if (ReasonOf(r_.cause) == reason::kVerificationFailed) RebuildReport().IgnoreError();
      return;
    case Stage::kQueued:
    case Stage::kPlacing:
    case Stage::kEnded:
      return;
  }
}

// --- what ranks say ---

void Stepper::On(const event::RankStarted& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || rank->state != RankState::kAssigned) return;
  rank->state = RankState::kStarted;
  rank->unheard = false;
  Moved(rank);
  PersistAndPublish();
}

void Stepper::On(const event::BlobArrived& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || r_.stage != Stage::kRunning) return;
  if (r_.blobs.size() >= kGroupsMax && r_.blobs.count(e.group) == 0) return;
  const bool was_complete = Complete(e.group);
  std::string& blob = r_.blobs[e.group][e.rank];
  if (was_complete && blob == e.data) {
    // It asks again: the table may have been lost with its stream.
    actions_.push_back(action::SendBlobTable{e.group, rank->node});
    return;
  }
  blob = e.data;
  Moved(rank);
  actions_.push_back(action::PersistBlob{e.group, e.rank});
  if (Complete(e.group)) actions_.push_back(action::SendBlobTable{e.group, ""});
}

void Stepper::On(const event::RankProgressed& e) {
  const v1::RankProgress& p = e.progress;
  RankRecord* rank = Find(e.attempt, p.rank());
  if (rank == nullptr || rank->state == RankState::kFinished || rank->state == RankState::kFailed) return;
  const bool known = p.phase() != v1::JOB_PHASE_UNSPECIFIED && v1::JobPhase_IsValid(p.phase());
  const JobPhase phase = known ? PhaseFromProto(p.phase()) : rank->phase;
  rank->unheard = false;
  const bool worked = p.step() != rank->step;
  if (worked || phase != rank->phase) Moved(rank);
  rank->phase = phase;
  rank->layer = p.layer();
  rank->pass = p.pass();
  rank->step = p.step();
  rank->waiting_group = p.waiting_group();
  rank->collective = p.collective();
  rank->waiting_for_rank = p.waiting_for_rank();
  for (const v1::GroupProgress& group : p.groups()) {
    if (rank->groups.size() >= kGroupsMax && rank->groups.count(group.group()) == 0) continue;
    rank->groups[group.group()] = {group.entered(), group.finished()};
  }
  const double percent = std::isfinite(p.percent()) ? std::clamp(p.percent(), 0.0, 100.0) : rank->percent;
  const bool moved = percent != rank->percent;
  const double percent_before = r_.Percent();
  rank->percent = percent;
  const bool paced = NoteWork(p.totals().flops(), p.totals().flops_seconds(), rank);
  if (r_.Percent() != percent_before) r_.percent_us = now_.boot_us;
  if (r_.stage != Stage::kRunning) return;
  if (paced && IsToReplace(config_.slow_ranks, p.rank(), &r_)) {
    actions_.push_back(action::PlanWithout{p.rank()});
  }
  const JobPhase gang = GangPhase();
  if (gang == JobPhase::kExecute && r_.pace_begin_us == 0) NotePaceBegin();
  if (gang != r_.phase) {
    if (gang == JobPhase::kExecute && r_.execute_begin_us == 0) r_.execute_begin_us = now_.boot_us;
    r_.phase = gang;
    return PersistAndPublish();
  }
  // Within a layer only the steps move.
  if (moved || (worked && gang == JobPhase::kExecute)) actions_.push_back(action::Publish{});
}

void Stepper::NotePaceBegin() {
  for (const RankRecord& rank : r_.ranks) {
    if (rank.unheard && rank.state != RankState::kFinished) return;  // Percent() is not known yet
  }
  const double layers = std::max<double>(1, static_cast<double>(r_.spec.config.layers));
  const bool begins = r_.execute_begin_us == 0;
  r_.pace_begin_us = now_.boot_us;
  r_.pace_begin_percent = begins ? 100 * Current()->first_layer / layers : r_.Percent();
}

void Stepper::On(const event::PlannedWithout& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || r_.stage != Stage::kRunning || rank->state != RankState::kStarted) return;
  const std::optional<std::string> why =
      WhyReplace(r_, config_.slow_ranks, e.rank, {e.step_seconds, e.start_seconds});
  if (!why) return;
  r_.avoided.insert(rank->Where());
  Cause cause;
  cause.error = MakeError(absl::StatusCode::kUnavailable, reason::kSlowRank, *why);
  cause.counts = false;
  Blame(e.rank, cause);
}

void Stepper::On(const event::RankFinished& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || rank->state == RankState::kFinished || rank->state == RankState::kFailed) return;
  rank->state = RankState::kFinished;
  rank->phase = JobPhase::kMerge;
  rank->percent = 100;
  rank->result = e.result;
  Moved(rank);
  actions_.push_back(action::PersistResult{e.rank});
  if (r_.stage == Stage::kRunning) {
    r_.phase = GangPhase();
    PersistAndPublish();
    FinishIfAllHave();
  }
}

// --- checkpoints ---

// A report that a coordinator's restart loses costs this checkpoint, not the next one; so does a rank that
// could not write its part.
void Stepper::On(const event::RankCheckpointed& e) {
  if (e.layers < 1 || e.layers >= r_.spec.config.layers) return;  // nothing could go on from there
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || r_.stage != Stage::kRunning || !rank->checkpointed.insert(e.layers).second) return;
  for (const RankRecord& other : r_.ranks) {
    if (other.checkpointed.count(e.layers) == 0) return;
  }
  actions_.push_back(action::KeepCheckpoint{e.layers});
}

void Stepper::On(const event::CheckpointKept& e) {
  if (e.attempt != r_.attempt || r_.stage != Stage::kRunning || e.layers <= r_.checkpoint_layers) return;
  if (!e.status.ok()) return;  // the job can do without
  r_.checkpoint_layers = e.layers;
  r_.checkpoint_attempt = e.attempt;
  r_.excuses.clear();
  PersistAndPublish();
  actions_.push_back(action::DropCheckpoints{});
  for (size_t i = 0; i < r_.ranks.size(); ++i) {
    if (!r_.ranks[i].draining || r_.ranks[i].gone) continue;
    // It has got as far as it was to get there: the rest elsewhere, before the drain's time is over.
    Cause cause;
    cause.error = MakeError(
        absl::StatusCode::kUnavailable, reason::kNodeDrained,
        absl::StrCat("the worker on ", r_.ranks[i].node,
                     " was told to stop: the job goes on from its checkpoint after layer ", e.layers));
    cause.counts = false;
    return Blame(static_cast<int>(i), cause);
  }
}

absl::Status Stepper::RebuildReport() {
  SEQPAR_ASSIGN_OR_RETURN(r_.report,
                          BuildReport(r_.spec, r_.plan, r_.attempt, Current()->first_layer, OutcomesOf(r_)));
  r_.report->set_ignored_tensors(r_.ignored_tensors);
  return absl::OkStatus();
}

void Stepper::FinishIfAllHave() {
  for (const RankRecord& rank : r_.ranks) {
    if (rank.state != RankState::kFinished) return;
  }
  if (const absl::Status built = RebuildReport(); !built.ok()) return BeginStop(built, true);
  if (const absl::Status verified = CheckVerification(r_.spec, OutcomesOf(r_), *r_.report); !verified.ok()) {
    return BeginStop(verified, true);
  }
  if (r_.spec.output_file.empty()) return BeginReport();
  r_.stage = Stage::kMerging;
  r_.phase = JobPhase::kMerge;
  PersistAndPublish();
  actions_.push_back(action::Merge{});
}

void Stepper::BeginReport() {
  r_.stage = Stage::kReporting;
  r_.phase = JobPhase::kReport;
  PersistAndPublish();
  actions_.push_back(action::Report{});
}

void Stepper::On(const event::RankFailed& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || rank->state == RankState::kFinished || rank->state == RankState::kFailed) return;
  rank->state = RankState::kFailed;
  rank->phase = e.phase;
  const std::string who = absl::StrCat("rank ", e.rank, " on ", rank->Where());
  Cause cause;
  cause.error = Annotate(e.error, absl::StrCat(who, " failed in phase ", PhaseName(e.phase)));
  cause.is_root = e.root_cause;
  cause.excused = IsExcused(*rank, e.error);
  Blame(e.rank, cause);
}

}  // namespace seqpar
