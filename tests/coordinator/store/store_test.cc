#include "coordinator/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kNewest = std::numeric_limits<int64_t>::max();

JobRow Row(const std::string& id) {
  JobRow row;
  row.id = id;
  row.request_id = "request of " + id;
  row.request = std::string("bytes\0with a zero", 17);
  row.create_us = 5;
  row.body = "body of " + id;
  return row;
}

std::unique_ptr<Store> Open(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(folder);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

std::vector<std::string> Ids(const std::vector<JobRow>& rows) {
  std::vector<std::string> ids;
  for (const JobRow& row : rows) ids.push_back(row.id);
  return ids;
}

TEST(Store, KeepsWhatWasWrittenAcrossStarts) {
  TempFolder folder;
  {
    auto store = Open(folder / "deep/er");
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(store->term(), 1);
    JobRow row = Row("j-1");
    ASSERT_TRUE(store->Insert(&row).ok());
    EXPECT_EQ(row.sequence, 1);
    row.state = 1;
    row.body = "another body";
    row.report = "a report";
    WriteBatch batch;
    batch.jobs.push_back(row);
    batch.attempts.push_back({"j-1", 2, "plan"});
    batch.blobs.push_back({"j-1", 2, "world", 1, std::string("\0\1", 2)});
    batch.results.push_back({"j-1", 2, 0, "event"});
    batch.settings["calibration"] = "1 2 3";
    ASSERT_TRUE(store->Write(batch).ok());
  }
  auto store = Open(folder / "deep/er");
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->term(), 2);
  const auto row = *store->Get("j-1");
  ASSERT_TRUE(row.has_value());
  EXPECT_EQ(row->body, "another body");
  EXPECT_EQ(row->report, "a report");
  EXPECT_EQ(row->state, 1);
  EXPECT_EQ(row->request.size(), 17u);
  const auto attempt = *store->LoadAttempt("j-1", 2);
  EXPECT_EQ(attempt.plan, "plan");
  EXPECT_EQ(attempt.blobs.at("world").at(1), std::string("\0\1", 2));
  EXPECT_EQ(attempt.results.at(0), "event");
  EXPECT_EQ(*store->Setting("calibration"), "1 2 3");
  EXPECT_EQ(*store->Setting("never written"), "");
}

TEST(Store, FindsByRequestAndRefusesItTwice) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow first = Row("j-1");
  ASSERT_TRUE(store->Insert(&first).ok());
  JobRow second = Row("j-2");
  second.request_id = first.request_id;
  EXPECT_EQ(store->Insert(&second).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ((*store->FindByRequestId(first.request_id))->id, "j-1");
  EXPECT_FALSE((*store->FindByRequestId("another")).has_value());
  EXPECT_FALSE((*store->Get("j-2")).has_value());
  // A refused insert leaves no transaction open.
  second.request_id = "its own";
  EXPECT_TRUE(store->Insert(&second).ok());
}

TEST(Store, ListsNewestFirstByStateAndPage) {
  TempFolder folder;
  auto store = Open(folder.path());
  WriteBatch batch;
  for (int i = 1; i <= 5; ++i) {
    JobRow row = Row(absl::StrCat("j-", i));
    row.state = i % 2;
    row.live = i != 3;
    ASSERT_TRUE(store->Insert(&row).ok());
  }
  EXPECT_THAT(Ids(*store->List(kNewest, 3, {}, std::nullopt)), ElementsAre("j-5", "j-4", "j-3"));
  EXPECT_THAT(Ids(*store->List(3, 3, {}, std::nullopt)), ElementsAre("j-2", "j-1"));
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {0}, std::nullopt)), ElementsAre("j-4", "j-2"));
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {0, 1}, std::nullopt)),
              ElementsAre("j-5", "j-4", "j-3", "j-2", "j-1"));
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1", "j-2", "j-4", "j-5"));
}

