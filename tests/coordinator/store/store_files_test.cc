// The files of a store: schemas, backups, a full disk, and who may have them open.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/store/store_folder.h"
#include "tests/coordinator/store/store_fixture.h"
#include "tests/support/small_disk.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
  const SmallDisk disk(folder.path(), 2);
  if (!disk.mounted()) GTEST_SKIP() << SmallDisk::kNeeds;
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
}

TEST(Store, OpensOnAFullDiskByItsReserve) {
  TempFolder folder;
  const SmallDisk disk(folder.path(), 2);
  if (!disk.mounted()) GTEST_SKIP() << SmallDisk::kNeeds;
  StoreLimits limits;
  limits.reserve_bytes = 512 << 10;
  JobRow row = Row("j-1");
  ASSERT_TRUE(Insert(Store::Open(folder.path(), limits)->get(), &row).ok());
  const std::string ballast = folder / "ballast";
  {
    std::ofstream file(ballast, std::ios::binary);
    const std::string page(4096, 'x');
    while (file.write(page.data(), page.size()).flush()) {
    }
  }
  auto store = Store::Open(folder.path(), limits);
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->term(), 2);
  EXPECT_FALSE((*store)->has_reserve());
  WriteBatch batch;
  batch.jobs = {Row("j-1")};
  batch.jobs[0].body = "its end";
  EXPECT_TRUE(Write(store->get(), batch).ok());
  std::filesystem::remove(ballast);
  EXPECT_TRUE((*store)->KeepReserve().ok());
  EXPECT_TRUE((*store)->has_reserve());
}

TEST(Store, NetworkFileSystemsAreKnownByNumber) {
  EXPECT_STREQ(NetworkFileSystem(0x6969), "NFS");
  EXPECT_STREQ(NetworkFileSystem(static_cast<int32_t>(0xff534d42)), "SMB");
  EXPECT_EQ(NetworkFileSystem(0xef53), nullptr) << "ext4";
  EXPECT_EQ(NetworkFileSystem(0x01021994), nullptr) << "tmpfs";
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

}  // namespace
}  // namespace seqpar
