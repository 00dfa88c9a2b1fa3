#include "worker/executor/calibrate.h"

#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "common/base/status.h"
#include "worker/device/cpu/calibrate.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

constexpr int kHeadDim = 128;  // of most models; rates at 64 are a few percent lower

absl::StatusOr<CpuRates> Measure(int threads) {
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeCpuDevice({.threads = threads}));
  return MeasureCpuRates(*device, kHeadDim);
}

}  // namespace

int CalibrateMain(int argc, char** argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int threads = 0;
  if (argc != 2 || std::string(argv[0]) != "--threads" || !absl::SimpleAtoi(argv[1], &threads)) return 2;
  const absl::StatusOr<CpuRates> rates = Measure(threads);
  if (!rates.ok()) {
    std::fprintf(stderr, "calibration: %s\n", std::string(rates.status().message()).c_str());
    return 1;
  }
  std::printf(
      "{\"gemm_flops\": %.6g, \"attention_forward_flops\": %.6g, \"attention_backward_flops\": %.6g, "
      "\"copy_bytes\": %.6g, \"peak_flops\": %.6g}\n",
      rates->gemm_flops, rates->attention_forward_flops, rates->attention_backward_flops,
      rates->copy_bytes_per_second, threads * rates->peak_flops);
  return 0;
}

}  // namespace seqpar
