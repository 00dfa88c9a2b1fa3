#include "worker/device/nvml/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// SEQPAR_NVML_LIBRARY is the fake of tests/fake_gpu.
class NvmlTest : public ::testing::Test {
 protected:
  NvmlTest() { setenv("SEQPAR_FAKE_GPUS", (folder_ / "gpus").c_str(), 1); }
  void Script(const std::string& text) { std::ofstream(folder_ / "gpus") << text; }

  TempFolder folder_;
};

constexpr char kTwo[] =
    "gpu GPU-a 1000 600 90 0000:1b:00.0 NVIDIA H200\n"
    "gpu GPU-b 2000 700 100 0000:9a:00.0 Other\n";

TEST_F(NvmlTest, SaysWhatTheDriverSays) {
  Script(std::string(kTwo) + "link GPU-a GPU-b\nlink GPU-a GPU-b\nprocess GPU-b 77 5\n");
  const auto answer = AskNvml();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->driver, "570.86.15");
  ASSERT_EQ(answer->gpus.size(), 2u);
  const GpuInventory &a = answer->gpus[0], &b = answer->gpus[1];
  EXPECT_EQ(a.name, "NVIDIA H200");
  EXPECT_EQ(a.memory.uuid, "GPU-a");
  EXPECT_EQ(a.memory.used_bytes, 600);
  EXPECT_EQ(a.total_bytes, 1000);
  EXPECT_EQ(a.compute_capability, 90);
  EXPECT_EQ(b.compute_capability, 100);
  EXPECT_EQ(a.pci_bus_id, "0000:1b:00.0") << "as sysfs spells it";
  EXPECT_THAT(a.nvlinks, ElementsAre(Pair("GPU-b", 2)));
  EXPECT_THAT(b.nvlinks, ElementsAre(Pair("GPU-a", 2)));
  EXPECT_THAT(a.memory.processes, IsEmpty());
  EXPECT_THAT(b.memory.processes, ElementsAre(Pair(77, 5)));
}

TEST_F(NvmlTest, LinksThroughASwitchAreThoseThatBothHave) {
  Script(std::string(kTwo) + "switch GPU-a 18\nswitch GPU-b 12\n");
  const auto answer = AskNvml();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->gpus[0].nvlinks, ElementsAre(Pair("GPU-b", 12)));
}

TEST_F(NvmlTest, MemoryAlone) {
  std::string script = kTwo;
  for (int pid = 1; pid <= 100; ++pid) script += "process GPU-a " + std::to_string(pid) + " 1\n";
  Script(script);
  const auto memory = AskNvmlMemory();
  ASSERT_TRUE(memory.ok()) << memory.status();
  ASSERT_EQ(memory->size(), 2u);
  EXPECT_EQ((*memory)[1].used_bytes, 700);
  EXPECT_EQ((*memory)[0].processes.size(), 100u) << "more than it asks for at first";
}

TEST_F(NvmlTest, ErrorsSayWhatFailedInTheLibrarysWords) {
  Script(std::string(kTwo) + "fail nvmlDeviceGetMemoryInfo 999\n");
  EXPECT_THAT(std::string(AskNvml().status().message()), HasSubstr("memory: Unknown Error"));
  Script("fail nvmlInit_v2 999\n");
  EXPECT_THAT(std::string(AskNvmlMemory().status().message()), HasSubstr("start: Unknown Error"));
}

TEST_F(NvmlTest, WhatACardDoesNotSupportIsLeftOut) {
  Script(std::string(kTwo) +
         "link GPU-a GPU-b\nfail nvmlDeviceGetNvLinkState 3\n"
         "fail nvmlDeviceGetComputeRunningProcesses_v3 3\n");
  const auto answer = AskNvml();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->gpus[0].nvlinks, IsEmpty());
}

TEST_F(NvmlTest, ALibraryThatIsNotThereIsNamed) {
  const std::string library = std::getenv("SEQPAR_NVML_LIBRARY");
  setenv("SEQPAR_NVML_LIBRARY", "/no/such/nvml.so", 1);
  const absl::Status status = AskNvml().status();
  setenv("SEQPAR_NVML_LIBRARY", library.c_str(), 1);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such/nvml.so"));
}

TEST(Nvml, BusIdsAreSpelledAsInSysfs) {
  EXPECT_EQ(PlainBusId("00000000:1B:00.0"), "0000:1b:00.0");
  EXPECT_EQ(PlainBusId("0000:1b:00.0"), "0000:1b:00.0");
  EXPECT_EQ(PlainBusId(""), "");
}

}  // namespace
}  // namespace seqpar
