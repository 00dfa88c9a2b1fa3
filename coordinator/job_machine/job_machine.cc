#include "coordinator/job_machine/job_machine.h"

#include "absl/strings/str_cat.h"
#include "common/base/saturate.h"
#include "common/base/status.h"
#include "coordinator/job_machine/stepper.h"
#include "coordinator/job_machine/stuck.h"

namespace seqpar {

// --- nodes and time ---

void Stepper::On(const event::NodeAttached& e) {
  if (r_.stage == Stage::kPlacing) {
    for (const RankRecord& rank : r_.ranks) {
      if (rank.node == e.node && rank.incarnation != e.incarnation) BreakPlacement(e.node);
    }
    return;
  }
  if (!r_.HoldsGang()) return;
  const bool stopping = r_.stage == Stage::kStopping;
  bool start = false, bootstrap = false, here = false;
  for (size_t i = 0; i < r_.ranks.size(); ++i) {
    RankRecord& rank = r_.ranks[i];
    if (rank.node != e.node || rank.gone) continue;
    here = true;
    if (e.running.count(static_cast<int>(i)) != 0) {
      // Once: a rank that stands still is found, however often its worker comes and goes.
      if (!rank.spared) rank.progress_us = now_.boot_us;
      rank.spared = true;
      bootstrap = bootstrap || rank.phase == JobPhase::kBootstrap;
      continue;
    }
    const bool same = rank.incarnation == e.incarnation;
    if (r_.stage == Stage::kRunning && rank.state == RankState::kAssigned && same) {
      start = true;  // the command was lost with the stream
      continue;
    }
    rank.gone = true;
    if (r_.stage == Stage::kRunning && rank.state != RankState::kFinished) {
      Lose(static_cast<int>(i), same ? "its worker no longer has it" : "its worker was started anew");
    }
  }
  if (stopping && here) actions_.push_back(action::StopGang{e.node, r_.cause});
  if (r_.stage != Stage::kRunning || !here) return;
  if (start) actions_.push_back(action::StartGang{e.node});
  for (const auto& [group, blobs] : r_.blobs) {
    if (bootstrap && Complete(group)) actions_.push_back(action::SendBlobTable{group, e.node});
  }
}

void Stepper::On(const event::NodeLost& e) {
  if (r_.stage == Stage::kPlacing) {
    for (const RankRecord& rank : r_.ranks) {
      if (rank.node == e.node) BreakPlacement(e.node);
    }
    return;
  }
  if (!r_.HoldsGang()) return;
  for (size_t i = 0; i < r_.ranks.size(); ++i) {
    RankRecord& rank = r_.ranks[i];
    if (rank.node != e.node || rank.gone) continue;
    rank.gone = true;
    const bool ran = rank.state == RankState::kAssigned || rank.state == RankState::kStarted;
    if (ran) Lose(static_cast<int>(i), "the lease of its node is over");
  }
}

void Stepper::On(const event::Tick&) {
  if (r_.ended()) return;
  const int64_t deadline_us = DeadlineUs(r_);
  const bool too_late = r_.stage == Stage::kCommitting || r_.stage == Stage::kReporting;
  const bool stopping = r_.stage == Stage::kStopping;
  if (deadline_us != 0 && now_.wall_us >= deadline_us && !too_late && !stopping) {
    return EndEarly(MakeError(absl::StatusCode::kDeadlineExceeded, reason::kDeadlineExceeded,
                              absl::StrCat("the job's deadline of ", r_.spec.deadline_seconds,
                                           " s passed in phase ", PhaseName(r_.phase))));
  }
  if (r_.stage != Stage::kRunning) return;
  std::optional<Stuck> stuck = FindMissingAtBootstrap(r_, config_.bootstrap_timeout_us, now_.boot_us);
  if (!stuck)
    stuck = FindStandstill(r_, PatienceFor(r_, config_.step_timeout_us, config_.no_progress_timeout_us),
                           now_.boot_us);
  if (!stuck) return;
  BeginStop(stuck->cause, true);
  NoteCause(stuck->rank, {stuck->cause});
  r_.consequences = stuck->others;
  if (AttemptRecord* attempt = Current()) attempt->consequences = r_.consequences;
}

std::vector<JobAction> Step(JobRecord* record, const JobEvent& event, const MachineConfig& config,
                            const Now& now) {
  Stepper stepper(record, config, now);
  std::visit([&](const auto& e) { stepper.On(e); }, event);
  stepper.Settle();
  return stepper.Take();
}

bool MayPass(const absl::Status& error) {
  const std::string why = ReasonOf(error);
  for (const char* never :
       {reason::kInvalidJob, reason::kInvalidArgument, reason::kInfeasible, reason::kInputChanged,
        reason::kVerificationFailed, reason::kOutOfMemory, reason::kRateAbovePeak, reason::kBootstrapMismatch,
        reason::kOutputInUse, reason::kCancelled, reason::kDeadlineExceeded}) {
    if (why == never) return false;
  }
  // Storage: a transient error of one machine may pass, a full disk, a missing folder or a taken name will
  // not.
  if (why == reason::kStorage) {
    return error.code() == absl::StatusCode::kInternal || error.code() == absl::StatusCode::kUnavailable;
  }
  return error.code() != absl::StatusCode::kInvalidArgument &&
         error.code() != absl::StatusCode::kUnimplemented;
}

int64_t DeadlineUs(const JobRecord& record) {
  if (record.spec.deadline_seconds <= 0) return 0;
  return record.create_us + MicrosOf(record.spec.deadline_seconds);
}

}  // namespace seqpar
