#include "coordinator/job_machine/job_machine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "coordinator/job_machine/stuck.h"
#include "coordinator/report/report.h"

namespace seqpar {
namespace {

constexpr int kBackoffDoublingsMax = 6;

absl::Status LostError(const JobRecord& record, int rank, const std::string& why) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                   absl::StrCat("rank ", rank, " on ", record.ranks[rank].Where(), " was lost in phase ",
                                PhaseName(record.ranks[rank].phase), ": ", why));
}

// One application of one event.
class Stepper {
 public:
  Stepper(JobRecord* record, const MachineConfig& config, const Now& now)
      : r_(*record), config_(config), now_(now) {}

  // Ends an attempt that is over as soon as no rank of it is left; last, when all of an event has been
  // applied.
  void Settle() {
    if (r_.stage != Stage::kStopping) return;
    const bool gone =
        std::all_of(r_.ranks.begin(), r_.ranks.end(), [](const RankRecord& rank) { return rank.gone; });
    if (gone) EndAttempt();
  }

  std::vector<JobAction> Take() { return std::move(actions_); }

  void On(const event::Submitted&) {
    r_.stage = Stage::kQueued;
    r_.phase = JobPhase::kPlan;
    PersistAndPublish();
  }

  void On(const event::Restored&);

  void On(const event::Waits& e) {
    if (r_.stage != Stage::kQueued || (r_.reason == e.reason && r_.phase == JobPhase::kPlan)) return;
    r_.reason = e.reason;
    r_.phase = JobPhase::kPlan;
    PersistAndPublish();
  }

  void On(const event::Refused& e) {
    if (r_.stage == Stage::kQueued) End(JobState::kFailed, e.status);
  }

  void On(const event::Placed& e);
  void On(const event::StagingReady& e);

  void On(const event::Merged& e) {
    if (r_.stage != Stage::kMerging) return;
    if (!e.status.ok()) return BeginStop(e.status, true);
    r_.stage = Stage::kCommitting;
    PersistAndPublish();
    actions_.push_back(action::Commit{});
  }

  void On(const event::Committed& e) {
    if (r_.stage != Stage::kCommitting) return;
    if (!e.status.ok()) return BeginStop(e.status, true);
    BeginReport();
  }

  void On(const event::Reported&) {
    if (r_.stage == Stage::kReporting) End(JobState::kSucceeded, absl::OkStatus());
  }

  void On(const event::CancelRequested&) {
    if (r_.ended() || r_.cancel_requested) return;
    r_.cancel_requested = true;
    EndEarly(MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "cancelled by its user"));
  }

  void On(const event::Tick&);
  void On(const event::RankStarted& e);
  void On(const event::BlobArrived& e);
  void On(const event::RankProgressed& e);
  void On(const event::RankFinished& e);
  void On(const event::RankFailed& e);

  void On(const event::RankStopped& e) {
    RankRecord* rank = Find(e.attempt, e.rank);
    if (rank == nullptr || rank->gone) return;
    rank->gone = true;
    if (r_.stage == Stage::kRunning && rank->state != RankState::kFinished) {
      Lose(e.rank, "its process ended");
    }
  }

  void On(const event::NodeAttached& e);
  void On(const event::NodeLost& e);

 private:
  // The rank of the current attempt; null where the event concerns nothing that runs.
  RankRecord* Find(int attempt, int rank) {
    if (attempt != r_.attempt || rank < 0 || rank >= static_cast<int>(r_.ranks.size())) return nullptr;
    const bool live = r_.stage == Stage::kRunning || r_.stage == Stage::kStopping;
    return live ? &r_.ranks[rank] : nullptr;
  }

  AttemptRecord* Current() { return r_.attempts.empty() ? nullptr : &r_.attempts.back(); }

  void PersistAndPublish(bool plan = false) {
    actions_.push_back(action::Persist{plan});
    actions_.push_back(action::Publish{});
  }

  bool Complete(const std::string& group) const {
    const auto found = r_.blobs.find(group);
    return found != r_.blobs.end() && found->second.size() == r_.ranks.size();
  }

  // The phase of a gang is that of its slowest rank.
  JobPhase GangPhase() const {
    JobPhase slowest = JobPhase::kMerge;
    for (const RankRecord& rank : r_.ranks) {
      if (rank.state != RankState::kFinished) slowest = std::min(slowest, rank.phase);
    }
    return slowest;
  }

  void Lose(int rank, const std::string& why) {
    RankRecord& record = r_.ranks[rank];
    const absl::Status error = LostError(r_, rank, why);
    record.state = RankState::kFailed;
    Blame(rank, error, true);
  }

  void Blame(int rank, const absl::Status& error, bool root_cause);
  void BeginStop(const absl::Status& cause, bool is_root);
  void EndEarly(const absl::Status& why);
  void EndAttempt();
  absl::Status RebuildReport();
  void FinishIfAllHave();
  void BeginReport();
  void End(JobState state, const absl::Status& error);

  JobRecord& r_;
  const MachineConfig& config_;
  const Now now_;
  std::vector<JobAction> actions_;
};