TEST(Store, ListsTheJobsOfATenant) {
  TempFolder folder;
  auto store = Open(folder.path());
  for (int i = 1; i <= 6; ++i) {
    JobRow row = Row(absl::StrCat("j-", i));
    row.state = i % 2;
    row.tenant = i <= 3 ? "search" : i == 4 ? "" : "vision";
    ASSERT_TRUE(store->Insert(&row).ok());
  }
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {}, "search")), ElementsAre("j-3", "j-2", "j-1"));
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {1}, "search")), ElementsAre("j-3", "j-1"));
  EXPECT_THAT(Ids(*store->List(3, 1, {}, "search")), ElementsAre("j-2"));
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {}, "")), ElementsAre("j-4"));
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {}, "nobody")), ElementsAre());
  EXPECT_EQ((*store->Get("j-5"))->tenant, "vision");
}

TEST(Store, ForgetsTheAttemptsOfAJobThatEnded) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  ASSERT_TRUE(store->Insert(&row).ok());
  WriteBatch batch;
  batch.attempts.push_back({"j-1", 1, "plan"});
  batch.blobs.push_back({"j-1", 1, "world", 0, "blob"});
  ASSERT_TRUE(store->Write(batch).ok());
  row.live = false;
  batch = WriteBatch();
  batch.jobs.push_back(row);
  ASSERT_TRUE(store->Write(batch).ok());
  const auto attempt = *store->LoadAttempt("j-1", 1);
  EXPECT_EQ(attempt.plan, "");
  EXPECT_TRUE(attempt.blobs.empty());
}

TEST(Store, KeepsDrainsUntilTheyAreTakenBack) {
  TempFolder folder;
  {
    auto store = Open(folder.path());
    WriteBatch batch;
    batch.drains = {{"a", true}, {"b", true}, {"c", false}};
    EXPECT_FALSE(batch.empty());
    ASSERT_TRUE(store->Write(batch).ok());
    ASSERT_TRUE(store->Write(batch).ok()) << "again";
  }
  auto store = Open(folder.path());
  EXPECT_THAT(*store->LoadDrains(), ElementsAre("a", "b"));
  WriteBatch batch;
  batch.drains = {{"a", false}};
  ASSERT_TRUE(store->Write(batch).ok());
  EXPECT_THAT(*store->LoadDrains(), ElementsAre("b"));
}

// Runs SQL on the file of a store that is closed.
void Edit(const std::string& folder, const std::string& sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder + "/jobs.sqlite").c_str(), &db), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_close(db);
}

TEST(Store, BringsAnOlderSchemaUpToDate) {
  TempFolder folder;
  {
    auto store = Open(folder.path());
    JobRow row = Row("j-1");
    ASSERT_TRUE(store->Insert(&row).ok());
  }
  // As schema 1 left it.
  Edit(
      folder.path(),
      "DROP TABLE drains; DROP TABLE traces; DROP INDEX jobs_of_tenant; ALTER TABLE jobs DROP COLUMN tenant; "
      "PRAGMA user_version = 1");
  auto store = Open(folder.path());
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->term(), 2);
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1"));
  EXPECT_TRUE(store->LoadDrains()->empty());
  WriteBatch batch;
  batch.drains = {{"a", true}};
  EXPECT_TRUE(store->Write(batch).ok());
}

TEST(Store, RefusesWhatANewerVersionWrote) {
  TempFolder folder;
  { auto store = Open(folder.path()); }
  Edit(folder.path(), "PRAGMA user_version = 1000");
  const absl::Status newer = Store::Open(folder.path()).status();
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.message()), HasSubstr("newer version (schema 1000"));
}

TEST(Store, AnEndedJobStaysLiveUntilItIsCleaned) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  ASSERT_TRUE(store->Insert(&row).ok());
  WriteBatch batch;
  batch.jobs.push_back(row);
  batch.attempts.push_back({"j-1", 1, "plan"});
  ASSERT_TRUE(store->Write(batch).ok());
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1"));
  batch = WriteBatch();
  batch.cleaned = {"j-1"};
  EXPECT_FALSE(batch.empty());
  ASSERT_TRUE(store->Write(batch).ok());
  EXPECT_TRUE(store->LoadLive()->empty());
  EXPECT_EQ(store->LoadAttempt("j-1", 1)->plan, "");
  EXPECT_TRUE(store->Get("j-1")->has_value());
}

