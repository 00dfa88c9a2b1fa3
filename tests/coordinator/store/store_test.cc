#include "coordinator/store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/store/store_folder.h"
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

absl::Status Write(Store* store, const WriteBatch& batch) {
  std::vector<std::string> taken;
  return store->Write(batch, &taken);
}

absl::Status Insert(Store* store, JobRow* row) {
  row->sequence = store->NewSequence();
  WriteBatch batch;
  batch.inserts = {*row};
  std::vector<std::string> taken;
  const absl::Status written = store->Write(batch, &taken);
  if (!written.ok() || taken.empty()) return written;
  EXPECT_THAT(taken, ElementsAre(row->id));
  return absl::AlreadyExistsError(row->id);
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
    ASSERT_TRUE(Insert(store.get(), &row).ok());
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
    ASSERT_TRUE(Write(store.get(), batch).ok());
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
  ASSERT_TRUE(Insert(store.get(), &first).ok());
  JobRow second = Row("j-2");
  second.request_id = first.request_id;
  EXPECT_EQ(Insert(store.get(), &second).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ((*store->FindByRequestId(first.request_id))->id, "j-1");
  EXPECT_FALSE((*store->FindByRequestId("another")).has_value());
  EXPECT_FALSE((*store->Get("j-2")).has_value());
  // A refused insert leaves no transaction open.
  second.request_id = "its own";
  EXPECT_TRUE(Insert(store.get(), &second).ok());
}

TEST(Store, OneThatIsTakenHarmsNoOtherOfItsBatch) {
  TempFolder folder;
  auto store = Open(folder.path());
  WriteBatch batch;
  for (const char* id : {"j-1", "j-2", "j-3"}) {
    batch.inserts.push_back(Row(id));
    batch.inserts.back().sequence = store->NewSequence();
  }
  batch.inserts[1].request_id = batch.inserts[0].request_id;
  std::vector<std::string> taken;
  ASSERT_TRUE(store->Write(batch, &taken).ok());
  EXPECT_THAT(taken, ElementsAre("j-2"));
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1", "j-3"));
}

TEST(Store, ListsNewestFirstByStateAndPage) {
  TempFolder folder;
  auto store = Open(folder.path());
  WriteBatch batch;
  for (int i = 1; i <= 5; ++i) {
    JobRow row = Row(absl::StrCat("j-", i));
    row.state = i % 2;
    row.live = i != 3;
    ASSERT_TRUE(Insert(store.get(), &row).ok());
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
    ASSERT_TRUE(Insert(store.get(), &row).ok());
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
  ASSERT_TRUE(Insert(store.get(), &row).ok());
  WriteBatch batch;
  batch.attempts.push_back({"j-1", 1, "plan"});
  batch.blobs.push_back({"j-1", 1, "world", 0, "blob"});
  ASSERT_TRUE(Write(store.get(), batch).ok());
  row.live = false;
  batch = WriteBatch();
  batch.jobs.push_back(row);
  ASSERT_TRUE(Write(store.get(), batch).ok());
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
    ASSERT_TRUE(Write(store.get(), batch).ok());
    ASSERT_TRUE(Write(store.get(), batch).ok()) << "again";
  }
  auto store = Open(folder.path());
  EXPECT_THAT(*store->LoadDrains(), ElementsAre("a", "b"));
  WriteBatch batch;
  batch.drains = {{"a", false}};
  ASSERT_TRUE(Write(store.get(), batch).ok());
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
    ASSERT_TRUE(Insert(store.get(), &row).ok());
  }
  // As schema 1 left it.
  Edit(folder.path(),
       "DROP TABLE drains; DROP TABLE traces; DROP INDEX ended_jobs; ALTER TABLE jobs DROP COLUMN end_us; "
       "DROP INDEX "
       "jobs_of_tenant; ALTER TABLE jobs DROP COLUMN tenant; "
       "PRAGMA user_version = 1");
  auto store = Open(folder.path());
  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->term(), 2);
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1"));
  EXPECT_TRUE(store->LoadDrains()->empty());
  WriteBatch batch;
  batch.drains = {{"a", true}};
  EXPECT_TRUE(Write(store.get(), batch).ok());
  // As it was, in case that the older program is wanted back.
  sqlite3* copy = nullptr;
  ASSERT_EQ(sqlite3_open_v2((folder / "jobs.sqlite.schema-1").c_str(), &copy, SQLITE_OPEN_READONLY, nullptr),
            SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(copy, "SELECT sequence, id FROM jobs", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_NE(sqlite3_exec(copy, "SELECT end_us FROM jobs", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(copy);
}

TEST(Store, AMigrationThatFailsChangesNothing) {
  TempFolder folder;
  { auto store = Open(folder.path()); }
  // Schema 3's column is there already: its migration cannot pass.
  Edit(folder.path(), "DROP TABLE drains; PRAGMA user_version = 1");
  const absl::Status failed = Store::Open(folder.path()).status();
  EXPECT_THAT(std::string(failed.message()), HasSubstr("tenant"));
  Edit(folder.path(), "CREATE TABLE drains (node TEXT)");  // would not pass had schema 2 been left half done
}

TEST(Store, RefusesWhatANewerVersionWrote) {
  TempFolder folder;
  { auto store = Open(folder.path()); }
  Edit(folder.path(), "PRAGMA user_version = 1000; UPDATE settings SET value = '9.9' WHERE name = 'program'");
  const absl::Status newer = Store::Open(folder.path()).status();
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.message()),
              HasSubstr("newer version (schema 1000, seqpar-coordinator 9.9; this one, "));
}

TEST(Store, RefusesADamagedFile) {
  TempFolder folder;
  {
    auto store = Open(folder.path());
    JobRow row = Row("j-1");
    row.body = std::string(100'000, 'x');
    ASSERT_TRUE(Insert(store.get(), &row).ok());
  }
  const std::string path = folder / "jobs.sqlite";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096);  // the second page: a table's root
  file << std::string(4096, '\xff');
  file.close();
  const absl::Status damaged = Store::Open(folder.path()).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(damaged.message()), HasSubstr("damaged"));
}