// --- placing ---

void Stepper::On(const event::Placed& e) {
  SEQPAR_CHECK(r_.stage == Stage::kQueued);
  SEQPAR_CHECK(e.devices.size() == e.plan.ranks.size());
  r_.stage = Stage::kPlacing;
  r_.phase = JobPhase::kPlace;
  r_.reason.clear();
  r_.placement_broken = false;
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
  actions_.push_back(action::PrepareStaging{r_.attempt + 1});
}

void Stepper::On(const event::StagingReady& e) {
  if (r_.stage != Stage::kPlacing) {
    // The job ended meanwhile.
    actions_.push_back(action::UnlinkStaging{});
    return;
  }
  if (e.status.ok() && r_.placement_broken) {
    r_.stage = Stage::kQueued;
    r_.phase = JobPhase::kPlan;
    r_.reason = "a node of its plan went away before it began";
    r_.ranks.clear();
    actions_.push_back(action::UnlinkStaging{});
    return PersistAndPublish();
  }
  ++r_.attempt;
  r_.state = JobState::kRunning;
  r_.phase = JobPhase::kBootstrap;
  r_.stage = Stage::kRunning;
  if (r_.start_us == 0) r_.start_us = now_.wall_us;
  r_.attempt_begin_us = now_.boot_us;
  r_.execute_begin_us = 0;
  AttemptRecord attempt;
  attempt.attempt = r_.attempt;
  attempt.start_us = now_.wall_us;
  attempt.mesh = r_.plan.mesh.ToString();
  for (RankRecord& rank : r_.ranks) {
    rank.progress_us = now_.boot_us;
    attempt.devices.push_back(rank.Where());
  }
  r_.attempts.push_back(std::move(attempt));
  if (!e.status.ok()) {
    // Nothing was started: every rank is as good as gone.
    for (RankRecord& rank : r_.ranks) rank.gone = true;
    r_.phase = JobPhase::kPlace;
    return BeginStop(Annotate(e.status, "phase place"), true);
  }
  PersistAndPublish(true);
  actions_.push_back(action::StartGang{});
}

// --- a new process of the coordinator ---

void Stepper::On(const event::Restored&) {
  r_.attempt_begin_us = r_.execute_begin_us = now_.boot_us;
  r_.not_before_us = 0;
  for (RankRecord& rank : r_.ranks) rank.progress_us = now_.boot_us;
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
    case Stage::kQueued:
    case Stage::kPlacing:
    case Stage::kStopping:
    case Stage::kEnded:
      return;
  }
}

// --- what ranks say ---

void Stepper::On(const event::RankStarted& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || rank->state != RankState::kAssigned) return;
  rank->state = RankState::kStarted;
  rank->progress_us = now_.boot_us;
  PersistAndPublish();
}

void Stepper::On(const event::BlobArrived& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || r_.stage != Stage::kRunning) return;
  const bool was_complete = Complete(e.group);
  std::string& blob = r_.blobs[e.group][e.rank];
  if (was_complete && blob == e.data) {
    // It asks again: the table may have been lost with its stream.
    actions_.push_back(action::SendBlobTable{e.group, rank->node});
    return;
  }
  blob = e.data;
  rank->progress_us = now_.boot_us;
  actions_.push_back(action::PersistBlob{e.group, e.rank});
  if (Complete(e.group)) actions_.push_back(action::SendBlobTable{e.group, ""});
}

