// What a worker daemon is told by its command line and environment: one struct, one parser.
#ifndef SEQPAR_WORKER_CONFIG_H_
#define SEQPAR_WORKER_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/tls.h"
#include "common/metrics/http_server.h"

namespace seqpar {

// A test's hold: executors stop at the beginning of `phase` while `file` exists.
struct ExecutorHold {
  std::string phase;  // bootstrap | shard | execute | merge | report
  std::string file;
};

struct WorkerConfig {
  std::string coordinator = "127.0.0.1:7700";  // host:port
  ClientTls tls;                               // to the coordinator
  std::string node_name;                       // default: the host's name
  std::string devices = "cpu";        // cpu | cuda | auto: the GPUs where there are any, else CPU slots
  bool shared_gpus = false;           // others use them too
  int ranks_per_gpu = 1;              // for tests: each GPU is offered as so many devices
  int64_t gpu_retry_us = 60'000'000;  // between two looks at a GPU that is set aside
  int cpu_slots = 1;
  int threads_per_slot = 0;     // 0 until parsed: cores / slots, at least 1
  int64_t memory_per_slot = 0;  // bytes; 0 until parsed: 0.8 of the cgroup's or machine's, divided
  std::vector<std::pair<std::string, std::string>> data_roots;  // name, path; in order of preference
  std::map<std::string, std::string> labels;
  std::string data_interface;  // UCX_NET_DEVICES of executors; "": UCX chooses
  std::string state_dir;
  bool recalibrate = false;
  int drain_seconds = 30;  // from the signal to stop until running ranks are stopped
  std::string pid_file;
  std::string metrics_listen = "127.0.0.1:7702";  // ADDRESS:PORT, or "off"
  bool metrics_required = false;                  // it was asked for: an address that is taken is an error
  std::string metrics_port_file;
  LogConfig log;
  std::vector<ExecutorHold> holds;
  std::string test_failpoints;  // folder; empty: off (common/base/failpoints.h)
};

// What ParseWorkerConfig came to: run with `config`, or exit at once with `exit_code` (after --help,
// --version or an error, which is already printed).
struct ParsedWorkerConfig {
  bool run = false;
  int exit_code = 0;
  WorkerConfig config;
};

// Every flag has an environment variable SEQPAR_WORKER_<FLAG>; the flag wins. SEQPAR_SERVER also names the
// coordinator. Exit code 2 for a wrong command line.
ParsedWorkerConfig ParseWorkerConfig(int argc, char** argv);

// "PHASE:FILE" -> hold. False where the phase is not one of an executor's.
bool ParseExecutorHold(const std::string& text, ExecutorHold* hold);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_CONFIG_H_