TEST(Store, RefusesASecondProcess) {
  TempFolder folder;
  auto store = Open(folder.path());
  ASSERT_NE(store, nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const absl::Status second = Store::Open(folder.path()).status();
    const bool refused = second.code() == absl::StatusCode::kFailedPrecondition &&
                         std::string(second.message()).find("another coordinator") != std::string::npos;
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Store, RefusesASecondOneInThisProcess) {
  TempFolder folder;
  auto store = Open(folder.path());
  const absl::Status second = Store::Open(folder.path()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()), HasSubstr(folder / "jobs.sqlite"));
  // The first one goes on.
  JobRow row = Row("j-1");
  EXPECT_TRUE(store->Insert(&row).ok());
}

TEST(Store, NamesAFolderThatCannotBeMade) {
  TempFolder folder;
  { auto store = Open(folder.path()); }
  const absl::Status status = Store::Open(folder / "jobs.sqlite/sub").status();
  EXPECT_EQ(ReasonOf(status), reason::kStorage);
  EXPECT_THAT(std::string(status.message()), HasSubstr("jobs.sqlite/sub"));
}

std::vector<std::string> Chunks(Store& store, const std::string& job, int attempt, int rank = -1,
                                int64_t number = 0, int64_t bytes = 1 << 20) {
  std::vector<std::string> chunks;
  for (const TraceRow& row : *store.LoadTraces(job, attempt, rank, number, bytes)) {
    chunks.push_back(absl::StrCat(row.rank, "/", row.number, " ", row.chunk));
  }
  return chunks;
}

TEST(Store, TracesComeInOrderAndByPieces) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  ASSERT_TRUE(store->Insert(&row).ok());
  WriteBatch batch;
  batch.traces = {{"j-1", 1, 1, 0, "d"}, {"j-1", 1, 0, 2, "c"}, {"j-1", 1, 0, 0, "a"}, {"j-1", 2, 0, 0, "z"}};
  ASSERT_TRUE(store->Write(batch).ok());
  batch.traces = {{"j-1", 1, 0, 1, "b"}, {"j-1", 1, 0, 0, "sent again"}};
  ASSERT_TRUE(store->Write(batch).ok());
  EXPECT_THAT(Chunks(*store, "j-1", 1), ElementsAre("0/0 a", "0/1 b", "0/2 c", "1/0 d"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, 0, 1), ElementsAre("0/2 c", "1/0 d"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, -1, 0, 2), ElementsAre("0/0 a", "0/1 b"));
  EXPECT_THAT(Chunks(*store, "j-1", 1, 1, 0), ElementsAre());
  // They outlive what else is kept of a job's attempts.
  row.live = false;
  batch = WriteBatch();
  batch.jobs.push_back(row);
  ASSERT_TRUE(store->Write(batch).ok());
  EXPECT_EQ(Chunks(*store, "j-1", 1).size(), 4u);
}

TEST(Store, PastTheirBoundTheTracesOfTheOldestJobsAreForgotten) {
  TempFolder folder;
  StoreLimits limits;
  limits.trace_bytes = 100;
  const auto write = [](Store& store, const std::string& job, int64_t number, size_t bytes) {
    WriteBatch batch;
    batch.traces.push_back({job, 1, 0, number, std::string(bytes, 'x')});
    ASSERT_TRUE(store.Write(batch).ok());
  };
  {
    auto store = *Store::Open(folder.path(), limits);
    for (const char* id : {"j-1", "j-2", "j-3"}) {
      JobRow row = Row(id);
      ASSERT_TRUE(store->Insert(&row).ok());
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

}  // namespace
}  // namespace seqpar
