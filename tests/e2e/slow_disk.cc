// A disk that answers late. Preloaded into a process, its fsync and fdatasync wait while the file that the
// variable SLOW_DISK names exists, 0.8 s at most; all else is as it was.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

namespace {

constexpr int kWaits = 80;
constexpr int kWaitUs = 10'000;

void WaitWhileSlow() {
  const char* file = std::getenv("SLOW_DISK");
  for (int i = 0; i < kWaits && file != nullptr && access(file, F_OK) == 0; ++i) usleep(kWaitUs);
}

}  // namespace

extern "C" int fsync(int fd) {
  WaitWhileSlow();
  return static_cast<int>(syscall(SYS_fsync, fd));
}

extern "C" int fdatasync(int fd) {
  WaitWhileSlow();
  return static_cast<int>(syscall(SYS_fdatasync, fd));
}
