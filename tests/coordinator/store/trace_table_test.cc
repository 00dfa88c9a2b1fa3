// The traces of a store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/store/store_fixture.h"
#include "tests/support/small_disk.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Chunks(Store& store, const std::string& job, int attempt, int rank = -1,
                                int64_t number = 0, int64_t bytes = 1 << 20) {
  std::vector<std::string> chunks;
  const absl::StatusOr<std::vector<TraceRow>> rows = store.LoadTraces(job, attempt, rank, number, bytes);
  if (!rows.ok()) return {std::string(rows.status().message())};
  for (const TraceRow& row : *rows) {
    chunks.push_back(absl::StrCat(row.rank, "/", row.number, " ", row.chunk));
  }
  return chunks;
}

TEST(Store, TracesComeInOrderAndByPieces) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  ASSERT_TRUE(Insert(store.get(), &row).ok());
  WriteBatch batch;
  batch.traces = {{"j-1", 1, 1, 0, "d"}, {"j-1", 1, 0, 2, "c"}, {"j-1", 1, 0, 0, "a"}, {"j-1", 2, 0, 0, "z"}};
  ASSERT_TRUE(Write(store.get(), batch).ok());
  batch.traces = {{"j-1", 1, 0, 1, "b"}, {"j-1", 1, 0, 0, "sent again"}};
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_THAT(Chunks(*store, "j-1", 1), ElementsAre("0/0 a", "0/1 b", "0/2 c", "1/0 d"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, 0, 1), ElementsAre("0/2 c", "1/0 d"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, -1, 0, 2), ElementsAre("0/0 a", "0/1 b"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, 1, 0), ElementsAre());
  // They outlive what else is kept of a job's attempts.
  row.live = false;
  batch = WriteBatch();
  batch.jobs.push_back(row);
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_EQ(Chunks(*store, "j-1", 1).size(), 4u);
}

TEST(Store, PastTheirBoundTheTracesOfTheOldestJobsAreForgotten) {
  TempFolder folder;
  StoreLimits limits;
  limits.trace_bytes = 100;
  const auto write = [](Store& store, const std::string& job, int64_t number, size_t bytes) {
    WriteBatch batch;
    batch.traces.push_back({job, 1, 0, number, std::string(bytes, 'x')});
    ASSERT_TRUE(Write(&store, batch).ok());
  };
  {
    auto store = *Store::Open(folder.path(), limits);
    for (const char* id : {"j-1", "j-2", "j-3"}) {
      JobRow row = Row(id);
      ASSERT_TRUE(Insert(store.get(), &row).ok());
      write(*store, id, 0, 30);
    }
    EXPECT_EQ(Chunks(*store, "j-1", 1).size(), 1u);
  }
  // The bound counts what an earlier start left.
  auto store = *Store::Open(folder.path(), limits);
  write(*store, "j-2", 1, 30);
  EXPECT_THAT(Chunks(*store, "j-1", 1), ElementsAre());
  EXPECT_EQ(Chunks(*store, "j-2", 1).size(), 2u);
  EXPECT_EQ(Chunks(*store, "j-3", 1).size(), 1u);
  write(*store, "j-3", 1, 500);
  EXPECT_THAT(Chunks(*store, "j-2", 1), ElementsAre());
  EXPECT_EQ(Chunks(*store, "j-3", 1).size(), 2u);  // of the only one nothing is
}

TEST(Store, TracesLeaveASmallDiskToTheJobs) {
  TempFolder folder;
  const SmallDisk disk(folder.path(), 8);
  if (!disk.mounted()) GTEST_SKIP() << SmallDisk::kNeeds;
  StoreLimits limits;
  limits.reserve_bytes = 1 << 20;
  auto store = *Store::Open(folder.path(), limits);
  for (int i = 0; i < 20; ++i) {
    JobRow row = Row(absl::StrCat("j-", i));
    ASSERT_TRUE(Insert(store.get(), &row).ok());
    WriteBatch batch;
    batch.traces.push_back({row.id, 1, 0, 0, std::string(600 << 10, 'x')});  // 12 MB in all
    ASSERT_TRUE(Write(store.get(), batch).ok()) << i;
  }
  EXPECT_THAT(Chunks(*store, "j-18", 1), ElementsAre());
  EXPECT_EQ(Chunks(*store, "j-19", 1).size(), 1u);
  EXPECT_TRUE(store->has_reserve());
}

TEST(Store, AForgottenJobLeavesNoTraceAndMakesRoom) {
  TempFolder folder;
  StoreLimits limits;
  limits.trace_bytes = 100;
  auto store = *Store::Open(folder.path(), limits);
  for (const char* id : {"j-1", "j-2", "j-3"}) {
    InsertEnded(store.get(), id, id[2] * 100);
    WriteBatch batch;
    batch.traces.push_back({id, 1, 0, 0, std::string(30, 'x')});
    ASSERT_TRUE(Write(store.get(), batch).ok());
  }
  WriteBatch batch;
  batch.expire.keep_jobs = 2;
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_THAT(Chunks(*store, "j-1", 1), ElementsAre());
  EXPECT_EQ(Chunks(*store, "j-2", 1).size(), 1u);
  // 60 bytes are left: 40 more fit, and nothing else has to go.
  batch.expire = {};
  batch.traces.push_back({"j-3", 1, 0, 1, std::string(40, 'x')});
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_EQ(Chunks(*store, "j-2", 1).size(), 1u);
  EXPECT_EQ(Chunks(*store, "j-3", 1).size(), 2u);
}

}  // namespace
}  // namespace seqpar