// Ended at `end_us`, and nothing is left of it but its row.
void InsertEnded(Store* store, const std::string& id, int64_t end_us) {
  JobRow row = Row(id);
  row.live = false;
  row.end_us = end_us;
  ASSERT_TRUE(Insert(store, &row).ok());
}

TEST(Store, ForgetsEndedJobsByNumberAndByAge) {
  TempFolder folder;
  auto store = Open(folder.path());
  for (int i = 1; i <= 6; ++i) InsertEnded(store.get(), absl::StrCat("j-", i), 100 * i);
  JobRow live = Row("j-live");
  ASSERT_TRUE(Insert(store.get(), &live).ok());
  WriteBatch batch;
  batch.expire.ended_before_us = 300;
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {}, std::nullopt)),
              ElementsAre("j-live", "j-6", "j-5", "j-4", "j-3"));
  batch.expire = {};
  batch.expire.keep_jobs = 2;
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_THAT(Ids(*store->List(kNewest, 9, {}, std::nullopt)), ElementsAre("j-live", "j-6", "j-5"));
  // A number is not given twice, whatever was forgotten.
  InsertEnded(store.get(), "j-7", 700);
  EXPECT_EQ((*store->Get("j-7"))->sequence, 8);
}

TEST(Store, ABackupIsTheStoreOfItsMomentAndCanBeRestored) {
  TempFolder folder;
  auto store = Open(folder / "old");
  JobRow before = Row("j-before"), after = Row("j-after");
  ASSERT_TRUE(Insert(store.get(), &before).ok());
  ASSERT_TRUE(store->Backup(folder / "backup").ok());
  ASSERT_TRUE(Insert(store.get(), &after).ok()) << "it goes on";
  EXPECT_EQ(store->Backup(folder / "backup").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Store::Restore(folder / "backup", folder / "old").code(), absl::StatusCode::kFailedPrecondition)
      << "a store that is open";
  store.reset();
  EXPECT_THAT(std::string(Store::Restore(folder / "backup", folder / "old").message()), HasSubstr("exists"));

  ASSERT_TRUE(Store::Restore(folder / "backup", folder / "new").ok());
  store = Open(folder / "new");
  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(store->restored());
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-before"));
  EXPECT_EQ(store->term(), 2);
  ASSERT_TRUE(store->RaiseTerm(7).ok());
  EXPECT_EQ(store->term(), 8);
  ASSERT_TRUE(store->RaiseTerm(3).ok());
  EXPECT_EQ(store->term(), 8);
  store = nullptr;
  EXPECT_EQ(Open(folder / "new")->term(), 9);
  EXPECT_FALSE(Open(folder / "old")->restored());
}

