// A store in a folder, and rows for it.
#ifndef SEQPAR_TESTS_COORDINATOR_STORE_STORE_FIXTURE_H_
#define SEQPAR_TESTS_COORDINATOR_STORE_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/store/store.h"
#include "tests/support/temp_folder.h"

namespace seqpar {

inline constexpr int64_t kNewest = std::numeric_limits<int64_t>::max();

inline JobRow Row(const std::string& id) {
  JobRow row;
  row.id = id;
  row.request_id = "request of " + id;
  row.request = std::string("bytes\0with a zero", 17);
  row.create_us = 5;
  row.body = "body of " + id;
  return row;
}

inline std::unique_ptr<Store> Open(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(folder);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

inline absl::Status Write(Store* store, const WriteBatch& batch) {
  std::vector<std::string> taken;
  return store->Write(batch, &taken);
}

inline absl::Status Insert(Store* store, JobRow* row) {
  row->sequence = store->NewSequence();
  WriteBatch batch;
  batch.inserts = {*row};
  std::vector<std::string> taken;
  const absl::Status written = store->Write(batch, &taken);
  if (!written.ok() || taken.empty()) return written;
  EXPECT_EQ(taken, std::vector<std::string>{row->id});
  return absl::AlreadyExistsError(row->id);
}

inline std::vector<std::string> Ids(const std::vector<JobRow>& rows) {
  std::vector<std::string> ids;
  for (const JobRow& row : rows) ids.push_back(row.id);
  return ids;
}

// Ended at `end_us`, and nothing is left of it but its row.
inline void InsertEnded(Store* store, const std::string& id, int64_t end_us) {
  JobRow row = Row(id);
  row.live = false;
  row.end_us = end_us;
  ASSERT_TRUE(Insert(store, &row).ok());
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_STORE_STORE_FIXTURE_H_
