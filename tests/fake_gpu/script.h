// The file of SEQPAR_FAKE_GPUS: what the fake GPUs of a test are, read anew at each question, so that a test
// can change it meanwhile. One fact a line:
//   gpu UUID TOTAL_BYTES USED_BYTES CAPABILITY BUS_ID NAME...   GPUs in their order
//   link UUID UUID                                              one NVLink between two of them
//   switch UUID LINKS                                           so many to a switch
//   process UUID PID BYTES
//   fail FUNCTION CODE                                          what this function of NVML returns
//   hang FUNCTION                                               it never returns
//   fail device-ORDINAL CODE, hang device-ORDINAL               the same of whoever would use that GPU
#ifndef SEQPAR_TESTS_FAKE_GPU_SCRIPT_H_
#define SEQPAR_TESTS_FAKE_GPU_SCRIPT_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {

struct FakeGpu {
  std::string uuid, bus_id, name;
  long long total_bytes = 0, used_bytes = 0;
  int capability = 0;               // 90 is 9.0
  std::vector<std::string> linked;  // uuid of the GPU at the end of each link
  int switches = 0;
  std::vector<std::pair<int, long long>> processes;  // pid, bytes
};

struct FakeGpus {
  std::vector<FakeGpu> gpus;
  std::map<std::string, int> failing;  // function, code
  std::set<std::string> hanging;

  FakeGpu* Find(const std::string& uuid);
};

FakeGpus ReadFakeGpus();

}  // namespace seqpar

#endif  // SEQPAR_TESTS_FAKE_GPU_SCRIPT_H_
