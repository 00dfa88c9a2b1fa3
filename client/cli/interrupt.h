// Ctrl-C and SIGTERM. A signal that was ignored when the command started stays ignored.
#ifndef SEQPAR_CLIENT_CLI_INTERRUPT_H_
#define SEQPAR_CLIENT_CLI_INTERRUPT_H_

#include <string>

namespace seqpar {

// From now on SIGINT and SIGTERM write `message` (may be empty) to standard error and exit with 130 at once.
// What a command started elsewhere goes on; the message says so.
void ExitOnInterrupt(const std::string& message);

// While it lives, SIGINT and SIGTERM are only remembered: for a command that must put things back first. One
// at a time.
class InterruptLatch {
 public:
  InterruptLatch();
  ~InterruptLatch();
  InterruptLatch(const InterruptLatch&) = delete;
  InterruptLatch& operator=(const InterruptLatch&) = delete;
  bool interrupted() const;
};

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_INTERRUPT_H_
