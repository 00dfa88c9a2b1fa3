#include "common/base/mutex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace seqpar {
namespace {

struct Counter {
  Mutex mutex;
  ConditionVariable changed;
  int value ABSL_GUARDED_BY(mutex) = 0;
};

TEST(Mutex, KeepsOthersOut) {
  Counter counter;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        MutexLock lock(counter.mutex);
        ++counter.value;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(counter.mutex);
  EXPECT_EQ(counter.value, 4000);
}

// The analysis knows neither that a test ends where try_lock fails nor that a lock takes a mutex over.
void TakeOver(Mutex& mutex) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  ASSERT_TRUE(mutex.try_lock());
  {
    MutexLock lock(mutex, std::adopt_lock);
    std::thread other([&] {
      const bool taken = mutex.try_lock();
      EXPECT_FALSE(taken);
      if (taken) mutex.unlock();
    });
    other.join();
  }
  ASSERT_TRUE(mutex.try_lock());
  mutex.unlock();
}

TEST(Mutex, IsRefusedWhileHeldAndTakenOverByALock) {
  Mutex mutex;
  TakeOver(mutex);
}

TEST(ConditionVariable, WaitsWithTheMutexOpenAndHasItAfterwards) {
  Counter counter;
  std::thread setter;
  {
    MutexLock lock(counter.mutex);
    setter = std::thread([&] {
      MutexLock lock(counter.mutex);
      counter.value = 1;
      counter.changed.notify_all();
    });
    while (counter.value == 0) counter.changed.wait(counter.mutex);
    EXPECT_EQ(counter.value, 1);
    std::thread other([&] {
      const bool taken = counter.mutex.try_lock();
      EXPECT_FALSE(taken);
      if (taken) counter.mutex.unlock();
    });
    other.join();
  }
  setter.join();
}

TEST(ConditionVariable, WaitForSaysWhetherItCame) {
  Counter counter;
  MutexLock lock(counter.mutex);
  const auto set = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(counter.mutex) { return counter.value != 0; };
  EXPECT_FALSE(counter.changed.wait_for(counter.mutex, std::chrono::milliseconds(1), set));
  std::thread setter([&] {
    MutexLock lock(counter.mutex);
    counter.value = 1;
    counter.changed.notify_all();
  });
  EXPECT_TRUE(counter.changed.wait_for(counter.mutex, std::chrono::minutes(1), set));
  counter.mutex.unlock();
  setter.join();
  counter.mutex.lock();
}

TEST(ConditionVariable, WaitUntilEndsInThePast) {
  Counter counter;
  MutexLock lock(counter.mutex);
  counter.changed.wait_until(counter.mutex, std::chrono::steady_clock::now() - std::chrono::seconds(1));
  EXPECT_EQ(counter.value, 0);
}

}  // namespace
}  // namespace seqpar
