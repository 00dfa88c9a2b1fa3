#include "worker/config.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "common/base/address.h"
#include "common/base/cgroup.h"
#include "common/base/data_roots.h"
#include "common/base/failpoints.h"
#include "common/base/flag_checks.h"
#include "common/base/units.h"
#include "common/base/version.h"
#include "common/job/cluster.h"

namespace seqpar {
namespace {

constexpr double kMemoryShare =
    0.8;  // of what there is: the rest is for the daemon, the page cache and libraries

constexpr char kExamples[] = R"(
Examples:
  seqpar-worker --data-root data=/srv/data
      joins the coordinator on this machine with one CPU slot
  seqpar-worker --coordinator head:7700 --cpu-slots 4 --threads-per-slot 8 \
      --memory-per-slot 32GiB --data-root data=/mnt/shared --data-interface eth1
      four slots of eight threads, tensors over eth1
  seqpar-worker --coordinator head:7700 --data-root data=/mnt/shared --node-name gpu-7 \
      --tls-ca ca.crt --tls-cert gpu-7.crt --tls-key gpu-7.key
      over TLS, as the node that its certificate names
  SEQPAR_WORKER_COORDINATOR=head:7700 seqpar-worker --data-root data=/mnt/shared

Every flag can be set by an environment variable: SEQPAR_WORKER_ and its name in capitals.)";

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "worker";
  return name;
}

std::string DefaultStateDir() {
  if (const char* state = std::getenv("XDG_STATE_HOME")) return std::string(state) + "/seqpar";
  if (const char* home = std::getenv("HOME")) return std::string(home) + "/.local/state/seqpar";
  return "/var/tmp/seqpar";
}

int64_t ParseMemory(const std::string& text) {
  const absl::StatusOr<int64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) throw CLI::ValidationError("--memory-per-slot", std::string(bytes.status().message()));
  if (*bytes <= 0) throw CLI::ValidationError("--memory-per-slot", "must be above 0");
  return *bytes;
}

std::pair<std::string, std::string> ParseRoot(const std::string& text) {
  const auto root = ParseDataRoot(text);
  if (!root.ok()) throw CLI::ValidationError("--data-root", std::string(root.status().message()));
  return *root;
}

