#include "common/base/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/fd.h"

namespace seqpar {
namespace {

std::string Take(const char* name) {
  const char* value = std::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  unsetenv(name);
  return taken;
}

}  // namespace

absl::Status GoesRound(const char* loop, int64_t round_us, int64_t now_us, int64_t still_us) {
  if (round_us == 0 || now_us - round_us <= still_us) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(loop, " has stood still for ", (now_us - round_us) / 1'000'000, " s"));
}

ServiceManager ServiceManager::FromEnvironment() {
  ServiceManager manager;
  manager.socket_ = Take("NOTIFY_SOCKET");
  const std::string watchdog = Take("WATCHDOG_USEC"), process = Take("WATCHDOG_PID");
  int64_t watchdog_us = 0, pid = 0;
  const bool ours = process.empty() || (absl::SimpleAtoi(process, &pid) && pid == getpid());
  if (!manager.socket_.empty() && ours && absl::SimpleAtoi(watchdog, &watchdog_us) && watchdog_us > 0) {
    manager.watchdog_us_ = watchdog_us;
  }
  return manager;
}

void ServiceManager::Send(const std::string& state) const {
  sockaddr_un address = {};
  if (socket_.empty() || socket_.size() >= sizeof(address.sun_path)) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // an abstract name: of exactly this length
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return;
  (void)!sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace seqpar
