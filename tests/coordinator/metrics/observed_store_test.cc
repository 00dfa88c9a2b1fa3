#include "coordinator/metrics/observed_store.h"

#include <gtest/gtest.h>

#include "tests/support/scrape.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

TEST(ObservedStoreTest, CountsOperationsAndFailuresAndChangesNothing) {
  const TempFolder folder;
  auto opened = Store::Open(folder.path());
  ASSERT_TRUE(opened.ok()) << opened.status();
  MetricRegistry registry(MetricProcess::kCoordinator);
  const std::unique_ptr<Store> store = ObserveStore(*std::move(opened), &registry);
  EXPECT_EQ(SeriesOf(registry.Scrape()).at("seqpar_store_seconds_count{operation=\"write\"}"), 0);
  EXPECT_EQ(store->term(), 1);

  JobRow row;
  row.id = "j-1";
  row.request_id = "r-1";
  row.sequence = store->NewSequence();
  EXPECT_GT(row.sequence, 0);
  WriteBatch batch;
  batch.inserts = {row};
  batch.settings["a"] = "b";
  std::vector<std::string> taken;
  ASSERT_TRUE(store->Write(batch, &taken).ok());
  EXPECT_TRUE(taken.empty());
  ASSERT_TRUE(store->Write(batch, &taken).ok());
  EXPECT_EQ(taken, std::vector<std::string>{"j-1"});
  ASSERT_TRUE(store->Backup(folder / "backup").ok());
  EXPECT_TRUE(store->has_reserve());
  EXPECT_EQ(*store->Setting("a"), "b");
  EXPECT_TRUE(store->Get("j-1")->has_value());

  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.at("seqpar_store_seconds_count{operation=\"write\"}"), 2);
  EXPECT_EQ(series.at("seqpar_store_seconds_count{operation=\"backup\"}"), 1);
  EXPECT_EQ(series.at("seqpar_store_seconds_count{operation=\"setting\"}"), 1);
  EXPECT_EQ(series.at("seqpar_store_seconds_count{operation=\"list\"}"), 0);
  EXPECT_GT(series.at("seqpar_store_seconds_sum{operation=\"write\"}"), 0);
  EXPECT_EQ(series.at("seqpar_store_errors_total{operation=\"write\"}"), 0) << "a taken id is an answer";
}

// Fails whatever it is asked.
class BrokenStore : public Store {
 public:
  int64_t term() const override { return 1; }
  bool restored() const override { return false; }
  absl::Status RaiseTerm(int64_t) override { return Error(); }
  int64_t NewSequence() override { return 1; }
  absl::Status Write(const WriteBatch&, std::vector<std::string>*) override { return Error(); }
  bool has_reserve() const override { return false; }
  void GiveUpReserve() override {}
  absl::Status KeepReserve() override { return Error(); }
  absl::Status Backup(const std::string&) override { return Error(); }
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string&) override { return Error(); }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string&) override { return Error(); }
  absl::StatusOr<std::vector<JobRow>> List(int64_t, int, const std::vector<int>&,
                                           const std::optional<std::string>&) override {
    return Error();
  }
  absl::StatusOr<std::vector<JobRow>> LoadLive() override { return Error(); }
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string&, int) override { return Error(); }
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string&, int, int, int64_t, int64_t) override {
    return Error();
  }
  absl::StatusOr<std::vector<std::string>> LoadDrains() override { return Error(); }
  absl::StatusOr<std::string> Setting(const std::string&) override { return Error(); }

 private:
  static absl::Status Error() { return absl::ResourceExhaustedError("the disk is full"); }
};

TEST(ObservedStoreTest, EveryOperationThatFailsIsCounted) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  const std::unique_ptr<Store> store = ObserveStore(std::make_unique<BrokenStore>(), &registry);
  std::vector<std::string> taken;
  EXPECT_TRUE(absl::IsResourceExhausted(store->Write({}, &taken)));
  EXPECT_FALSE(store->Backup("").ok());
  EXPECT_FALSE(store->FindByRequestId("").ok());
  EXPECT_FALSE(store->Get("").ok());
  EXPECT_FALSE(store->List(1, 1, {}, std::nullopt).ok());
  EXPECT_FALSE(store->LoadLive().ok());
  EXPECT_FALSE(store->LoadAttempt("", 1).ok());
  EXPECT_FALSE(store->LoadTraces("", 1, 0, 0, 1).ok());
  EXPECT_FALSE(store->LoadDrains().ok());
  EXPECT_FALSE(store->Setting("").ok());
  const auto series = SeriesOf(registry.Scrape());
  for (const std::string& operation : InfoOf(Metric::kStoreErrors).labels[0].values) {
    EXPECT_EQ(series.at("seqpar_store_errors_total{operation=\"" + operation + "\"}"), 1) << operation;
  }
}

}  // namespace
}  // namespace seqpar