void Stepper::On(const event::RankProgressed& e) {
  const v1::RankProgress& p = e.progress;
  RankRecord* rank = Find(e.attempt, p.rank());
  if (rank == nullptr || rank->state == RankState::kFinished || rank->state == RankState::kFailed) return;
  const JobPhase phase = p.phase() == v1::JOB_PHASE_UNSPECIFIED
                             ? rank->phase
                             : static_cast<JobPhase>(static_cast<int>(p.phase()) - v1::JOB_PHASE_SUBMIT);
  if (p.step() != rank->step || phase != rank->phase) rank->progress_us = now_.boot_us;
  rank->phase = phase;
  rank->layer = p.layer();
  rank->pass = p.pass();
  rank->step = p.step();
  rank->waiting_group = p.waiting_group();
  rank->collective = p.collective();
  rank->waiting_for_rank = p.waiting_for_rank();
  const bool moved = p.percent() != rank->percent;
  rank->percent = p.percent();
  if (r_.stage != Stage::kRunning) return;
  const JobPhase gang = GangPhase();
  if (gang != r_.phase) {
    if (gang == JobPhase::kExecute && r_.execute_begin_us == 0) r_.execute_begin_us = now_.boot_us;
    r_.phase = gang;
    return PersistAndPublish();
  }
  if (moved) actions_.push_back(action::Publish{});
}

void Stepper::On(const event::RankFinished& e) {
  RankRecord* rank = Find(e.attempt, e.rank);
  if (rank == nullptr || rank->state == RankState::kFinished || rank->state == RankState::kFailed) return;
  rank->state = RankState::kFinished;
  rank->percent = 100;
  rank->result = e.result;
  rank->progress_us = now_.boot_us;
  actions_.push_back(action::PersistResult{e.rank});
  if (r_.stage == Stage::kRunning) {
    r_.phase = GangPhase();
    PersistAndPublish();
    FinishIfAllHave();
  }
}

absl::Status Stepper::RebuildReport() {
  std::vector<RankOutcome> outcomes;
  for (const RankRecord& rank : r_.ranks) outcomes.push_back({&rank.result, rank.threads});
  SEQPAR_ASSIGN_OR_RETURN(r_.report, BuildReport(r_.spec, r_.plan, r_.attempt, outcomes));
  return absl::OkStatus();
}

void Stepper::FinishIfAllHave() {
  for (const RankRecord& rank : r_.ranks) {
    if (rank.state != RankState::kFinished) return;
  }
  if (const absl::Status built = RebuildReport(); !built.ok()) return BeginStop(built, true);
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
  const std::string where = absl::StrCat("phase ", PhaseName(e.phase));
  Blame(e.rank, Annotate(e.error, absl::StrCat(who, " failed in ", where)), e.root_cause);
}

// --- first cause and consequences ---

void Stepper::Blame(int rank, const absl::Status& error, bool root_cause) {
  if (r_.stage == Stage::kRunning) return BeginStop(error, root_cause);
  // Stopping already. A rank that names itself as the cause comes before those that only saw it fail, whoever
  // was heard first; what we did ourselves (a stop, a cancel) has no other cause.
  if (root_cause && !r_.cause_is_root) {
    r_.consequences.insert(r_.consequences.begin(), std::string(r_.cause.message()));
    r_.cause = error;
    r_.cause_is_root = true;
  } else if (ReasonOf(error) != reason::kCancelled) {
    r_.consequences.push_back(std::string(error.message()));
  }
  if (AttemptRecord* attempt = Current()) {
    attempt->error = r_.cause;
    attempt->consequences = r_.consequences;
  }
  PersistAndPublish();
}

void Stepper::BeginStop(const absl::Status& cause, bool is_root) {
  r_.stage = Stage::kStopping;
  r_.cause = cause;
  r_.cause_is_root = is_root;
  r_.consequences.clear();
  if (AttemptRecord* attempt = Current()) attempt->error = cause;
  r_.report.reset();
  PersistAndPublish();
  actions_.push_back(action::StopGang{"", cause});
}

