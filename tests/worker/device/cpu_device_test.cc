// Configuration, memory, the thread pool and calibration of the CPU device.
#include "worker/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "worker/device/cpu/calibrate.h"
#include "worker/device/cpu/host_memory.h"
#include "worker/device/cpu/peak.h"
#include "worker/device/cpu/scratch.h"
#include "worker/device/cpu/simd.h"
#include "worker/device/cpu/thread_pool.h"

namespace seqpar {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

TEST(CpuDeviceTest, AutoTakesTheWidestVectors) {
  const auto device = MakeCpuDevice({});
  ASSERT_TRUE(device.ok());
  const std::vector<std::string> names = cpu::SimdNames();
  EXPECT_EQ((*device)->info().kernel, names.empty() ? "scalar" : names.front());
  EXPECT_EQ((*device)->info().kind, "cpu");
  EXPECT_FALSE((*device)->info().name.empty());
  EXPECT_EQ((*device)->info().threads, 1);
}

TEST(CpuDeviceTest, RefusesWhatItCannotBe) {
  EXPECT_EQ(MakeCpuDevice({0, 0, "auto"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeCpuDevice({1, -1, "auto"}).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status unknown = MakeCpuDevice({1, 0, "avx9"}).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(unknown), reason::kInvalidArgument);
}

TEST(CpuDeviceTest, MemoryIsCountedAndLimited) {
  auto device = std::move(MakeCpuDevice({1, 10 * kMiB, "auto"})).value();
  {
    auto small = device->Allocate(100, "small");
    auto big = device->Allocate(4 * kMiB + 1, "big");
    ASSERT_TRUE(small.ok() && big.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(small->data()) % 64, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(big->data()) % (2 * kMiB), 0u);
    EXPECT_EQ(device->memory().used_bytes, 4 * kMiB + 101);
    const absl::Status refused = device->Allocate(6 * kMiB, "ring buffers").status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(refused), reason::kOutOfMemory);
    EXPECT_NE(std::string(refused.message()).find("ring buffers"), std::string::npos);
    Buffer moved = std::move(*small);
    EXPECT_EQ(moved.bytes(), 100);
    EXPECT_EQ(device->memory().used_bytes, 4 * kMiB + 101);
  }
  EXPECT_EQ(device->memory().used_bytes, 0);
  EXPECT_EQ(device->memory().peak_bytes, 4 * kMiB + 101);
  device->ResetPeak();
  EXPECT_EQ(device->memory().peak_bytes, 0);
  EXPECT_TRUE(device->Allocate(0, "nothing").ok());
}

TEST(CpuDeviceTest, CalibrationMeasuresEveryRate) {
  auto device = std::move(MakeCpuDevice({2, 0, "auto"})).value();
  int meetings = 0;
  CpuCalibration how;
  how.head_dims = {40, 64};
  how.together = [&meetings] {
    ++meetings;
    return absl::OkStatus();
  };
  const auto rates = MeasureCpuRates(*device, how);
  ASSERT_TRUE(rates.ok()) << rates.status();
  EXPECT_GT(rates->gemm_flops, 0);
  EXPECT_GT(rates->gemm_input_gradient_flops, 0);
  EXPECT_GT(rates->gemm_weight_gradient_flops, 0);
  EXPECT_GT(rates->weight_bytes, 0);
  EXPECT_GT(rates->attention_forward_flops, 0);
  EXPECT_GT(rates->attention_backward_flops, 0);
  EXPECT_GT(rates->pointwise_bytes, 0);
  EXPECT_GT(rates->copy_bytes, 0);
  EXPECT_GT(rates->touch_bytes, 0);
  EXPECT_GT(rates->operation_seconds, 0);
  EXPECT_GT(rates->peak_flops, 0);
  ASSERT_EQ(rates->attention.size(), 2u);
  EXPECT_EQ(rates->attention[0].head_dim, 40);
  EXPECT_GT(rates->attention[1].forward_flops, 0);
  EXPECT_GT(rates->attention[1].backward_flops, 0);
  EXPECT_EQ(meetings, 8 + 2 * 6) << "every measurement begins together with the other slots'";
  how.together = [] { return absl::UnavailableError("a slot is gone"); };
  EXPECT_TRUE(absl::IsUnavailable(MeasureCpuRates(*device, how).status()));
  auto tiny = std::move(MakeCpuDevice({1, kMiB, "auto"})).value();
  EXPECT_EQ(MeasureCpuRates(*tiny, {}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(HostMemoryTest, FreedBigBlocksAreReusedWithinTheLargestUse) {
  HostMemory memory(0);
  void* first = *memory.Allocate(4 * kMiB, "a");
  std::memset(first, 1, 4 * kMiB);
  memory.Free(first, 4 * kMiB);
  EXPECT_EQ(memory.use().used_bytes, 0);              // kept, yet not used
  void* again = *memory.Allocate(3 * kMiB + 1, "b");  // the same size in huge pages
  EXPECT_EQ(again, first);
  memory.Free(again, 3 * kMiB + 1);
  EXPECT_EQ(memory.use().peak_bytes, 4 * kMiB);
}

TEST(HostMemoryTest, AFullAllocationAfterManySizesStaysWithinTheLimit) {
  HostMemory memory(64 * kMiB);
  for (int64_t size = 2; size <= 64; size += 6) {
    auto block = memory.Allocate(size * kMiB, "sizes");
    ASSERT_TRUE(block.ok());
    memory.Free(*block, size * kMiB);
  }
  auto all = memory.Allocate(64 * kMiB, "all");
  ASSERT_TRUE(all.ok());
  EXPECT_FALSE(memory.Allocate(1, "one more").ok());
  memory.Free(*all, 64 * kMiB);
}

TEST(ScratchPoolTest, BlocksAreReusedAndCounted) {
  HostMemory memory(0);
  {
    ScratchPool pool(&memory);
    float* first;
    {
      auto scratch = pool.Floats(1000);
      ASSERT_TRUE(scratch.ok());
      first = scratch->floats();
    }
    const int64_t used = memory.use().used_bytes;
    EXPECT_GE(used, 4000);
    {
      auto same = pool.Floats(900);
      EXPECT_EQ(same->floats(), first);
      auto other = pool.Floats(900);  // the first is lent out
      EXPECT_NE(other->floats(), first);
    }
    auto larger = pool.Floats(100'000);
    EXPECT_GE(memory.use().used_bytes, 400'000);
  }
  EXPECT_EQ(memory.use().used_bytes, 0);
}

TEST(ThreadPoolTest, EveryTaskRunsOnceAndParticipantsAreDistinct) {
  ThreadPool pool(4);
  EXPECT_EQ(pool.threads(), 4);
  for (int64_t tasks : {0, 1, 2, 3, 4, 1000}) {
    std::vector<std::atomic<int>> runs(tasks);
    std::vector<std::atomic<bool>> busy(4);
    pool.ParallelFor(tasks, [&](int64_t task, int participant) {
      EXPECT_FALSE(busy[participant].exchange(true));
      ++runs[task];
      busy[participant] = false;
    });
    for (const auto& run : runs) EXPECT_EQ(run, 1);
  }
}

// What a watcher sees from outside: work grows before the call that does it has returned.
TEST(ThreadPoolTest, TasksAreCountedWhileACallRuns) {
  for (const int threads : {1, 2}) {
    ThreadPool pool(threads);
    std::atomic<int64_t> most_seen_inside{0};
    pool.ParallelFor(16, [&](int64_t, int) {
      const int64_t seen = pool.tasks_done();
      int64_t most = most_seen_inside;
      while (seen > most && !most_seen_inside.compare_exchange_weak(most, seen)) {
      }
    });
    EXPECT_EQ(pool.tasks_done(), 16);
    EXPECT_GT(most_seen_inside, 0);
    pool.ParallelFor(3, [](int64_t, int) {});
    EXPECT_EQ(pool.tasks_done(), 19);
  }
}

TEST(ThreadPoolTest, ASecondCallerDoesNotWaitForTheFirst) {
  ThreadPool pool(2);
  std::promise<void> first_inside, release;
  std::shared_future<void> released = release.get_future().share();
  std::atomic<bool> told = false;
  std::thread first([&] {
    pool.ParallelFor(2, [&](int64_t, int) {
      if (!told.exchange(true)) first_inside.set_value();
      released.wait();
    });
  });
  first_inside.get_future().wait();
  int done = 0;
  pool.ParallelFor(10, [&](int64_t, int participant) {
    EXPECT_EQ(participant, 0);
    ++done;
  });
  EXPECT_EQ(done, 10);  // while the first call is still inside
  release.set_value();
  first.join();
}

TEST(PeakTest, IsMeasured) { EXPECT_GT(MeasureFmaPeak(0.001), 1e8); }

}  // namespace
}  // namespace seqpar
