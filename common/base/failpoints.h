// Failpoints: places in the code, each with a name, at which a test makes this process fail. Off unless the
// process was started with --test-failpoints DIR; then passing one costs an open(2), else one relaxed load.
//
// A test arms a point by putting a file DIR/armed/NAME in place (written elsewhere, then renamed) with the
// line
//
//   ACTION [ARG] [skip=N] [who=IDENTITY]
//
// Of all processes that pass the point, and that IDENTITY means, one takes it: the one whose unlink(2) of the
// file succeeds. It appends a line of JSON to DIR/hits.jsonl, and then does what ACTION says:
//
//   crash          kills itself by SIGKILL
//   error          the step fails as it may fail by itself, without having happened
//   delay MS       the thread sleeps
//   hang           the thread stands still until the process is killed
//   drop_request   the message or call is not sent, or not handled
//   drop_response  it is handled, and its answer is lost
//   in_flight      crash right after the message, call or write was handed over, before its outcome is known
//
// Streams and their messages: a stream is reliable, so what is lost is lost with all that follows it. Whoever
// drops a message of the stream between worker and coordinator therefore breaks the stream.
//
// `skip=N` lets N passes go first. Each process counts its own, from its first pass on after the file came.
// IDENTITY is "coordinator", "daemon:NODE" or "executor:NODE:RANK", or the beginning of one up to a colon.
// A line that cannot be obeyed (no such action, one that this point does not honour) is taken too, refused in
// the log and in hits.jsonl, and nothing happens.
//
// The table of all points is common/base/failpoint_table.cc; `seqpar-coordinator --list-failpoints` prints
// it. docs/reliability.md says how to add one.
#ifndef SEQPAR_COMMON_BASE_FAILPOINTS_H_
#define SEQPAR_COMMON_BASE_FAILPOINTS_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace seqpar {

// Bits, so that a point's actions are one value.
enum FailAction : unsigned {
  kFailNone = 0,
  kFailCrash = 1,
  kFailError = 2,
  kFailDelay = 4,
  kFailHang = 8,
  kFailDropRequest = 16,
  kFailDropResponse = 32,
  kFailInFlight = 64,
};
// "crash", ... of one bit; the bit of a name, kFailNone where it is none.
const char* FailActionName(FailAction action);
FailAction ParseFailAction(absl::string_view name);

enum class FailProcess { kCoordinator, kDaemon, kExecutor };
const char* FailProcessName(FailProcess process);  // "coordinator", "daemon", "executor"

// A row of the table.
struct FailpointInfo {
  const char* name;     // "executor.merge.fsync": its process, then what happens
  FailProcess process;  // that passes it
  const char* phase;    // of a job's life (README.md), or "any"
  unsigned actions;     // that it honours
  const char* reason;   // of the error's Status (status.h); null where it honours no error
  const char* where;    // a sentence
};
// In the order of a job's life, the coordinator's first.
const std::vector<FailpointInfo>& AllFailpoints();
// Null where no point is called so.
const FailpointInfo* FindFailpoint(absl::string_view name);
// The whole table as text, and as a JSON array of {name, process, phase, actions, where}; ends with a
// newline.
std::string FailpointsAsText();
std::string FailpointsAsJson();

// Who this process is. An executor's has everything.
struct FailpointIdentity {
  FailProcess process = FailProcess::kCoordinator;
  std::string node, job;
  int attempt = 0;               // 0: of none
  int rank = -1;                 // -1: of none
  std::string ToString() const;  // "coordinator", "daemon:NODE", "executor:NODE:RANK"
  // Whether `who` is ToString() or its beginning up to a colon.
  bool IsMeantBy(absl::string_view who) const;
};

// What a pass is about, where the process itself does not say it.
struct FailpointSubject {
  absl::string_view job = {};
  int attempt = 0;
  int rank = -1;
};

// Turns failpoints on for this process, with DIR = `folder`, which is created with its folder armed/ where it
// does not exist. FAILED_PRECONDITION where it cannot be. Call before other threads pass any.
absl::Status EnableFailpoints(const std::string& folder, FailpointIdentity identity);
// For tests: off again.
void DisableFailpoints();

namespace failpoints_internal {
extern std::atomic<bool> on;
// Takes the point where it is armed for this process, and crashes, sleeps or hangs there. What is left for
// the site to do: kFailNone, kFailError, kFailDropRequest, kFailDropResponse or kFailInFlight.
FailAction Pass(const char* name, const FailpointSubject& subject);
absl::Status ErrorOf(const char* name);
[[noreturn]] void Crash();
}  // namespace failpoints_internal

inline bool FailpointsOn() { return failpoints_internal::on.load(std::memory_order_relaxed); }

// A step that may fail: OK, or the point's error, with which the step fails without having happened.
inline absl::Status Failpoint(const char* name, const FailpointSubject& subject = {}) {
  if (!FailpointsOn()) return absl::OkStatus();
  return failpoints_internal::Pass(name, subject) == kFailError ? failpoints_internal::ErrorOf(name)
                                                                : absl::OkStatus();
}

// A step that cannot fail.
inline void PassFailpoint(const char* name, const FailpointSubject& subject = {}) {
  if (FailpointsOn()) failpoints_internal::Pass(name, subject);
}

// Around a step that hands something over: a message, a call, a write. Made before it, gone right after it.
class HandOverFailpoint {
 public:
  explicit HandOverFailpoint(const char* name, const FailpointSubject& subject = {})
      : name_(name), left_(FailpointsOn() ? failpoints_internal::Pass(name, subject) : kFailNone) {}
  ~HandOverFailpoint() {
    if (left_ == kFailInFlight) failpoints_internal::Crash();
  }
  HandOverFailpoint(const HandOverFailpoint&) = delete;
  HandOverFailpoint& operator=(const HandOverFailpoint&) = delete;

  absl::Status error() const {
    return left_ == kFailError ? failpoints_internal::ErrorOf(name_) : absl::OkStatus();
  }
  bool drops_request() const { return left_ == kFailDropRequest; }
  bool drops_response() const { return left_ == kFailDropResponse; }

 private:
  const char* const name_;
  const FailAction left_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_FAILPOINTS_H_
