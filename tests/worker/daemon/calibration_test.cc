#include "worker/daemon/calibration.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <fstream>

#include "common/base/fd.h"
#include "common/base/version.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

constexpr DeviceRates kRates{100, 80, 60, 40, 200};

TEST(CalibrationTest, SlotsThatShareCoresShareTheRates) {
  const DeviceRates alone = ShareOfCores(kRates, 8, 8);
  EXPECT_EQ(alone.gemm_flops, 100);
  const DeviceRates shared = ShareOfCores(kRates, 8, 2);
  EXPECT_EQ(shared.gemm_flops, 25);
  EXPECT_EQ(shared.attention_forward_flops, 20);
  EXPECT_EQ(shared.attention_backward_flops, 15);
  EXPECT_EQ(shared.copy_bytes, 10);
  EXPECT_EQ(shared.peak_flops, 200) << "the peak is by CPU time, whoever shares the core";
}

TEST(CalibrationTest, ALinkCountsOnHalfOfTheCopyRate) {
  EXPECT_EQ(EstimateLocalLink(kRates).bandwidth, 20);
  EXPECT_GT(EstimateLocalLink(kRates).latency, 0);
}

class CachedCalibrationTest : public ::testing::Test {
 protected:
  CachedCalibrationTest() {
    config_.state_dir = folder_.path();
    config_.cpu_slots = 3;
    config_.threads_per_slot = 2;
    stopped_.Reset(eventfd(1, EFD_CLOEXEC));  // readable: a measurement ends at once
  }

  void WriteCache(const std::string& key, const std::string& rates) {
    std::ofstream(config_.state_dir + "/calibration.json")
        << "{\"key\": \"" << key << "\", \"rates\": " << rates << "}";
  }
  std::string Key() const { return std::string(kVersion) + " | " + ProcessorName() + " | 3 x 2"; }

  static constexpr char kRatesJson[] =
      R"({"gemm_flops": 1e11, "attention_forward_flops": 8e10, "attention_backward_flops": 6e10,
          "copy_bytes": 1e10, "peak_flops": 2e11})";
  TempFolder folder_;
  WorkerConfig config_;
  UniqueFd stopped_;
};

TEST_F(CachedCalibrationTest, IsTakenWhereItIsOfTheSameMachineAndSlots) {
  WriteCache(Key(), kRatesJson);
  const auto calibration = Calibrate(config_, stopped_.get());
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  ASSERT_EQ(calibration->slots.size(), 3u);
  EXPECT_EQ(calibration->slots[2].gemm_flops, 1e11);
  EXPECT_EQ(calibration->local.bandwidth, 5e9);
}

TEST_F(CachedCalibrationTest, IsMeasuredAgainWhereItDoesNotFit) {
  for (const auto& [key, rates] : {std::pair<std::string, std::string>{"another machine", kRatesJson},
                                   {Key(), "{}"},
                                   {Key(), R"({"gemm_flops": -1})"},
                                   {Key(), "not JSON"}}) {
    WriteCache(key, rates);
    EXPECT_EQ(Calibrate(config_, stopped_.get()).status().code(), absl::StatusCode::kCancelled)
        << key << rates;
  }
  WriteCache(Key(), kRatesJson);
  config_.recalibrate = true;
  EXPECT_EQ(Calibrate(config_, stopped_.get()).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace seqpar
