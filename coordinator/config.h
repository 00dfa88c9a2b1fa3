// Everything that the coordinator can be told, as flags or environment variables.
#ifndef SEQPAR_COORDINATOR_CONFIG_H_
#define SEQPAR_COORDINATOR_CONFIG_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/service_manager.h"
#include "common/base/tls.h"
#include "common/job/job.h"
#include "common/metrics/http_server.h"
#include "coordinator/engine/engine.h"

namespace seqpar {

struct CoordinatorConfig {
  std::string listen = "127.0.0.1:7700";  // port 0: any that is free
  bool allow_insecure = false;  // listen on other addresses than loopback too, though there is no TLS
  std::string port_file;        // the bound address is written here, whole, once it serves
  std::string metrics_listen = kMetricsOff;  // ADDRESS:PORT, or "off"
  bool metrics_required = false;             // it was asked for: an address that is taken is an error
  std::string metrics_port_file;
  std::string state_dir = "./.seqpar/coordinator";
  std::vector<std::pair<std::string, std::string>> data_roots;  // name, path
  ServerTls tls;
  std::string tokens_file;  // of users and workers; with TLS, and only then
  std::string audit_log;    // file; empty: the log
  EngineConfig engine;
  LogConfig log;
  int64_t still_us = kStillUs;  // how long the engine may stand still; no flag: of the service manager
  std::string restore;          // a backup: it becomes the store of state_dir, and the process is done
  std::map<JobPhase, std::string> test_holds;
  std::string test_failpoints;  // folder; empty: off (common/base/failpoints.h)
};

// -1: run with `config`. Anything else: the process is done (--help, --version, a usage error that was
// printed) and this is its exit code.
int ParseCoordinatorFlags(int argc, char** argv, CoordinatorConfig* config);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_CONFIG_H_
