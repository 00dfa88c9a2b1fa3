#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/cli/call.h"
#include "client/cli/commands.h"
#include "client/cli/coordinator_process.h"
#include "client/cli/interrupt.h"
#include "client/cli/local.h"
#include "client/cli/render.h"
#include "common/base/table.h"

namespace seqpar {
namespace {

constexpr double kPollSeconds = 0.1;
constexpr double kCallSeconds = 2;

// Of errors that no coordinator was asked about.
CliConfig Here(const CliConfig& config) {
  CliConfig here = config;
  here.server.clear();
  return here;
}

// What is wrong with this machine is not what exit codes 3 and 4 tell about jobs.
int FailUp(const absl::Status& status, bool interrupted, const CliConfig& config) {
  PrintError(status, Here(config));
  if (interrupted) return kExitInterrupted;
  if (status.code() == absl::StatusCode::kInvalidArgument) return kExitUsage;
  return status.code() == absl::StatusCode::kDeadlineExceeded ? kExitDeadline : kExitUnavailable;
}

// False, with a note, where `local up` never made the folder: there is nothing to look at, and nothing to
// create.
bool StateExists(const CliConfig& config) {
  if (std::filesystem::is_directory(config.state_dir)) return true;
  PrintNote(absl::StrCat("nothing runs: there is no folder ", config.state_dir));
  return false;
}

bool HasReadyNode(SeqparService& service) {
  const absl::StatusOr<v1::ListNodesResponse> nodes = service.ListNodes(v1::ListNodesRequest());
  if (!nodes.ok()) return false;
  for (const v1::Node& node : nodes->nodes()) {
    if (node.state() == v1::NODE_STATE_READY) return true;
  }
  return false;
}

// Until the worker's node takes ranks. UNAVAILABLE with the end of the log of a process that died, CANCELLED
// after Ctrl-C, DEADLINE_EXCEEDED.
absl::Status WaitUntilReady(const LocalCluster& cluster, double seconds, const InterruptLatch& interrupt) {
  ClientOptions options;
  options.server = cluster.address();
  options.timeout_seconds = kCallSeconds;
  const std::unique_ptr<SeqparService> service = ConnectService(options);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!HasReadyNode(*service)) {
    if (interrupt.interrupted()) return absl::CancelledError("interrupted");
    for (const LocalCluster::Member& member : {cluster.coordinator(), cluster.worker()}) {
      if (member.process.has_value()) continue;
      return absl::UnavailableError(
          absl::StrCat("the ", member.name, " ended; the end of its log:\n", LogTail(member.log)));
    }
    if (std::chrono::steady_clock::now() > end) {
      return absl::DeadlineExceededError(absl::StrCat("the node is not ready; the end of the worker's log:\n",
                                                      LogTail(cluster.worker().log)));
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(kPollSeconds));
  }
  return interrupt.interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus();
}

nlohmann::ordered_json ToJson(const LocalCluster::Member& member) {
  nlohmann::ordered_json json;
  json["running"] = member.process.has_value();
  if (member.process.has_value()) json["pid"] = member.process->pid;
  json["log"] = member.log;
  json["metrics"] = member.metrics;
  return json;
}

void PrintState(const LocalCluster& cluster, const CliConfig& config) {
  if (config.output == OutputFormat::kJson) {
    nlohmann::ordered_json json;
    json["address"] = cluster.address();
    json["coordinator"] = ToJson(cluster.coordinator());
    json["worker"] = ToJson(cluster.worker());
    PrintOut(json.dump(1) + "\n");
    return;
  }
  TextTable table(
      {{"PROCESS"}, {"STATE"}, {"PID", TextTable::Align::kRight}, {"ADDRESS"}, {"METRICS"}, {"LOG"}});
  for (const LocalCluster::Member& member : {cluster.coordinator(), cluster.worker()}) {
    const bool runs = member.process.has_value();
    table.AddRow({member.name, runs ? "running" : "down", runs ? absl::StrCat(member.process->pid) : "",
                  member.name == "coordinator" && runs ? cluster.address() : "", member.metrics, member.log});
  }
  PrintOut(table.ToString());
}

bool IsUp(const LocalCluster& cluster) {
  return cluster.coordinator().process.has_value() && cluster.worker().process.has_value() &&
         !cluster.address().empty();
}

}  // namespace

int RunLocalUp(const CliConfig& config) {
  const InterruptLatch interrupt;
  absl::StatusOr<LocalCluster> cluster = LocalCluster::Open(config.state_dir);
  if (!cluster.ok()) return FailUp(cluster.status(), interrupt.interrupted(), config);
  const bool was_up = IsUp(*cluster);
  absl::Status status = was_up ? absl::OkStatus() : cluster->Start(config);
  if (status.ok()) status = WaitUntilReady(*cluster, config.start_seconds, interrupt);
  if (!status.ok()) {
    // What was up before stays: this command did not start it.
    if (!was_up) cluster->Stop().IgnoreError();
    return FailUp(status, interrupt.interrupted(), config);
  }
  if (was_up) PrintNote("already up; `seqpar local down` first to start it with other options");
  PrintState(*cluster, config);
  if (cluster->address() != config.server)
    PrintNote(absl::StrCat("export SEQPAR_SERVER=", cluster->address()));
  return kExitOk;
}

int RunLocalDown(const CliConfig& config) {
  if (!StateExists(config)) return kExitOk;
  const InterruptLatch interrupt;  // half of it would leave the other half running
  absl::StatusOr<LocalCluster> cluster = LocalCluster::Open(config.state_dir);
  if (!cluster.ok()) return Fail(cluster.status(), config);
  const absl::Status status = cluster->Stop();
  if (!status.ok()) return Fail(status, config);
  PrintState(*cluster, config);
  return kExitOk;
}

int RunLocalStatus(const CliConfig& config) {
  if (!StateExists(config)) return kExitUnavailable;
  absl::StatusOr<LocalCluster> cluster = LocalCluster::Open(config.state_dir);
  if (!cluster.ok()) return Fail(cluster.status(), config);
  PrintState(*cluster, config);
  if (!IsUp(*cluster)) return kExitUnavailable;
  if (config.output == OutputFormat::kTable) {
    const absl::StatusOr<v1::ListNodesResponse> nodes =
        ConnectHere(config, cluster->address())->ListNodes(v1::ListNodesRequest());
    if (!nodes.ok()) return Fail(nodes.status(), config);
    PrintOut(absl::StrCat("\n", RenderNodes(*nodes)));
  }
  return kExitOk;
}

int RunLocalAddress(const CliConfig& config) {
  if (!StateExists(config)) return kExitUnavailable;
  absl::StatusOr<LocalCluster> cluster = LocalCluster::Open(config.state_dir);
  if (!cluster.ok()) return Fail(cluster.status(), config);
  if (!IsUp(*cluster))
    return Fail(absl::UnavailableError(absl::StrCat("nothing runs under ", config.state_dir)), Here(config));
  PrintOut(cluster->address() + "\n");
  return kExitOk;
}

}  // namespace seqpar
