#include "common/base/pidfd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace seqpar {
namespace {

TEST(Pidfd, IsReadableOnceTheProcessHasEnded) {
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  const UniqueFd process = OpenProcess(child);
  ASSERT_TRUE(process.valid());
  EXPECT_NE(fcntl(process.get(), F_GETFD) & FD_CLOEXEC, 0);
  pollfd ended = {process.get(), POLLIN, 0};
  EXPECT_EQ(poll(&ended, 1, 0), 0);
  kill(child, SIGKILL);
  EXPECT_EQ(poll(&ended, 1, 30'000), 1);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(OpenProcess(child).valid()) << "nobody has the id any more";
  EXPECT_EQ(errno, ESRCH);
}

}  // namespace
}  // namespace seqpar
