// What a store keeps, finds and forgets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/store/store_fixture.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

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

TEST(Store, ARowNeverGoesBackToAnEarlierRevision) {
  TempFolder folder;
  auto store = Open(folder.path());
  JobRow row = Row("j-1");
  row.revision = 5;
  ASSERT_TRUE(Insert(store.get(), &row).ok());
  const auto update = [&](const std::string& id, int64_t revision) {
    WriteBatch batch;
    batch.jobs = {Row(id)};
    batch.jobs[0].revision = revision;
    batch.jobs[0].body = absl::StrCat("at ", revision);
    batch.settings["written"] = absl::StrCat(revision);
    return Write(store.get(), batch);
  };
  EXPECT_TRUE(update("j-1", 7).ok());
  EXPECT_TRUE(update("j-1", 7).ok()) << "what was written may be written again";
  EXPECT_EQ(update("j-1", 6).code(), absl::StatusCode::kInternal);
  EXPECT_EQ((*store->Get("j-1"))->body, "at 7");
  EXPECT_EQ(*store->Setting("written"), "7") << "nothing of the batch";
  EXPECT_TRUE(update("j-2", 1).ok()) << "its insert was refused";
  EXPECT_FALSE((*store->Get("j-2")).has_value());
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

}  // namespace
}  // namespace seqpar
