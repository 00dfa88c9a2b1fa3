// Rates by the CPU time of the thread that computes: a neighbour's load is none of it.
#ifndef SEQPAR_TESTS_BENCH_CPU_SECONDS_H_
#define SEQPAR_TESTS_BENCH_CPU_SECONDS_H_

#include "absl/status/status.h"
#include "common/base/check.h"
#include "common/device/stream.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {

// CPU seconds of the stream's thread in what `enqueue` enqueues on it. Waits for it; aborts where it fails.
template <typename Enqueue>
double CpuSeconds(Stream& stream, const Enqueue& enqueue) {
  double start = 0, end = 0;
  stream.HostFunction([&] {
    start = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  enqueue();
  stream.HostFunction([&] {
    end = ThreadCpuSeconds();
    return absl::OkStatus();
  });
  SEQPAR_CHECK(stream.Synchronize().ok());
  return end - start;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_BENCH_CPU_SECONDS_H_
