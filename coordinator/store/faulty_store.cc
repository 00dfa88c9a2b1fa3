#include "coordinator/store/faulty_store.h"

#include <deque>
#include <utility>

#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/job/job.h"
#include "coordinator/store/forwarding_store.h"

namespace seqpar {
namespace {

bool HasEnd(const WriteBatch& batch) {
  for (const JobRow& row : batch.jobs) {
    const auto state = static_cast<JobState>(row.state);
    if (state != JobState::kPending && state != JobState::kRunning) return true;
  }
  return false;
}

// What a batch may have in it, each with its point.
struct Part {
  const char* point;
  bool (*is_in)(const WriteBatch&);
};
constexpr Part kParts[] = {
    {"coordinator.store.submit", [](const WriteBatch& b) { return !b.inserts.empty(); }},
    {"coordinator.store.attempt", [](const WriteBatch& b) { return !b.attempts.empty(); }},
    {"coordinator.store.blob", [](const WriteBatch& b) { return !b.blobs.empty(); }},
    {"coordinator.store.result", [](const WriteBatch& b) { return !b.results.empty(); }},
    {"coordinator.store.end", HasEnd},
    {"coordinator.store.step",
     [](const WriteBatch& b) { return !b.jobs.empty() && b.attempts.empty() && !HasEnd(b); }},
    {"coordinator.store.drain", [](const WriteBatch& b) { return !b.drains.empty(); }},
    {"coordinator.store.expire", [](const WriteBatch& b) { return !b.expire.empty(); }},
};

absl::string_view JobOf(const WriteBatch& batch) {
  if (!batch.inserts.empty()) return batch.inserts[0].id;
  if (!batch.attempts.empty()) return batch.attempts[0].job;
  if (!batch.jobs.empty()) return batch.jobs[0].id;
  return "";
}

class FaultyStore : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;

  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override {
    std::deque<HandOverFailpoint> points;
    for (const Part& part : kParts) {
      if (!part.is_in(batch)) continue;
      SEQPAR_RETURN_IF_ERROR(points.emplace_back(part.point, FailpointSubject{JobOf(batch)}).error());
    }
    SEQPAR_RETURN_IF_ERROR(store_->Write(batch, taken));
    for (const HandOverFailpoint& point : points) {
      if (point.drops_response()) {
        return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                         "job store: it is not known whether this was written (failpoint)");
      }
    }
    return absl::OkStatus();
  }
  absl::Status Backup(const std::string& file) override {
    const HandOverFailpoint point("coordinator.store.backup");
    SEQPAR_RETURN_IF_ERROR(point.error());
    return store_->Backup(file);
  }
};

}  // namespace

std::unique_ptr<Store> MakeFaultyStore(std::unique_ptr<Store> store) {
  return std::make_unique<FaultyStore>(std::move(store));
}

}  // namespace seqpar
