#include "common/metrics/disk_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "tests/support/scrape.h"
#include "tests/support/small_disk.h"
#include "tests/support/temp_folder.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

using std::chrono::milliseconds;

bool Within(int seconds, const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + TestSeconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// A file system whose server can be gone: calls wait until it is back.
class Disk {
 public:
  std::optional<DiskSpace> Ask() {
    MutexLock lock(mutex_);
    ++asked_;
    while (gone_) changed_.wait(mutex_);
    return space_;
  }
  void SetGone(bool gone) {
    MutexLock lock(mutex_);
    gone_ = gone;
    changed_.notify_all();
  }
  void SetSpace(std::optional<DiskSpace> space) {
    MutexLock lock(mutex_);
    space_ = space;
  }
  int asked() const {
    MutexLock lock(mutex_);
    return asked_;
  }

 private:
  mutable Mutex mutex_;
  ConditionVariable changed_;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<DiskSpace> space_ ABSL_GUARDED_BY(mutex_) = DiskSpace{3, 10};
  int asked_ ABSL_GUARDED_BY(mutex_) = 0;
};

class DiskWatchTest : public ::testing::Test {
 protected:
  std::shared_ptr<DiskWatch> Watch() {
    return std::make_shared<DiskWatch>([disk = disk_] { return disk->Ask(); }, &clock_, milliseconds(1));
  }

  const std::shared_ptr<Disk> disk_ = std::make_shared<Disk>();
  FakeClock clock_;
};

TEST_F(DiskWatchTest, AsksAgainAndAgain) {
  const auto watch = Watch();
  ASSERT_TRUE(Within(30, [&] { return watch->Last().has_value(); }));
  EXPECT_EQ(watch->Last()->free_bytes, 3);
  EXPECT_EQ(watch->Last()->size_bytes, 10);
  disk_->SetSpace(DiskSpace{2, 10});
  EXPECT_TRUE(Within(30, [&] { return watch->Last()->free_bytes == 2; }));
  disk_->SetSpace(std::nullopt);
  EXPECT_TRUE(Within(30, [&] { return !watch->Last().has_value(); }));
}

TEST_F(DiskWatchTest, NobodyWaitsForOneThatDoesNotAnswer) {
  const auto watch = Watch();
  ASSERT_TRUE(Within(30, [&] { return watch->Last().has_value(); }));
  disk_->SetGone(true);
  const int asked = disk_->asked();
  // One call may have been answered meanwhile; the one after it is not.
  ASSERT_TRUE(Within(30, [&] { return disk_->asked() > asked; }));
  clock_.AdvanceMicros(DiskWatch::kSilentUs + 1);
  EXPECT_FALSE(watch->Last().has_value());
  disk_->SetGone(false);
  EXPECT_TRUE(Within(30, [&] { return watch->Last().has_value(); }));
}

TEST_F(DiskWatchTest, EndsBesideACallThatDoesNotComeBack) {
  disk_->SetGone(true);
  auto watch = Watch();
  ASSERT_TRUE(Within(30, [&] { return disk_->asked() == 1; }));
  watch.reset();
  const std::weak_ptr<Disk> disk = disk_;
  disk_->SetGone(false);
  // What the thread holds goes when the call has come back: this test's own is the last.
  EXPECT_TRUE(Within(30, [&] { return disk.use_count() == 1; }));
  EXPECT_EQ(disk_->asked(), 1);
}

class DiskMetricsTest : public ::testing::Test {
 protected:
  static constexpr char kFree[] = "seqpar_data_root_free_bytes{root=\"search/own\"}";
  static constexpr char kSize[] = "seqpar_data_root_size_bytes{root=\"search/own\"}";

  std::map<std::string, double> Shown(MetricRegistry* registry, const std::string& name) {
    std::map<std::string, double> series;
    EXPECT_TRUE(Within(30, [&] {
      series = SeriesOf(registry->Scrape());
      return series.count(name) != 0;
    })) << name;
    return series;
  }

  TempFolder folder_;
};

TEST_F(DiskMetricsTest, ShowsTheStateFolderAndEachDataRoot) {
  for (const char* name : {"state", "data", "own"}) std::filesystem::create_directory(folder_ / name);
  const SmallDisk disk(folder_ / "own", 1);
  if (!disk.mounted()) GTEST_SKIP() << SmallDisk::kNeeds;
  const auto roots = DataRoots::Create({{"data", folder_ / "data"}, {"search/own", folder_ / "own"}});
  ASSERT_TRUE(roots.ok()) << roots.status();
  std::ofstream(folder_ / "own" + "/file") << std::string(300'000, 'x');
  MetricRegistry registry(MetricProcess::kWorker);
  AddDiskMetrics(folder_ / "state", *roots, &Clock::System(), &registry);
  auto series = Shown(&registry, kFree);
  EXPECT_EQ(series.at(kSize), 1 << 20);
  EXPECT_LT(series.at(kFree), (1 << 20) - 300'000);
  EXPECT_GT(series.at(kFree), 0);
  series = Shown(&registry, "seqpar_data_root_size_bytes{root=\"data\"}");
  EXPECT_GT(series.at("seqpar_data_root_size_bytes{root=\"data\"}"), 1 << 20);
  series = Shown(&registry, "seqpar_state_dir_free_bytes");
  EXPECT_GT(series.at("seqpar_state_dir_size_bytes"), 0);
  EXPECT_LE(series.at("seqpar_state_dir_free_bytes"), series.at("seqpar_state_dir_size_bytes"));
}

TEST_F(DiskMetricsTest, AFileSystemThatCannotBeAskedHasNoSeries) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  const auto roots = DataRoots::Create({{"data", folder_.path()}});
  ASSERT_TRUE(roots.ok()) << roots.status();
  AddDiskMetrics(folder_ / "none", *roots, &Clock::System(), &registry);
  const auto series = Shown(&registry, "seqpar_data_root_free_bytes{root=\"data\"}");
  EXPECT_EQ(series.count("seqpar_state_dir_free_bytes"), 0u);
}

}  // namespace
}  // namespace seqpar
