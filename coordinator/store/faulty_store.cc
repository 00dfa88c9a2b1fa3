#include "coordinator/store/faulty_store.h"

#include <deque>
#include <utility>

#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/job/job.h"

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

class FaultyStore : public Store {
 public:
  explicit FaultyStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}

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

  int64_t term() const override { return store_->term(); }
  bool restored() const override { return store_->restored(); }
  absl::Status RaiseTerm(int64_t seen) override { return store_->RaiseTerm(seen); }
  int64_t NewSequence() override { return store_->NewSequence(); }
  bool has_reserve() const override { return store_->has_reserve(); }
  void GiveUpReserve() override { store_->GiveUpReserve(); }
  absl::Status KeepReserve() override { return store_->KeepReserve(); }
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& request_id) override {
    return store_->FindByRequestId(request_id);
  }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) override { return store_->Get(id); }
  absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                           const std::optional<std::string>& tenant) override {
    return store_->List(before, limit, states, tenant);
  }
  absl::StatusOr<std::vector<JobRow>> LoadLive() override { return store_->LoadLive(); }
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) override {
    return store_->LoadAttempt(job, attempt);
  }
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                   int64_t number, int64_t bytes) override {
    return store_->LoadTraces(job, attempt, rank, number, bytes);
  }
  absl::StatusOr<std::vector<std::string>> LoadDrains() override { return store_->LoadDrains(); }
  absl::StatusOr<std::string> Setting(const std::string& name) override { return store_->Setting(name); }

 private:
  const std::unique_ptr<Store> store_;
};

}  // namespace

std::unique_ptr<Store> MakeFaultyStore(std::unique_ptr<Store> store) {
  return std::make_unique<FaultyStore>(std::move(store));
}

}  // namespace seqpar
