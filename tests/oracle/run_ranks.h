// Ranks as threads, each with a CPU device and streams of its own, joined by an in-process world.
#ifndef SEQPAR_TESTS_ORACLE_RUN_RANKS_H_
#define SEQPAR_TESTS_ORACLE_RUN_RANKS_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/comm/communicator.h"
#include "common/device/device.h"

namespace seqpar {

struct TestRank {
  int rank = 0;
  Device* device = nullptr;
  Stream* compute = nullptr;
  Stream* comm = nullptr;
  Communicator* world = nullptr;
  TrafficCounter* traffic = nullptr;
};

struct RunRanksOptions {
  std::string kernel;           // of the device (tests/devices/test_devices.h); "": the default
  double seconds_max = 300;     // then the process is aborted with a message that names the unfinished ranks
  double bytes_per_second = 0;  // of each link, 0: unlimited
};

// Runs `body` on `ranks` threads and synchronises their streams; the first error by rank, annotated with it.
// An error of one rank aborts the communication of the others. What each rank sent is in `traffic`, where
// given.
absl::Status RunRanks(int ranks, const std::function<absl::Status(TestRank&)>& body,
                      const RunRanksOptions& options = {},
                      std::vector<std::map<TrafficKey, Traffic>>* traffic = nullptr);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_RUN_RANKS_H_
