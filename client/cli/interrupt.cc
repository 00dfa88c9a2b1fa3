#include "client/cli/interrupt.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>

#include "client/cli/exit_codes.h"

namespace seqpar {
namespace {

// A handler may touch only such data: a fixed buffer, filled before the handler is installed.
constexpr size_t kMessageBytesMax = 512;
char message_text[kMessageBytesMax];
std::atomic<size_t> message_size{0};
volatile std::sig_atomic_t interrupted_flag = 0;

void OnInterruptExit(int) {
  const size_t size = message_size.load();
  if (size > 0) {
    const ssize_t written = write(STDERR_FILENO, message_text, size);
    static_cast<void>(written);
  }
  _exit(kExitInterrupted);
}

void OnInterruptRemember(int) { interrupted_flag = 1; }

void Install(void (*handler)(int)) {
  struct sigaction action;
  std::memset(&action, 0, sizeof(action));
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM}) {
    // Ignored by whoever started this command (a script that cleans up, nohup): then it stays ignored.
    struct sigaction now;
    if (sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

void ExitOnInterrupt(const std::string& message) {
  message_size = 0;
  const size_t size = std::min(message.size(), kMessageBytesMax);
  std::copy_n(message.data(), size, message_text);
  message_size = size;
  Install(OnInterruptExit);
}

InterruptLatch::InterruptLatch() {
  interrupted_flag = 0;
  Install(OnInterruptRemember);
}

InterruptLatch::~InterruptLatch() { Install(OnInterruptExit); }

bool InterruptLatch::interrupted() const { return interrupted_flag != 0; }

}  // namespace seqpar
