// What happens to a job, and what is to be done about it.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_EVENTS_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_EVENTS_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/job/plan.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {
namespace event {

// --- from the coordinator itself ---
struct Submitted {};
// Loaded from the store by a new process.
struct Restored {};
// The scheduler cannot place it now.
struct Waits {
  std::string reason;
};
// The scheduler has found that it can never be placed.
struct Refused {
  absl::Status status;
};
// The scheduler has set these devices aside.
struct Placed {
  Plan plan;
  struct Device {
    int threads = 1;
    int64_t incarnation = 0;
  };
  std::vector<Device> devices;  // by rank
};
struct StagingReady {
  absl::Status status;
  bool checkpoint_gone = false;  // the one to go on from is not there any more: from the beginning, then
};
// A checkpoint that all ranks have written has its name.
struct CheckpointKept {
  int attempt = 0, layers = 0;
  absl::Status status;
};
// On the devices that the gang of this attempt holds and on those that are free, but not on that of `rank`.
struct PlannedWithout {
  int attempt = 0, rank = 0;
  double step_seconds = 0, start_seconds = 0;  // predicted: of all layers, and until they begin
};
struct Merged {
  absl::Status status;
  int64_t inode = 0;  // of the staging file
};
struct Committed {
  absl::Status status;
};
struct Reported {};
struct CancelRequested {};
// Time passed; sent several times a second.
struct Tick {};

// --- from nodes; those of another attempt than the current one change nothing ---
struct RankStarted {
  int attempt = 0, rank = 0;
};
struct BlobArrived {
  int attempt = 0, rank = 0;
  std::string group;
  std::string data;
};
struct RankProgressed {
  int attempt = 0;
  v1::RankProgress progress;
};
struct RankFinished {
  int attempt = 0, rank = 0;
  v1::RankEvent result;
};
struct RankFailed {
  int attempt = 0, rank = 0;
  absl::Status error;
  bool root_cause = false;
  JobPhase phase = JobPhase::kBootstrap;
};
// The rank's part of the checkpoint after so many layers is on disk.
struct RankCheckpointed {
  int attempt = 0, rank = 0, layers = 0;
};
// The process is gone.
struct RankStopped {
  int attempt = 0, rank = 0;
};
// A worker opened a stream; `running` are the ranks of the current attempt that it still answers for.
struct NodeAttached {
  std::string node;
  int64_t incarnation = 0;
  std::set<int> running;
};
// A worker was once told of this attempt of the job: the store was restored from a backup where it is above
// those that it knows.
struct AttemptSeen {
  int attempt = 0;
};
// Its worker was told to stop.
struct NodeDrains {
  std::string node;
};
// The node's lease is over.
struct NodeLost {
  std::string node;
};

}  // namespace event

using JobEvent =
    std::variant<event::Submitted, event::Restored, event::Waits, event::Refused, event::Placed,
                 event::StagingReady, event::Merged, event::Committed, event::Reported,
                 event::CancelRequested, event::Tick, event::RankStarted, event::BlobArrived,
                 event::RankProgressed, event::RankFinished, event::RankFailed, event::RankStopped,
                 event::NodeAttached, event::AttemptSeen, event::NodeLost, event::NodeDrains,
                 event::RankCheckpointed, event::CheckpointKept, event::PlannedWithout>;

namespace action {

// The record changed in what must survive: written before any other effect of the same step.
struct Persist {
  bool plan = false;  // a new attempt: its plan too
};
struct PersistBlob {
  std::string group;
  int rank = 0;
};
struct PersistResult {
  int rank = 0;
};
// Watchers see the record as it is now.
struct Publish {};
// Make the staging file of `attempt`, after unlinking earlier ones and checking the inputs. -> StagingReady
struct PrepareStaging {
  int attempt = 0;
};
// Give the checkpoint of the current attempt its name -> CheckpointKept
struct KeepCheckpoint {
  int layers = 0;
};
// The rank is slow: plan the job without its device -> PlannedWithout, where that can be done now.
struct PlanWithout {
  int rank = 0;
};
// Unlink all checkpoints but the one of the record.
struct DropCheckpoints {};
// Unlink whatever staging files the job may have left.
struct UnlinkStaging {};
// Give each node its ranks ("": every node of the plan).
struct StartGang {
  std::string node;
};
struct SendBlobTable {
  std::string group;
  std::string node;  // "": every node
};
struct StopGang {
  std::string node;  // "": every node
  absl::Status reason;
};
struct Merge {};   // sync the staging file -> Merged
struct Commit {};  // rename, sync the folder -> Committed
struct Report {};  // -> Reported

}  // namespace action

using JobAction =
    std::variant<action::Persist, action::PersistBlob, action::PersistResult, action::Publish,
                 action::PrepareStaging, action::UnlinkStaging, action::StartGang, action::SendBlobTable,
                 action::StopGang, action::Merge, action::Commit, action::Report, action::KeepCheckpoint,
                 action::DropCheckpoints, action::PlanWithout>;

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_EVENTS_H_
