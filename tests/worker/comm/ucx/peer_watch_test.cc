#include "worker/comm/ucx/peer_watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace seqpar {
namespace {

// A process that waits to be killed.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ == 0) {
      while (true) pause();
    }
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }
  ProcessIdentity identity() const {
    return {ProcessIdentity::Self().machine, pid_, ProcessStartTicks(pid_)};
  }

 private:
  const pid_t pid_;
};

TEST(PeerWatchTest, SeesADeathAndOnlyThat) {
  const Child first, second;
  ProcessIdentity elsewhere = first.identity();
  elsewhere.machine = "another";
  PeerWatch watch({ProcessIdentity::Self(), first.identity(), elsewhere, second.identity()});
  watch.Update();
  for (int rank = 0; rank < 4; ++rank) EXPECT_FALSE(watch.dead(rank)) << rank;

  kill(first.pid(), SIGKILL);
  pollfd readable{watch.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, -1), 1);
  watch.Update();
  EXPECT_TRUE(watch.dead(1));
  EXPECT_FALSE(watch.dead(0) || watch.dead(2) || watch.dead(3));
  EXPECT_EQ(poll(&readable, 1, 0), 0) << "a death is told once";

  kill(second.pid(), SIGKILL);
  ASSERT_EQ(poll(&readable, 1, -1), 1);
  watch.Update();
  EXPECT_TRUE(watch.dead(3));
  EXPECT_TRUE(watch.DiedBefore(1, 3));
  EXPECT_FALSE(watch.DiedBefore(3, 1));
}

TEST(PeerWatchTest, PeerThatEndedBeforeIsDead) {
  ProcessIdentity gone, replaced;
  {
    const Child child;
    gone = child.identity();
  }
  const Child child;
  replaced = child.identity();
  ++replaced.start_ticks;
  const PeerWatch watch({gone, replaced});
  EXPECT_TRUE(watch.dead(0));
  EXPECT_TRUE(watch.dead(1));
}

TEST(PeerWatchTest, NobodyToWatch) {
  const PeerWatch watch({ProcessIdentity::Self()});
  EXPECT_EQ(watch.fd(), -1);
}

}  // namespace
}  // namespace seqpar
