#include "tests/fake_gpu/script.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace seqpar {

FakeGpu* FakeGpus::Find(const std::string& uuid) {
  for (FakeGpu& gpu : gpus) {
    if (gpu.uuid == uuid) return &gpu;
  }
  std::abort();  // the script names a GPU that it does not have
}

FakeGpus ReadFakeGpus() {
  FakeGpus all;
  const char* path = std::getenv("SEQPAR_FAKE_GPUS");
  std::ifstream file(path == nullptr ? "" : path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string what, first, second;
    in >> what >> first;
    if (what == "gpu") {
      FakeGpu gpu;
      gpu.uuid = first;
      in >> gpu.total_bytes >> gpu.used_bytes >> gpu.capability >> gpu.bus_id >> std::ws;
      std::getline(in, gpu.name);
      all.gpus.push_back(gpu);
    } else if (what == "link") {
      in >> second;
      all.Find(first)->linked.push_back(second);
      all.Find(second)->linked.push_back(first);
    } else if (what == "switch") {
      in >> all.Find(first)->switches;
    } else if (what == "process") {
      std::pair<int, long long> process;
      in >> process.first >> process.second;
      all.Find(first)->processes.push_back(process);
    } else if (what == "fail") {
      in >> all.failing[first];
    } else if (what == "hang") {
      all.hanging.insert(first);
    }
  }
  return all;
}

}  // namespace seqpar