TEST(Store, WhatIsNoBackupIsNotRestored) {
  TempFolder folder;
  std::ofstream(folder / "text") << "no database at all, whatever its name says";
  EXPECT_FALSE(Store::Restore(folder / "text", folder / "new").ok());
  EXPECT_FALSE(Store::Restore(folder / "absent", folder / "new").ok());
  auto store = Open(folder / "new");
  EXPECT_EQ(store->term(), 1) << "nothing was left behind";
}

TEST(Store, BackupsAreWholeWhileOthersWrite) {
  TempFolder folder;
  auto store = Open(folder.path());
  std::atomic<bool> stop{false};
  // Pairs of jobs, each in one transaction, of a size that makes a copy take many steps.
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) {
      WriteBatch batch;
      for (const char* half : {"a", "b"}) {
        JobRow row = Row(absl::StrCat("j-", i, half));
        row.sequence = store->NewSequence();
        row.body = std::string(50'000, 'x');
        batch.inserts.push_back(row);
      }
      EXPECT_TRUE(Write(store.get(), batch).ok());
    }
  });
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(store->Backup(folder / absl::StrCat("backup-", i)).ok());
    ASSERT_TRUE(Store::Restore(folder / absl::StrCat("backup-", i), folder / absl::StrCat("new-", i)).ok());
    EXPECT_EQ(Open(folder / absl::StrCat("new-", i))->LoadLive()->size() % 2, 0u);
  }
  stop = true;
  writer.join();
}

TEST(Store, AFullDiskRefusesAWriteWholeAndTheReserveMakesRoomForTheNext) {
  TempFolder folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=2m") != 0) {
    GTEST_SKIP() << "a file system of a few megabytes needs the right to mount one";
  }
  StoreLimits limits;
  limits.reserve_bytes = 512 << 10;
  auto store = *Store::Open(folder.path(), limits);
  EXPECT_TRUE(store->has_reserve());
  absl::Status written;
  int jobs = 0;
  while (written.ok() && jobs < 1000) {
    JobRow row = Row(absl::StrCat("j-", ++jobs));
    row.body = std::string(20'000, 'x');
    written = Insert(store.get(), &row);
  }
  EXPECT_EQ(written.code(), absl::StatusCode::kResourceExhausted) << written;
  EXPECT_FALSE((*store->Get(absl::StrCat("j-", jobs))).has_value());
  store->GiveUpReserve();
  EXPECT_FALSE(store->has_reserve());
  WriteBatch batch;
  batch.jobs = {Row("j-1")};
  batch.jobs[0].body = "its end";
  EXPECT_TRUE(Write(store.get(), batch).ok());
  EXPECT_EQ((*store->Get("j-1"))->body, "its end");
  store = nullptr;
  EXPECT_EQ(umount(folder.path().c_str()), 0);
}

TEST(Store, NetworkFileSystemsAreKnownByNumber) {
  EXPECT_STREQ(NetworkFileSystem(0x6969), "NFS");
  EXPECT_STREQ(NetworkFileSystem(static_cast<int32_t>(0xff534d42)), "SMB");
  EXPECT_EQ(NetworkFileSystem(0xef53), nullptr) << "ext4";
  EXPECT_EQ(NetworkFileSystem(0x01021994), nullptr) << "tmpfs";
}

TEST(Store, AnEndedJobStaysLiveUntilItIsCleaned) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  ASSERT_TRUE(Insert(store.get(), &row).ok());
  WriteBatch batch;
  batch.jobs.push_back(row);
  batch.attempts.push_back({"j-1", 1, "plan"});
  ASSERT_TRUE(Write(store.get(), batch).ok());
  EXPECT_THAT(Ids(*store->LoadLive()), ElementsAre("j-1"));
  batch = WriteBatch();
  batch.cleaned = {"j-1"};
  EXPECT_FALSE(batch.empty());
  ASSERT_TRUE(Write(store.get(), batch).ok());
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
    const bool refused =
        second.code() == absl::StatusCode::kFailedPrecondition &&
        std::string(second.message())
                .find(absl::StrCat("another coordinator has ", folder.path(), "/jobs.sqlite open: pid ",
                                   getppid(), " on ")) != std::string::npos;
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
  EXPECT_TRUE(Insert(store.get(), &row).ok());
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
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=8m") != 0) {
    GTEST_SKIP() << "a file system of a few megabytes needs the right to mount one";
  }
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
  store = nullptr;
  EXPECT_EQ(umount(folder.path().c_str()), 0);
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
