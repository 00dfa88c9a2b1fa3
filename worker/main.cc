// seqpar-worker: the daemon of a node, and, hidden, the processes that it starts from itself.
#include <string>

#include "worker/config.h"
#include "worker/daemon/daemon.h"
#include "worker/executor/calibrate.h"
#include "worker/executor/executor.h"
#include "worker/executor/probe_gpus.h"

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "executor") return seqpar::ExecutorMain(argc - 2, argv + 2);
  if (mode == "calibrate") return seqpar::CalibrateMain(argc - 2, argv + 2);
  if (mode == "probe-gpus") return seqpar::ProbeGpusMain(argc - 2, argv + 2);
  const seqpar::ParsedWorkerConfig parsed = seqpar::ParseWorkerConfig(argc, argv);
  if (!parsed.run) return parsed.exit_code;
  seqpar::SetupLogging(parsed.config.log);
  return seqpar::RunDaemon(parsed.config);
}
