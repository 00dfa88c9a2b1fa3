#include "common/base/clock.h"

#include <time.h>

#include "common/base/check.h"

namespace seqpar {
namespace {

int64_t Micros(clockid_t id) {
  timespec now;
  SEQPAR_CHECK(clock_gettime(id, &now) == 0);
  return int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000;
}

class SystemClock : public Clock {
 public:
  int64_t WallMicros() const override { return Micros(CLOCK_REALTIME); }
  int64_t BootMicros() const override { return Micros(CLOCK_BOOTTIME); }
};

}  // namespace

const Clock& Clock::System() {
  static const SystemClock* const clock = new SystemClock;
  return *clock;
}

}  // namespace seqpar
