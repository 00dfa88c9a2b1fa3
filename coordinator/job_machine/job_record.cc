#include "coordinator/job_machine/job_record.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace seqpar {

const char* StageName(Stage stage) {
  switch (stage) {
    case Stage::kQueued:
      return "queued";
    case Stage::kPlacing:
      return "placing";
    case Stage::kRunning:
      return "running";
    case Stage::kMerging:
      return "merging";
    case Stage::kCommitting:
      return "committing";
    case Stage::kReporting:
      return "reporting";
    case Stage::kStopping:
      return "stopping";
    case Stage::kEnded:
      return "ended";
  }
  return "?";
}

std::string RankRecord::Where() const { return absl::StrCat(node, "/", device); }

const RankRecord* JobRecord::Slowest() const {
  const RankRecord* slowest = nullptr;
  for (const RankRecord& rank : ranks) {
    if (rank.state == RankState::kFinished) continue;
    if (slowest == nullptr || rank.percent < slowest->percent) slowest = &rank;
  }
  return slowest;
}

double JobRecord::Percent() const {
  if (state == JobState::kSucceeded) return 100;
  if (ranks.empty()) return 0;
  double percent = 100;
  for (const RankRecord& rank : ranks) {
    percent = std::min(percent, rank.state == RankState::kFinished ? 100 : rank.percent);
  }
  return percent;
}

}  // namespace seqpar
