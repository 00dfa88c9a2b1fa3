#include "coordinator/metrics/observed_store.h"

#include <chrono>
#include <type_traits>
#include <utility>

#include "coordinator/store/forwarding_store.h"

namespace seqpar {
namespace {

const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

class ObservedStore : public ForwardingStore {
 public:
  ObservedStore(std::unique_ptr<Store> store, MetricRegistry* registry)
      : ForwardingStore(std::move(store)), registry_(registry) {
    registry_->StartAtZero(Metric::kStoreSeconds);
    registry_->StartAtZero(Metric::kStoreErrors);
  }

  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override {
    return Measure("write", [&] { return store_->Write(batch, taken); });
  }
  absl::Status Backup(const std::string& file) override {
    return Measure("backup", [&] { return store_->Backup(file); });
  }
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& request_id) override {
    return Measure("find", [&] { return store_->FindByRequestId(request_id); });
  }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) override {
    return Measure("get", [&] { return store_->Get(id); });
  }
  absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                           const std::optional<std::string>& tenant) override {
    return Measure("list", [&] { return store_->List(before, limit, states, tenant); });
  }
  absl::StatusOr<std::vector<JobRow>> LoadLive() override {
    return Measure("load_live", [&] { return store_->LoadLive(); });
  }
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) override {
    return Measure("load_attempt", [&] { return store_->LoadAttempt(job, attempt); });
  }
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                   int64_t number, int64_t bytes) override {
    return Measure("load_traces", [&] { return store_->LoadTraces(job, attempt, rank, number, bytes); });
  }
  absl::StatusOr<std::vector<std::string>> LoadDrains() override {
    return Measure("load_drains", [&] { return store_->LoadDrains(); });
  }
  absl::StatusOr<std::string> Setting(const std::string& name) override {
    return Measure("setting", [&] { return store_->Setting(name); });
  }

 private:
  template <typename Operation>
  std::invoke_result_t<Operation> Measure(const char* name, const Operation& operation) {
    const auto begin = std::chrono::steady_clock::now();
    std::invoke_result_t<Operation> result = operation();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    registry_->Histogram(Metric::kStoreSeconds, {name}).Observe(seconds.count());
    const absl::Status& status = StatusOf(result);
    if (!status.ok() && !absl::IsAlreadyExists(status)) {
      registry_->Counter(Metric::kStoreErrors, {name}).Increment();
    }
    return result;
  }

  MetricRegistry* const registry_;
};

}  // namespace

std::unique_ptr<Store> ObserveStore(std::unique_ptr<Store> store, MetricRegistry* registry) {
  return std::make_unique<ObservedStore>(std::move(store), registry);
}

}  // namespace seqpar
