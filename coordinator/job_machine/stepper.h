// One application of one event to one record: what job_machine.h promises, shared by its three sources.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_STEPPER_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_STEPPER_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "coordinator/job_machine/job_machine.h"

namespace seqpar {

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
    r_.staged_inode = e.inode;
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
    EndEarly(CancelledByUser());
  }

  void On(const event::Tick&);
  void On(const event::RankStarted& e);
  void On(const event::BlobArrived& e);
  void On(const event::RankProgressed& e);
  void On(const event::RankFinished& e);
  void On(const event::RankFailed& e);

  void On(const event::RankStopped& e) {
    RankRecord* rank = FindHeld(e.attempt, e.rank);
    if (rank == nullptr || rank->gone) return;
    rank->gone = true;
    if (r_.stage == Stage::kRunning && rank->state != RankState::kFinished) {
      Lose(e.rank, "its process ended");
    }
  }

  void On(const event::RankCheckpointed& e);
  void On(const event::CheckpointKept& e);
  void On(const event::PlannedWithout& e);
  void On(const event::NodeDrains& e) {
    for (RankRecord& rank : r_.ranks) rank.draining = rank.draining || rank.node == e.node;
  }

  void On(const event::NodeAttached& e);
  void On(const event::NodeLost& e);
  void On(const event::AttemptSeen& e) {
    if (r_.ended() || e.attempt <= std::max(r_.attempt, r_.attempt_floor)) return;
    r_.attempt_floor = e.attempt;
    PersistAndPublish();
  }

 private:
  static absl::Status CancelledByUser() {
    return MakeError(absl::StatusCode::kCancelled, reason::kCancelled, "cancelled by its user");
  }

  // The rank of the current attempt; null where the event concerns nothing that runs.
  RankRecord* Find(int attempt, int rank) {
    if (attempt != r_.attempt || rank < 0 || rank >= static_cast<int>(r_.ranks.size())) return nullptr;
    const bool live = r_.stage == Stage::kRunning || r_.stage == Stage::kStopping;
    return live ? &r_.ranks[rank] : nullptr;
  }

  void Moved(RankRecord* rank) const {
    rank->progress_us = now_.boot_us;
    rank->spared = false;
  }

  // Also of a gang that has finished: whether its ranks are gone matters where its end goes wrong after all.
  RankRecord* FindHeld(int attempt, int rank) {
    if (attempt != r_.attempt || rank < 0 || rank >= static_cast<int>(r_.ranks.size())) return nullptr;
    return r_.HoldsGang() ? &r_.ranks[rank] : nullptr;
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

  // Why a rank ends its attempt.
  struct Cause {
    absl::Status error;
    bool is_root = true;  // named by the rank as its own failure, or a loss
    // Whether the attempt is one of those that the job may have: decided here, by what is known here. What a
    // worker says of itself does not decide it.
    bool counts = true;
    // It is none of them for what became of the rank's node, as long as that may be excused.
    bool excused = false;
  };
  // The rank is gone without a word: that is a cause.
  void Lose(int rank, const std::string& why);
  void Blame(int rank, const Cause& cause);
  // Notes the cause by which the attempt ends beside its words.
  void NoteCause(int rank, const Cause& cause);
  bool FailsTheSameWay();
  void BeginStop(const absl::Status& cause, bool is_root);
  void EndEarly(const absl::Status& why);
  void EndAttempt();
  // Whether `node` may once more end an attempt, or a placement, that does not count.
  bool MayExcuse(const std::string& node) const;
  // Notes that `node`, on which the job is being placed, went away.
  void BreakPlacement(const std::string& node) {
    if (r_.broken_by.empty()) r_.broken_by = node;
  }
  void PlaceAgain();
  void NotePaceBegin();
  absl::Status RebuildReport();
  void FinishIfAllHave();
  void BeginReport();
  void End(JobState state, const absl::Status& error);

  JobRecord& r_;
  const MachineConfig& config_;
  const Now now_;
  std::vector<JobAction> actions_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_STEPPER_H_
