// What the driver's management library says of a machine's GPUs. It needs no CUDA context and takes none of
// their memory, but it can hang on a sick card: ask it from a process that may be killed.
#ifndef SEQPAR_WORKER_DEVICE_NVML_NVML_H_
#define SEQPAR_WORKER_DEVICE_NVML_NVML_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace seqpar {

struct GpuMemory {
  std::string uuid;                                    // "GPU-...", as CUDA's too
  int64_t used_bytes = 0;                              // by whomever; some hundred MiB on an idle one
  std::vector<std::pair<int64_t, int64_t>> processes;  // pid as this namespace sees it, and its bytes
};

struct GpuInventory {
  GpuMemory memory;
  std::string name;
  int64_t total_bytes = 0;
  int compute_capability = 0;  // 90 is 9.0
  std::string pci_bus_id;      // "0000:1b:00.0"
  std::optional<int> numa_node;
  std::vector<std::pair<std::string, int>> nvlinks;  // uuid of another GPU of the machine, links that are up
};

struct NvmlAnswer {
  std::string driver;  // "570.86.15"
  std::vector<GpuInventory> gpus;
};

// Loads libnvidia-ml.so.1 (SEQPAR_NVML_LIBRARY names another file) and asks. UNAVAILABLE where it cannot be
// loaded or lacks what is needed; INTERNAL with the library's own words where a question fails. What a card
// does not support (NVLink, a NUMA node) is left out.
absl::StatusOr<NvmlAnswer> AskNvml();
// The same, of memory only.
absl::StatusOr<std::vector<GpuMemory>> AskNvmlMemory();

// The other ends of one GPU's links.
struct NvlinkEnds {
  std::string pci_bus_id;         // of this GPU
  std::vector<std::string> gpus;  // bus id of the GPU at the end, one entry a link
  int switches = 0;               // links that end in a switch
};
// links[i][j] of GPUs i and j: those between them, or, where they end in switches, as many as both have
// there.
std::vector<std::vector<int>> NvlinksBetween(const std::vector<NvlinkEnds>& gpus);

// "00000000:1B:00.0", as NVML spells it, as sysfs does: "0000:1b:00.0".
std::string PlainBusId(const std::string& bus_id);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_NVML_NVML_H_
