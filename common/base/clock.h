// Time as a constructor argument: production reads the system, tests advance a fake.
#ifndef SEQPAR_COMMON_BASE_CLOCK_H_
#define SEQPAR_COMMON_BASE_CLOCK_H_

#include <atomic>
#include <cstdint>

namespace seqpar {

class Clock {
 public:
  virtual ~Clock() = default;
  // Microseconds since the Unix epoch; may jump.
  virtual int64_t WallMicros() const = 0;
  // Microseconds of CLOCK_BOOTTIME: monotonic, counts suspended time; what leases count by
  // (docs/reliability.md).
  virtual int64_t BootMicros() const = 0;
  // The process-wide system clock. Never destroyed.
  static const Clock& System();
};

class FakeClock : public Clock {
 public:
  explicit FakeClock(int64_t start_us = 1'000'000) : now_us_(start_us) {}
  int64_t WallMicros() const override { return now_us_.load(); }
  int64_t BootMicros() const override { return now_us_.load(); }
  void AdvanceMicros(int64_t us) { now_us_ += us; }

 private:
  std::atomic<int64_t> now_us_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_CLOCK_H_