// Cancel and deadline. From kCommitting on the output is already on its way: too late for both.
void Stepper::EndEarly(const absl::Status& why) {
  const JobState state = r_.cancel_requested ? JobState::kCancelled : JobState::kFailed;
  switch (r_.stage) {
    case Stage::kQueued:
    case Stage::kPlacing:
      return End(state, why);
    case Stage::kRunning:
    case Stage::kMerging:
      return BeginStop(why, true);
    case Stage::kStopping:
      return PersistAndPublish();
    case Stage::kCommitting:
    case Stage::kReporting:
    case Stage::kEnded:
      return;
  }
}

void Stepper::EndAttempt() {
  if (AttemptRecord* attempt = Current()) {
    attempt->end_us = now_.wall_us;
    attempt->error = r_.cause;
    attempt->consequences = r_.consequences;
  }
  const absl::Status cause = r_.cause;
  if (r_.cancel_requested) {
    return End(JobState::kCancelled,
               MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "cancelled by its user"));
  }
  if (!MayPass(cause)) return End(JobState::kFailed, cause);
  ++r_.failures;
  const int allowed = r_.spec.max_attempts > 0 ? r_.spec.max_attempts : config_.max_attempts;
  if (r_.failures >= allowed) {
    return End(
        JobState::kFailed,
        r_.failures == 1 ? cause : Annotate(cause, absl::StrCat("attempt ", r_.failures, " of ", allowed)));
  }
  r_.state = JobState::kPending;
  r_.phase = JobPhase::kPlan;
  r_.stage = Stage::kQueued;
  r_.reason = absl::StrCat("waits for attempt ", r_.attempt + 1, " of ", allowed, ": ", cause.message());
  r_.not_before_us = now_.boot_us + (config_.backoff_us << std::min(r_.failures - 1, kBackoffDoublingsMax));
  r_.ranks.clear();
  r_.blobs.clear();
  PersistAndPublish();
}

void Stepper::End(JobState state, const absl::Status& error) {
  r_.state = state;
  r_.stage = Stage::kEnded;
  r_.error = error;
  r_.reason.clear();
  r_.end_us = now_.wall_us;
  if (AttemptRecord* attempt = Current(); attempt != nullptr && attempt->end_us == 0) {
    attempt->end_us = now_.wall_us;
    attempt->error = error;
  }
  PersistAndPublish();
  if (state != JobState::kSucceeded && !r_.spec.output_file.empty())
    actions_.push_back(action::UnlinkStaging{});
}

// --- nodes and time ---

void Stepper::On(const event::NodeAttached& e) {
  if (r_.stage == Stage::kPlacing) {
    for (const RankRecord& rank : r_.ranks) {
      if (rank.node == e.node && rank.incarnation != e.incarnation) r_.placement_broken = true;
    }
    return;
  }
  if (r_.stage != Stage::kRunning && r_.stage != Stage::kStopping) return;
  bool start = false, bootstrap = false, here = false;
  for (size_t i = 0; i < r_.ranks.size(); ++i) {
    RankRecord& rank = r_.ranks[i];
    if (rank.node != e.node || rank.gone) continue;
    here = true;
    if (e.running.count(static_cast<int>(i)) != 0) {
      rank.progress_us = now_.boot_us;
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
  if (!here) return;
  if (r_.stage == Stage::kStopping) {
    actions_.push_back(action::StopGang{e.node, r_.cause});
    return;
  }
  if (start) actions_.push_back(action::StartGang{e.node});
  for (const auto& [group, blobs] : r_.blobs) {
    if (bootstrap && Complete(group)) actions_.push_back(action::SendBlobTable{group, e.node});
  }
}

void Stepper::On(const event::NodeLost& e) {
  if (r_.stage == Stage::kPlacing) {
    for (const RankRecord& rank : r_.ranks) r_.placement_broken = r_.placement_broken || rank.node == e.node;
    return;
  }
  if (r_.stage != Stage::kRunning && r_.stage != Stage::kStopping) return;
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
  if (!stuck) stuck = FindStandstill(r_, config_.no_progress_timeout_us, now_.boot_us);
  if (!stuck) return;
  BeginStop(stuck->cause, true);
  r_.consequences = stuck->others;
  if (AttemptRecord* attempt = Current()) attempt->consequences = r_.consequences;
}

}  // namespace

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
  return record.create_us + static_cast<int64_t>(record.spec.deadline_seconds * 1e6);
}

}  // namespace seqpar
