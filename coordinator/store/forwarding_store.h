// A store that hands everything on to another one: what decorators of a store begin from.
#ifndef SEQPAR_COORDINATOR_STORE_FORWARDING_STORE_H_
#define SEQPAR_COORDINATOR_STORE_FORWARDING_STORE_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/store/store.h"

namespace seqpar {

// As thread-safe as the store beneath, which it owns.
class ForwardingStore : public Store {
 public:
  explicit ForwardingStore(std::unique_ptr<Store> store) : store_(std::move(store)) {}

  int64_t term() const override { return store_->term(); }
  bool restored() const override { return store_->restored(); }
  absl::Status RaiseTerm(int64_t seen) override { return store_->RaiseTerm(seen); }
  int64_t NewSequence() override { return store_->NewSequence(); }
  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override {
    return store_->Write(batch, taken);
  }
  bool has_reserve() const override { return store_->has_reserve(); }
  void GiveUpReserve() override { store_->GiveUpReserve(); }
  absl::Status KeepReserve() override { return store_->KeepReserve(); }
  absl::Status Backup(const std::string& file) override { return store_->Backup(file); }
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

 protected:
  const std::unique_ptr<Store> store_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_FORWARDING_STORE_H_
