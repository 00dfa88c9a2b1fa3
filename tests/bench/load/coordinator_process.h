// A coordinator of the bench's own, on a port of its own, with nothing but one processor core.
#ifndef SEQPAR_TESTS_BENCH_LOAD_COORDINATOR_PROCESS_H_
#define SEQPAR_TESTS_BENCH_LOAD_COORDINATOR_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar::load {

class CoordinatorProcess {
 public:
  struct Options {
    std::string binary;  // seqpar-coordinator
    std::string folder;  // its state and its log
    int core = 0;        // -1: any
    std::vector<std::string> flags;
  };
  // Serves when it returns.
  static absl::StatusOr<std::unique_ptr<CoordinatorProcess>> Start(const Options& options);
  ~CoordinatorProcess();

  const std::string& address() const { return address_; }
  // Kills it, and starts another on the same port and store.
  absl::Status Restart();

  int64_t ResidentBytes() const;
  double CpuSeconds() const;  // since its start
  std::string log() const { return options_.folder + "/log"; }

 private:
  explicit CoordinatorProcess(const Options& options) : options_(options) {}
  absl::Status Launch(const std::string& listen);
  void Kill();

  const Options options_;
  std::string address_;
  pid_t pid_ = -1;
};

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_COORDINATOR_PROCESS_H_
