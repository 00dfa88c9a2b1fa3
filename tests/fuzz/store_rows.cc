// Rows of the job store, as a damaged disk or another version may leave them: taken up and shown, or refused
// by name; and the job's machine goes on from what was taken up.
#include "common/base/check.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/fuzz/inputs.pb.h"
#include "tests/fuzz/message_target.h"

namespace seqpar {
namespace {

constexpr int64_t kTokensMax = 1 << 20;  // a plan's tokens are counted one by one

void TakeUp(const fuzz::StoredJob& stored) {
  for (const v1::RankPlan& rank : stored.plan().ranks()) {
    for (const v1::Segment& segment : rank.segments()) {
      if (segment.end() > kTokensMax) return;
    }
  }
  JobRow row;
  row.id = "j-1";
  row.body = stored.job().SerializeAsString();
  StoredAttempt attempt;
  attempt.plan = stored.plan().SerializeAsString();
  for (int i = 0; i < stored.results_size(); ++i) attempt.results[i] = stored.results(i).SerializeAsString();
  ViewOfRow(row).status().IgnoreError();
  absl::StatusOr<JobRecord> record = RecordOf(row, attempt);
  if (!record.ok()) return;
  const MachineConfig config;
  Now now{1'000'000, 1'000'000};
  Step(&*record, event::Restored{}, config, now);
  for (const RankRecord& rank : std::vector<RankRecord>(record->ranks)) {
    Step(&*record, event::NodeAttached{rank.node, rank.incarnation, {}}, config, now);
  }
  now.boot_us += 3'600'000'000;
  Step(&*record, event::Tick{}, config, now);
  Step(&*record, event::CancelRequested{}, config, now);
  for (const RankRecord& rank : std::vector<RankRecord>(record->ranks)) {
    Step(&*record, event::NodeLost{rank.node}, config, now);
  }
  ViewOfRow(RowOf(*record, now.boot_us)).status().IgnoreError();
  const bool merging = record->stage == Stage::kCommitting || record->stage == Stage::kReporting;
  SEQPAR_CHECK(record->ended() || merging);
}

}  // namespace
}  // namespace seqpar

SEQPAR_FUZZ_MESSAGE(seqpar::fuzz::StoredJob, seqpar::TakeUp)
