// Everything that the coordinator knows about one job. A value: the job machine is the only one that changes
// it.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_JOB_RECORD_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_JOB_RECORD_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/validate/validate.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/report.pb.h"

namespace seqpar {

// Where the machine stands. The user sees JobState and JobPhase; this is what they are made of.
enum class Stage {
  kQueued,      // PENDING: waits for devices or for its next attempt
  kPlacing,     // PENDING: devices are set aside, the staging file is being made; not durable
  kRunning,     // ranks run
  kMerging,     // all ranks have finished; the staging file is being synced
  kCommitting,  // durable before the rename: from here on the job succeeds or its storage fails
  kReporting,   // the output stands under its name
  kStopping,    // the attempt is over, some ranks are not yet known to be gone
  kEnded,
};
const char* StageName(Stage stage);  // "queued", ...

enum class RankState { kAssigned, kStarted, kFinished, kFailed };

// One rank of the current attempt.
struct RankRecord {
  std::string node;
  int device = 0;
  int threads = 1;          // of the device
  int64_t incarnation = 0;  // of the worker that it was given to
  RankState state = RankState::kAssigned;
  bool gone = false;  // its process is known to have ended, or its node's lease to be over
  JobPhase phase = JobPhase::kBootstrap;
  int layer = 0;
  std::string pass;
  int64_t step = 0;
  std::string waiting_group;
  int64_t collective = 0;
  int waiting_for_rank = -1;
  struct Collectives {
    int64_t entered = 0, finished = 0;
  };
  std::map<std::string, Collectives> groups;  // by name
  double percent = 0;
  double flops = 0, flops_seconds = 0;  // model flops of the layers that it finished; its kernels' seconds
  double flop_seconds = 0;     // its pace: seconds a flop, of those its latest report added; 0: unknown
  int slow_reports = 0;        // in a row by which it was slow: slow_ranks.h
  int64_t progress_us = 0;     // BootMicros at which anything above moved last
  bool spared = false;         // its node has attached anew since then, and the time began anew with that
  std::set<int> checkpointed;  // layers behind the checkpoints that it wrote its part of
  bool draining = false;       // its node was told to stop: it has said so, and gets no more ranks
  bool unheard = false;        // by this process of the coordinator, which found it in the store
  v1::RankEvent result;        // of a rank that finished

  std::string Where() const;  // "node/0"
};

struct AttemptRecord {
  int attempt = 0;
  int64_t start_us = 0;  // wall
  int64_t end_us = 0;    // wall; 0: it runs
  std::string mesh;
  std::vector<std::string> devices;  // by rank
  absl::Status error;                // the first cause
  std::vector<std::string> consequences;
  int first_layer = 0;       // it goes on from the checkpoint after so many layers
  bool not_counted = false;  // ended by a drain, for a slow rank, or by a coordinator that was away
};

struct JobRecord {
  // Fixed at submit.
  std::string id;
  std::string request_id;
  std::string tenant;    // of whoever submitted it
  int64_t sequence = 0;  // order of submission
  JobSpec spec;
  int64_t output_bytes = 0;  // that its output file will have; not stored: the spec says it
  std::map<std::string, FileFingerprint> inputs;
  int64_t ignored_tensors = 0;  // of the weights' file
  bool fits = false;            // the nodes of that time, or more of their kind, could run it
  int64_t create_us = 0;        // wall

  JobState state = JobState::kPending;
  JobPhase phase = JobPhase::kSubmit;
  Stage stage = Stage::kQueued;
  std::string reason;                // why it is pending
  int attempt = 0;                   // latest one that began; 0: none
  int attempt_floor = 0;             // the next one is above this too
  int failures = 0;                  // attempts that ended in an error that may pass
  int64_t start_us = 0, end_us = 0;  // wall; 0: not yet
  absl::Status error;
  std::vector<AttemptRecord> attempts;
  bool cancel_requested = false;
  // The last checkpoint that is whole; 0 layers: none. And whether any may ever have been begun.
  int checkpoint_layers = 0, checkpoint_attempt = 0;
  bool checkpoints = false;
  // How the last counted attempt failed ("rank 2: RANK_FAILED in execute, layer 3"), how often in a row, and
  // from which checkpoint.
  std::string last_failure;
  int same_failures = 0, last_failure_layers = 0;
  // How often since that checkpoint a node, by name, ended an attempt that does not count or went away while
  // one was being placed on it.
  std::map<std::string, int> excuses;
  std::set<std::string> avoided;  // devices ("node/0") whose ranks were replaced for being slow
  int64_t not_before_us = 0;      // boot: the next attempt waits this long
  int64_t revision = 0;
  std::optional<v1::Report> report;

  // The attempt that is being placed or runs.
  Plan plan;
  std::vector<RankRecord> ranks;
  std::map<std::string, std::map<int, std::string>> blobs;  // by group, then rank
  int64_t attempt_begin_us = 0;                             // boot
  int64_t execute_begin_us = 0;                             // boot; 0: not there yet
  int64_t percent_us = 0;                                   // boot; when Percent() moved last
  // Since when its pace is measured, boot (0: not yet), and Percent() then. What was done before, by an
  // earlier attempt or heard by an earlier process of the coordinator, took a time that is not known.
  int64_t pace_begin_us = 0;
  double pace_begin_percent = 0;
  std::string broken_by;       // kPlacing: the node of the plan that went away; empty: none
  int64_t staged_inode = 0;    // kCommitting: of the file that gets the name
  absl::Status cause;          // kStopping
  bool not_counted = false;    // kStopping: the cause is none of the job's
  std::string excused_node;    // kStopping: for whose sake; empty: for another
  std::string failure;         // kStopping: the cause as last_failure tells it
  bool cause_is_root = false;  // kStopping: named by a rank as its own failure, or a loss
  std::vector<std::string> consequences;

  int NextAttempt() const { return std::max(attempt, attempt_floor) + 1; }
  bool ended() const { return stage == Stage::kEnded; }
  // Whether it ended and left a staging file that has not got the name of the output, or checkpoints.
  bool LeavesStaging() const {
    return ended() && !spec.output_file.empty() && (state != JobState::kSucceeded || checkpoints);
  }
  // Whether devices of `plan` are taken.
  bool HoldsDevices() const { return stage != Stage::kQueued && stage != Stage::kEnded; }
  // Whether `ranks` are those of `attempt`, and not of one that has not begun.
  bool HoldsGang() const { return HoldsDevices() && stage != Stage::kPlacing; }
  double Percent() const;  // of the attempt: that of its slowest rank
  const RankRecord* Slowest()
      const;  // of the ranks that have not finished; null: all have, or there are none
  std::string Target() const { return spec.output_file; }
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_JOB_RECORD_H_
