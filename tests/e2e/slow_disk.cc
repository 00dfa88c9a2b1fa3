// A disk that answers late, or with an error. Preloaded into a process, its fsync and fdatasync wait while
// the file that the variable SLOW_DISK names exists, 0.8 s at most, and fail with EIO while the one of
// FAILING_DISK does; all else is as it was.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace {

constexpr int kWaits = 80;
constexpr int kWaitUs = 10'000;

void WaitWhileSlow() {
  const char* file = std::getenv("SLOW_DISK");
  for (int i = 0; i < kWaits && file != nullptr && access(file, F_OK) == 0; ++i) usleep(kWaitUs);
}

int Sync(long call, int fd) {
  WaitWhileSlow();
  const char* file = std::getenv("FAILING_DISK");
  if (file == nullptr || access(file, F_OK) != 0) return static_cast<int>(syscall(call, fd));
  errno = EIO;
  return -1;
}

}  // namespace

extern "C" int fsync(int fd) { return Sync(SYS_fsync, fd); }

extern "C" int fdatasync(int fd) { return Sync(SYS_fdatasync, fd); }
