// How an attempt ends, and a job: first cause and consequences, another attempt or none.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "coordinator/job_machine/stepper.h"

namespace seqpar {
namespace {

constexpr int kBackoffDoublingsMax = 6;

// How often a node may end attempts of a job that do not count, or its placements, and all nodes may, before
// the job has got as far as its next checkpoint. One that drains, or attaches anew, and is started without
// end, be it under another name each time, would else keep the job for ever; so many nodes are upgraded in a
// row without it.
constexpr int kExcusesOfNode = 2, kExcusesInAll = 100;

}  // namespace

bool Stepper::MayExcuse(const std::string& node) const {
  int all = 0;
  for (const auto& [name, times] : r_.excuses) all += times;
  const auto own = r_.excuses.find(node);
  return all < kExcusesInAll && (own == r_.excuses.end() || own->second < kExcusesOfNode);
}

// --- first cause and consequences ---

void Stepper::NoteCause(int rank, const Cause& cause) {
  const RankRecord& failed = r_.ranks[rank];
  r_.excused_node = cause.excused && MayExcuse(failed.node) ? failed.node : std::string();
  r_.not_counted = !cause.counts || !r_.excused_node.empty();
  r_.failure = absl::StrCat("rank ", rank, ": ", ReasonOf(cause.error), " in ", PhaseName(failed.phase), ", ",
                            failed.pass, " ", failed.layer);
}

// Whether the attempt that ends is the third in a row that ended just like this, and none got further than
// the one before it.
bool Stepper::FailsTheSameWay() {
  constexpr int kTimes = 3;
  const bool same =
      !r_.failure.empty() && r_.failure == r_.last_failure && r_.checkpoint_layers == r_.last_failure_layers;
  r_.same_failures = same ? r_.same_failures + 1 : 1;
  r_.last_failure = r_.failure;
  r_.last_failure_layers = r_.checkpoint_layers;
  return r_.same_failures >= kTimes;
}

void Stepper::Blame(int rank, const Cause& cause) {
  if (r_.stage == Stage::kRunning) {
    BeginStop(cause.error, cause.is_root);
    return NoteCause(rank, cause);
  }
  // Stopping already. A rank that names itself as the cause comes before those that only saw it fail, whoever
  // was heard first; what we did ourselves (a stop, a cancel) has no other cause.
  if (cause.is_root && !r_.cause_is_root) {
    r_.consequences.insert(r_.consequences.begin(), std::string(r_.cause.message()));
    r_.cause = cause.error;
    r_.cause_is_root = true;
    NoteCause(rank, cause);
  } else if (ReasonOf(cause.error) != reason::kCancelled) {
    r_.consequences.push_back(std::string(cause.error.message()));
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
  r_.not_counted = false;
  r_.excused_node.clear();
  r_.failure.clear();
  r_.consequences.clear();
  if (AttemptRecord* attempt = Current()) attempt->error = cause;
  if (ReasonOf(cause) != reason::kVerificationFailed) r_.report.reset();
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
    attempt->not_counted = r_.not_counted;
  }
  if (!r_.excused_node.empty()) ++r_.excuses[r_.excused_node];
  const absl::Status cause = r_.cause;
  if (r_.cancel_requested) {
    return End(JobState::kCancelled, CancelledByUser());
  }
  if (!MayPass(cause)) return End(JobState::kFailed, cause);
  if (!r_.not_counted) ++r_.failures;
  const int allowed = r_.spec.max_attempts > 0 ? r_.spec.max_attempts : config_.max_attempts;
  if (r_.failures >= allowed) {
    const bool all = r_.failures == r_.attempt;
    const std::string which = all ? absl::StrCat("attempt ", r_.failures, " of ", allowed)
                                  : absl::StrCat("failure ", r_.failures, " of ", allowed);
    return End(JobState::kFailed, r_.attempt == 1 ? cause : Annotate(cause, which));
  }
  if (!r_.not_counted && FailsTheSameWay()) {
    return End(JobState::kFailed, Annotate(cause, "three times the same, without progress"));
  }
  r_.state = JobState::kPending;
  r_.phase = JobPhase::kPlan;
  r_.stage = Stage::kQueued;
  r_.reason =
      absl::StrCat("waits for attempt ", r_.NextAttempt(),
                   r_.failures == r_.attempt ? absl::StrCat(" of ", allowed)
                                             : absl::StrCat(" (", r_.failures, " of ", allowed, " failed)"),
                   ": ", cause.message());
  r_.not_before_us = now_.boot_us;
  if (!r_.not_counted)
    r_.not_before_us += config_.backoff_us << std::min(r_.failures - 1, kBackoffDoublingsMax);
  r_.ranks.clear();
  r_.blobs.clear();
  PersistAndPublish();
}

void Stepper::End(JobState state, const absl::Status& error) {
  r_.state = state;
  r_.stage = Stage::kEnded;
  // Nothing stands under that name.
  if (r_.report && state != JobState::kSucceeded) r_.report->clear_output();
  r_.error = error;
  r_.reason.clear();
  r_.end_us = now_.wall_us;
  if (AttemptRecord* attempt = Current(); attempt != nullptr && attempt->end_us == 0) {
    attempt->end_us = now_.wall_us;
    attempt->error = error;
  }
  PersistAndPublish();
  if (r_.LeavesStaging()) actions_.push_back(action::UnlinkStaging{});
}

void Stepper::Lose(int rank, const std::string& why) {
  RankRecord& lost = r_.ranks[rank];
  lost.state = RankState::kFailed;
  Cause cause;
  cause.error = MakeError(absl::StatusCode::kUnavailable, reason::kRankLost,
                          absl::StrCat("rank ", rank, " on ", lost.Where(), " was lost in phase ",
                                       PhaseName(lost.phase), ": ", why));
  // Where a lease ran out, or a worker was gone, while no coordinator was there.
  cause.excused = lost.unheard;
  Blame(rank, cause);
}

}  // namespace seqpar
