#include "worker/daemon/calibration.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <fstream>

#include "common/base/fd.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

DeviceRates SomeRates() {
  DeviceRates rates{100, 80, 60, 40, 200};
  rates.operation_seconds = 1e-6;
  rates.attention = {{64, 80, 60, 1e-7, 2e-7, 3e-7, 4e-7}};
  return rates;
}

TEST(CalibrationTest, SlotsThatShareCoresShareTheRates) {
  const DeviceRates alone = ShareOfCores(SomeRates(), 8, 8);
  EXPECT_EQ(alone.gemm_flops, 100);
  const DeviceRates shared = ShareOfCores(SomeRates(), 8, 2);
  EXPECT_EQ(shared.gemm_flops, 25);
  EXPECT_EQ(shared.attention_forward_flops, 20);
  EXPECT_EQ(shared.attention_backward_flops, 15);
  EXPECT_EQ(shared.copy_bytes, 10);
  EXPECT_EQ(shared.operation_seconds, 4e-6);
  EXPECT_EQ(shared.attention[0].forward_flops, 20);
  EXPECT_EQ(shared.attention[0].backward_edge, 16e-7);
  EXPECT_EQ(shared.peak_flops, 200) << "the peak is by CPU time, whoever shares the core";
}

TEST(CalibrationTest, AnEstimatedLinkCountsOnHalfOfTheCopyRate) {
  EXPECT_EQ(EstimateLocalLink(SomeRates()).bandwidth, 20);
  EXPECT_GT(EstimateLocalLink(SomeRates()).latency, 0);
}

TEST(CalibrationTest, TheKeyNamesWhatFiguresDependOn) {
  WorkerConfig config;
  config.cpu_slots = 3;
  config.threads_per_slot = 2;
  const std::string key = CalibrationKey(config);
  EXPECT_NE(key.find(ProcessorName()), std::string::npos);
  EXPECT_NE(key.find(" cores"), std::string::npos);
  config.cpu_slots = 2;
  EXPECT_NE(CalibrationKey(config), key);
  config.cpu_slots = 3;
  config.threads_per_slot = 1;
  EXPECT_NE(CalibrationKey(config), key);
  config.threads_per_slot = 2;
  config.data_interface = "eth7";
  EXPECT_NE(CalibrationKey(config), key);
  config.data_interface = "";
  EXPECT_EQ(CalibrationKey(config), key);
}

class CachedCalibrationTest : public ::testing::Test {
 protected:
  CachedCalibrationTest() {
    config_.state_dir = folder_.path();
    config_.cpu_slots = 3;
    config_.threads_per_slot = 2;
    stopped_.Reset(eventfd(1, EFD_CLOEXEC));  // readable: a measurement ends at once
  }

  void WriteCache(const std::string& key, const std::string& node) {
    std::ofstream(config_.state_dir + "/calibration.json")
        << "{\"key\": \"" << key << "\", \"node\": " << node << "}";
  }
  std::string Key() const { return CalibrationKey(config_); }

  static constexpr char kNode[] =
      R"({"devices": [{"rates": {"gemmFlops": 1e11, "attentionForwardFlops": 8e10, "attentionBackwardFlops": 6e10,
          "copyBytes": 1e10, "peakFlops": 2e11,
          "attention": [{"headDim": 64, "forwardFlops": 7e10, "backwardFlops": 5e10}]}}],
          "local": {"latency": 1e-5, "bandwidth": 4e9}, "cores": 2, "startSeconds": 0.25})";
  TempFolder folder_;
  WorkerConfig config_;
  UniqueFd stopped_;
};

TEST_F(CachedCalibrationTest, IsTakenWhereItIsOfTheSameMachineAndSlots) {
  WriteCache(Key(), kNode);
  const auto calibration = Calibrate(config_, stopped_.get());
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  ASSERT_EQ(calibration->slots.size(), 3u);
  EXPECT_EQ(calibration->slots[2].gemm_flops, 1e11);
  EXPECT_EQ(AttentionRatesAt(calibration->slots[2], 64).forward_flops, 7e10);
  EXPECT_EQ(calibration->local.latency, 1e-5);
  EXPECT_EQ(calibration->local.bandwidth, 4e9);
  EXPECT_EQ(calibration->cores, 2);
  EXPECT_EQ(calibration->start_seconds, 0.25);
}

TEST_F(CachedCalibrationTest, IsMeasuredAgainWhereItDoesNotFit) {
  std::string no_rate = kNode;
  no_rate.replace(no_rate.find("1e11"), 4, "-1");
  for (const auto& [key, node] : {std::pair<std::string, std::string>{"another machine", kNode},
                                  {Key(), "{}"},
                                  {Key(), no_rate},
                                  {Key(), R"({"devices": [{}]})"},
                                  {Key(), "not JSON"}}) {
    WriteCache(key, node);
    EXPECT_EQ(Calibrate(config_, stopped_.get()).status().code(), absl::StatusCode::kCancelled)
        << key << node;
  }
  WriteCache(Key(), kNode);
  config_.recalibrate = true;
  EXPECT_EQ(Calibrate(config_, stopped_.get()).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace seqpar
