#include "coordinator/store/faulty_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/job/job.h"
#include "tests/support/armed_failpoints.h"

namespace seqpar {
namespace {

class FaultyStoreTest : public ::testing::Test {
 protected:
  // The store on a disk that may fail, and one whose transactions may.
  std::unique_ptr<Store> OpenOnDisk() const {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(folder_.path());
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  std::unique_ptr<Store> Open() const { return MakeFaultyStore(OpenOnDisk()); }

  static absl::Status Insert(Store* store, const std::string& id) {
    WriteBatch batch;
    batch.inserts.emplace_back();
    JobRow& row = batch.inserts.back();
    row.sequence = store->NewSequence();
    row.id = id;
    row.request_id = "request of " + id;
    row.live = true;
    std::vector<std::string> taken;
    return store->Write(batch, &taken);
  }
  static bool Has(Store* store, const std::string& id) { return store->Get(id)->has_value(); }

  const ArmedFailpoints failpoints_;
  const TempFolder folder_;
};

TEST_F(FaultyStoreTest, AnErrorIsBeforeTheTransactionAndALostResponseBehindIt) {
  const std::unique_ptr<Store> store = Open();
  failpoints_.Arm("coordinator.store.submit", "error");
  const absl::Status failed = Insert(store.get(), "a");
  EXPECT_TRUE(absl::IsInternal(failed));
  EXPECT_EQ(ReasonOf(failed), reason::kStorage);
  EXPECT_FALSE(Has(store.get(), "a"));
  failpoints_.Arm("coordinator.store.submit", "drop_response");
  EXPECT_TRUE(absl::IsInternal(Insert(store.get(), "b")));
  EXPECT_TRUE(Has(store.get(), "b"));
  EXPECT_TRUE(Insert(store.get(), "c").ok());
}

// Of a commit that is large enough for a checkpoint: the first fsync is of the commit, the second of the log
// once more, the third of the file.
TEST_F(FaultyStoreTest, AnFsyncThatFailsInACheckpointIsNotKeptFromTheCommit) {
  for (const char* order : {"error", "error skip=1", "error skip=2"}) {
    const std::unique_ptr<Store> store = Open();
    WriteBatch batch;
    batch.settings["large"] = std::string(8 << 20, 'x');
    failpoints_.Arm("coordinator.store.fsync", order);
    std::vector<std::string> taken;
    const absl::Status written = store->Write(batch, &taken);
    EXPECT_TRUE(absl::IsInternal(written)) << order << ": " << written;
    EXPECT_EQ(ReasonOf(written), reason::kStorage);
  }
}

TEST_F(FaultyStoreTest, EachPartOfABatchHasItsPoint) {
  const std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(Insert(store.get(), "a").ok());
  WriteBatch attempt, blob, result, step, end, drain, expire;
  JobRow row;
  row.id = "a";
  row.live = true;
  row.state = static_cast<int>(JobState::kRunning);
  step.jobs = {row};
  attempt.jobs = {row};
  attempt.attempts = {{"a", 1, "plan"}};
  blob.blobs = {{"a", 1, "world", 0, "blob"}};
  result.results = {{"a", 1, 0, "event"}};
  row.state = static_cast<int>(JobState::kFailed);
  end.jobs = {row};
  drain.drains = {{"node-a", true}};
  expire.expire.keep_jobs = 1;
  const std::vector<std::pair<std::string, const WriteBatch*>> points = {
      {"attempt", &attempt}, {"blob", &blob},   {"result", &result}, {"step", &step},
      {"end", &end},         {"drain", &drain}, {"expire", &expire},
  };
  std::vector<std::string> taken;
  for (const auto& [name, batch] : points) {
    failpoints_.Arm("coordinator.store." + name, "error");
    for (const auto& [other, its] : points) {
      EXPECT_EQ(store->Write(*its, &taken).ok(), other != name) << other << " where " << name << " is armed";
    }
  }
}

TEST_F(FaultyStoreTest, ADiskThatFailsFailsTheTransaction) {
  for (const char* point : {"coordinator.store.fsync", "coordinator.store.write"}) {
    std::unique_ptr<Store> store = OpenOnDisk();
    ASSERT_TRUE(Insert(store.get(), std::string("before ") + point).ok());
    failpoints_.Arm(point, "error");
    const absl::Status failed = Insert(store.get(), point);
    EXPECT_TRUE(absl::IsInternal(failed)) << failed;
    EXPECT_EQ(ReasonOf(failed), reason::kStorage);
    store.reset();
    // What was answered before is there for the next process.
    store = OpenOnDisk();
    EXPECT_TRUE(Has(store.get(), std::string("before ") + point));
  }
}

TEST_F(FaultyStoreTest, AStartFailsAtEachOfItsSteps) {
  for (const char* point :
       {"coordinator.start.store", "coordinator.start.migrate", "coordinator.start.term"}) {
    failpoints_.Arm(point, "error");
    EXPECT_EQ(ReasonOf(Store::Open(folder_.path()).status()), reason::kStorage) << point;
  }
  EXPECT_EQ(OpenOnDisk()->term(), 1) << "none of these starts counted";
}

}  // namespace
}  // namespace seqpar