std::pair<std::string, std::string> ParseLabel(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw CLI::ValidationError("--labels", "'" + text + "' is not KEY=VALUE");
  }
  if (equals > kLabelBytesMax || text.size() - equals - 1 > kLabelBytesMax) {
    throw CLI::ValidationError("--labels", "'" + text + "': keys have 1 to 63 bytes, values at most 63");
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

// What the flags say as text, before it is checked.
struct RawFlags {
  std::string memory, log_level = "info", log_format = "text";
  std::vector<std::string> roots, labels, holds;
  bool list_failpoints = false;
  std::string output = "table";
};

void DeclareFlags(CLI::App* app, WorkerConfig* config, RawFlags* raw) {
  const auto env = [](CLI::Option* option, const char* name) {
    return option->envname(std::string("SEQPAR_WORKER_") + name);
  };
  env(app->add_option("--coordinator", config->coordinator,
                      "Coordinator to join, host:port (also SEQPAR_SERVER)"),
      "COORDINATOR")
      ->capture_default_str();
  env(app->add_flag("--tls", config->tls.wanted,
                    "Reach the coordinator over TLS [where a file below is given]"),
      "TLS");
  env(app->add_option("--tls-ca", config->tls.ca_file,
                      "Whose certificate of the coordinator is believed (PEM) [the system's authorities]"),
      "TLS_CA");
  env(app->add_option(
          "--tls-cert", config->tls.cert_file,
          "Certificate of this node (PEM), with the URI seqpar://node/NAME among its alternative names"),
      "TLS_CERT");
  env(app->add_option("--tls-key", config->tls.key_file, "Its private key (PEM, no passphrase)"), "TLS_KEY");
  env(app->add_option("--tls-server-name", config->tls.server_name,
                      "Name that the coordinator's certificate must have [the host in --coordinator]"),
      "TLS_SERVER_NAME");
  env(app->add_option("--token-file", config->tls.token_file,
                      "This worker's token, where it shows no certificate; only sent over TLS"),
      "TOKEN_FILE");
  env(app->add_option("--node-name", config->node_name, "Name of this node [the host's name]"), "NODE_NAME");
  env(app->add_option(
          "--devices", config->devices,
          "What ranks run on: cpu (slots), cuda (every GPU that the driver shows), or auto (GPUs where "
          "there are any)"),
      "DEVICES")
      ->capture_default_str()
      ->check(OneOf({"cpu", "cuda", "auto"}));
  env(app->add_flag(
          "--shared-gpus", config->shared_gpus,
          "Others use these GPUs too: between two ranks only what the first left behind counts, not "
          "all memory in use"),
      "SHARED_GPUS");
  env(app->add_option("--cpu-slots", config->cpu_slots, "CPU devices of this node: one rank runs on each"),
      "CPU_SLOTS")
      ->capture_default_str()
      ->check(Between(1, 1024));
  env(app->add_option("--threads-per-slot", config->threads_per_slot,
                      "Compute threads of a slot [cores / slots]"),
      "THREADS_PER_SLOT")
      ->check(Between(1, 4096));
  env(app->add_option("--memory-per-slot", raw->memory,
                      "Memory of a slot, such as 8GiB [0.8 of the memory / slots]"),
      "MEMORY_PER_SLOT");
  env(app->add_option("--data-root", raw->roots, "NAME=PATH: a folder that jobs may use; repeatable"),
      "DATA_ROOT")
      ->delimiter(',');
  env(app->add_option("--labels", raw->labels,
                      "KEY=VALUE about this node, for jobs that select by it; repeatable"),
      "LABELS")
      ->delimiter(',');
  env(app->add_option(
          "--data-interface", config->data_interface,
          "Network interface for tensors (UCX_NET_DEVICES) [lo for a coordinator on this machine]"),
      "DATA_INTERFACE");
  env(app->add_option("--state-dir", config->state_dir,
                      "Where calibration is kept, and the lock that one worker of this node has [" +
                          DefaultStateDir() + "]"),
      "STATE_DIR");
  env(app->add_flag("--recalibrate", config->recalibrate, "Measure the slots again"), "RECALIBRATE");
  env(app->add_option(
          "--drain-seconds", config->drain_seconds,
          "On SIGTERM or SIGINT no rank begins any more, and those that run have this long to end; a "
          "second signal stops them at once"),
      "DRAIN_SECONDS")
      ->capture_default_str()
      ->check(Between(0, 7 * 24 * 3600));
  env(app->add_option("--pid-file", config->pid_file, "Write the process id here"), "PID_FILE");
  env(app->add_option(
          "--metrics-listen", config->metrics_listen,
          "ADDRESS:PORT of /metrics (Prometheus), /healthz and /readyz; port 0 takes any; off: none. The "
          "default, where it is taken, is left out with a warning"),
      "METRICS_LISTEN")
      ->capture_default_str()
      ->check([](const std::string& address) {
        return address == kMetricsOff ? "" : AddressFault(address, WorkerConfig().metrics_listen, true);
      })
      ->each([config](const std::string&) { config->metrics_required = true; });
  env(app->add_option("--metrics-port-file", config->metrics_port_file,
                      "Write the bound ADDRESS:PORT of the metrics here"),
      "METRICS_PORT_FILE");
  env(app->add_option("--log-level", raw->log_level, "debug, info, warning or error"), "LOG_LEVEL")
      ->capture_default_str()
      ->check(OneOf({"debug", "info", "warning", "error"}));
  env(app->add_option("--log-format", raw->log_format, "text or json"), "LOG_FORMAT")
      ->capture_default_str()
      ->check(OneOf({"text", "json"}));
  app->add_option("--test-hold", raw->holds,
                  "PHASE:FILE, for tests: executors wait at PHASE while FILE exists; not with TLS");
  app->add_option("--test-failpoints", config->test_failpoints,
                  "DIR, for tests: daemon and executors fail at the points that files in DIR/armed name, as "
                  "they say (docs/reliability.md); not with TLS");
  app->add_option(
         "--test-ranks-per-gpu", config->ranks_per_gpu,
         "For tests: offer each GPU as so many devices, whose ranks share its memory and talk over the "
         "network interface")
      ->check(Between(1, 8));
  app->add_option_function<double>(
      "--test-gpu-retry", [config](double s) { config->gpu_retry_us = static_cast<int64_t>(1e6 * s); },
      "SECONDS, for tests: between two looks at a GPU that is set aside [60]");
  app->add_flag("--list-failpoints", raw->list_failpoints,
                "Print every failpoint of coordinator and workers, and end");
  app->add_option("-o,--output", raw->output, "table or json: how --list-failpoints prints")
      ->check(OneOf({"table", "json"}));
  app->set_version_flag("--version", std::string("seqpar-worker ") + kVersion);
}

void FillConfig(const RawFlags& raw, WorkerConfig* config) {
  // Here, since it may also come from SEQPAR_SERVER.
  if (const std::string fault = AddressFault(config->coordinator, WorkerConfig().coordinator, false);
      !fault.empty()) {
    throw CLI::ValidationError("--coordinator", fault);
  }
  for (const std::string& root : raw.roots) config->data_roots.push_back(ParseRoot(root));
  for (const std::string& label : raw.labels) config->labels.insert(ParseLabel(label));
  for (const std::string& text : raw.holds) {
    ExecutorHold hold;
    if (!ParseExecutorHold(text, &hold))
      throw CLI::ValidationError("--test-hold", "'" + text + "' is not PHASE:FILE");
    config->holds.push_back(hold);
  }
  if (config->tls.enabled() && !config->holds.empty()) {
    throw CLI::ValidationError("--test-hold", "is for tests: not with TLS");
  }
  if (config->tls.enabled() && !config->test_failpoints.empty()) {
    throw CLI::ValidationError("--test-failpoints", "is for tests: not with TLS");
  }
  if (!ParseLogLevel(raw.log_level, &config->log.level)) {
    throw CLI::ValidationError("--log-level", "is debug, info, warning or error");
  }
  if (!ParseLogFormat(raw.log_format, &config->log.format)) {
    throw CLI::ValidationError("--log-format", "is text or json");
  }
  config->log.component = "worker";
  if (config->node_name.empty()) config->node_name = HostName();
  if (config->state_dir.empty()) config->state_dir = DefaultStateDir();
  if (config->threads_per_slot == 0) {
    config->threads_per_slot = std::max(1, UsableCores() / config->cpu_slots);
  }
  config->memory_per_slot = raw.memory.empty()
                                ? static_cast<int64_t>(kMemoryShare * UsableMemoryBytes()) / config->cpu_slots
                                : ParseMemory(raw.memory);
  if (config->data_interface.empty() && IsLoopback(config->coordinator)) config->data_interface = "lo";
}

}  // namespace

bool ParseExecutorHold(const std::string& text, ExecutorHold* hold) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon + 1 == text.size()) return false;
  *hold = {text.substr(0, colon), text.substr(colon + 1)};
  for (const char* phase : {"bootstrap", "shard", "execute", "merge", "report"}) {
    if (hold->phase == phase) return true;
  }
  return false;
}

ParsedWorkerConfig ParseWorkerConfig(int argc, char** argv) {
  ParsedWorkerConfig parsed;
  RawFlags raw;
  CLI::App app("Runs this node's ranks of jobs for a seqpar coordinator.", "seqpar-worker");
  app.footer(kExamples);
  if (const char* server = std::getenv("SEQPAR_SERVER")) parsed.config.coordinator = server;
  DeclareFlags(&app, &parsed.config, &raw);
  try {
    app.parse(argc, argv);
    if (raw.list_failpoints) {
      std::cout << (raw.output == "json" ? FailpointsAsJson() : FailpointsAsText());
      return parsed;
    }
    FillConfig(raw, &parsed.config);
  } catch (const CLI::ParseError& error) {
    parsed.exit_code = AnswerParseError(app, error);
    return parsed;
  }
  parsed.run = true;
  return parsed;
}

}  // namespace seqpar
