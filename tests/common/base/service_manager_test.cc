#include "common/base/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/base/fd.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

// The manager's end: a socket by a path, or, from '@' on, by an abstract name.
class Manager {
 public:
  explicit Manager(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0) << name;
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  // What was sent, "" where nothing is there.
  std::string Next() {
    char text[256];
    const ssize_t n = recv(fd_.get(), text, sizeof(text), MSG_DONTWAIT);
    return n < 0 ? "" : std::string(text, static_cast<size_t>(n));
  }

 private:
  const UniqueFd fd_;
};

TEST(ServiceManagerTest, SaysWhatHappens) {
  const TempFolder folder;
  for (const std::string& name : {folder / "notify", "@seqpar-test-" + std::to_string(getpid())}) {
    Manager manager(name);
    setenv("WATCHDOG_USEC", "60000000", 1);
    setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
    const ServiceManager service = ServiceManager::FromEnvironment();
    for (const char* variable : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
      EXPECT_EQ(std::getenv(variable), nullptr) << variable;
    }
    EXPECT_EQ(service.watchdog_us(), 60'000'000);
    EXPECT_EQ(service.alive_period_us(), 15'000'000);
    EXPECT_EQ(service.still_us(), 30'000'000);
    service.Ready();
    service.Alive();
    service.Stopping();
    EXPECT_EQ(manager.Next(), "READY=1");
    EXPECT_EQ(manager.Next(), "WATCHDOG=1");
    EXPECT_EQ(manager.Next(), "STOPPING=1");
    EXPECT_EQ(manager.Next(), "");
  }
}

TEST(ServiceManagerTest, AWatchdogOfAnotherProcessIsNotOurs) {
  Manager manager("@seqpar-test-other-" + std::to_string(getpid()));
  setenv("WATCHDOG_USEC", "60000000", 1);
  setenv("WATCHDOG_PID", "1", 1);
  const ServiceManager service = ServiceManager::FromEnvironment();
  EXPECT_EQ(service.watchdog_us(), 0);
  EXPECT_EQ(service.still_us(), kStillUs);
  service.Alive();
  EXPECT_EQ(manager.Next(), "");
}

TEST(ServiceManagerTest, WithoutAManagerNothingHappens) {
  setenv("WATCHDOG_USEC", "60000000", 1);
  const ServiceManager service = ServiceManager::FromEnvironment();
  service.Ready();
  EXPECT_EQ(service.watchdog_us(), 0);
  setenv("NOTIFY_SOCKET", std::string(200, 'x').c_str(), 1);
  ServiceManager::FromEnvironment().Ready();  // no such name can be
}

TEST(GoesRoundTest, UntilARoundTakesLongerThanItMay) {
  EXPECT_TRUE(GoesRound("the loop", 5'000'000, 5'000'000, 2'000'000).ok());
  EXPECT_TRUE(GoesRound("the loop", 5'000'000, 7'000'000, 2'000'000).ok());
  const absl::Status still = GoesRound("the loop", 5'000'000, 8'100'000, 2'000'000);
  EXPECT_EQ(still, absl::UnavailableError("the loop has stood still for 3 s"));
  EXPECT_TRUE(GoesRound("the loop", 0, 8'100'000, 2'000'000).ok()) << "it has not begun";
}

}  // namespace
}  // namespace seqpar
