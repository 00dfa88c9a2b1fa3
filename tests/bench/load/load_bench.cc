// Many nodes, many jobs and many watchers on one coordinator that has one core: what it answers in which
// time, what it takes of memory, and whether it loses anybody.
#include <grpc/grpc.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "common/base/table.h"
#include "tests/bench/load/clients.h"
#include "tests/bench/load/coordinator_process.h"
#include "tests/bench/load/fleet.h"

namespace seqpar::load {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFillThreads = 8;
constexpr auto kSample = std::chrono::seconds(1);
constexpr double kMiB = 1 << 20;
constexpr char kFooter[] =
    R"(It starts a coordinator of its own (--coordinator), pinned to --core, with a store in a folder that it makes and removes.
Nodes attach, a striped plan of 4M tokens is delivered to --striped-ranks of them, --jobs more jobs than run are submitted,
and --watchers streams are opened on them, of which --silent never read. For --minutes jobs end, others begin, are submitted
and listed. Then the coordinator is killed and started again. Submit times are those of that time, not of filling the queue.

Examples:
  load_bench                                       the whole load, ten minutes
  load_bench --minutes 1 -o json
  load_bench --nodes 50 --jobs 500 --watchers 100 --silent 20 --striped-ranks 256 --minutes 0.2 --check)";

struct Options {
  CoordinatorProcess::Options coordinator;
  FleetOptions fleet;
  ClientOptions clients;
  int jobs = 10'000;
  int striped_ranks = 512;
  double minutes = 10;
  double patience = 120;  // seconds, for all nodes to attach
  std::string output = "table";
  bool check = false;
};

struct Sample {
  double seconds = 0;
  int64_t resident_bytes = 0;
};

struct Result {
  double attach_seconds = 0, fill_seconds = 0, striped_seconds = 0, back_seconds = 0;
  int64_t refused = 0;
  FleetCounts fleet;  // before the restart
  int64_t ranks_resumed = 0, attached_again = 0, lost_later = 0;
  Quantiles heartbeats, submits, lists, fill;
  int64_t events = 0, watching = 0, errors = 0;
  std::string last_error;
  std::vector<Sample> memory;
  double cores = 0;  // of the coordinator, while it was loaded
};

// The mean of the samples of [begin, end) seconds; nothing where there is none.
std::optional<double> MeanMiB(const std::vector<Sample>& samples, double begin, double end) {
  double sum = 0;
  int count = 0;
  for (const Sample& sample : samples) {
    if (sample.seconds < begin || sample.seconds >= end) continue;
    sum += static_cast<double>(sample.resident_bytes) / kMiB;
    ++count;
  }
  return count == 0 ? std::nullopt : std::optional<double>(sum / count);
}

// Waits until `done`; false after so many seconds.
bool WaitFor(double seconds, const std::function<bool()>& done) {
  const TimePoint begin = SteadyClock::now();
  while (!done()) {
    if (SecondsSince(begin) > seconds) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

void Progress(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

class Load {
 public:
  explicit Load(const Options& options) : options_(options) {}

  absl::StatusOr<Result> Run() {
    SEQPAR_ASSIGN_OR_RETURN(coordinator_, CoordinatorProcess::Start(options_.coordinator));
    options_.fleet.server = options_.clients.server = coordinator_->address();
    SEQPAR_RETURN_IF_ERROR(Attach());
    clients_ = std::make_unique<Clients>(options_.clients);
    SEQPAR_RETURN_IF_ERROR(Fill());
    clients_->Watch();
    clients_->submits().Clear();
    clients_->Begin();
    Hold();
    SEQPAR_RETURN_IF_ERROR(Restart());
    return std::move(result_);
  }

 private:
  bool AllAttached() const { return fleet_->counts().attached == options_.fleet.nodes; }

  absl::Status Attach() {
    const TimePoint begin = SteadyClock::now();
    fleet_ = std::make_unique<Fleet>(options_.fleet);
    if (!WaitFor(options_.patience, [this] { return AllAttached(); })) {
      return absl::DeadlineExceededError(
          absl::StrCat("only ", fleet_->counts().attached, " nodes attached: ", coordinator_->log()));
    }
    result_.attach_seconds = SecondsSince(begin);
    Progress(absl::StrFormat("%d nodes attached in %.1f s", options_.fleet.nodes, result_.attach_seconds));
    return absl::OkStatus();
  }

  // First the plan of many ranks, while there are devices for it.
  absl::Status Fill() {
    const TimePoint begin = SteadyClock::now();
    if (clients_->Submit(SampleJob(options_.striped_ranks, true)).empty()) {
      return absl::InternalError(absl::StrCat("the striped job is refused: ", clients_->last_error()));
    }
    const auto delivered = [this] { return fleet_->counts().largest_start_ranks >= options_.striped_ranks; };
    if (!WaitFor(options_.patience, delivered)) {
      return absl::DeadlineExceededError("the striped plan did not arrive");
    }
    result_.striped_seconds = SecondsSince(begin);
    Progress(absl::StrFormat("the striped plan arrived in %.1f s", result_.striped_seconds));
    clients_->submits().Clear();
    const int running = options_.fleet.nodes * options_.fleet.devices / std::max(1, options_.clients.ranks);
    const TimePoint fill = SteadyClock::now();
    result_.refused = clients_->Fill(running + options_.jobs, kFillThreads);
    result_.fill_seconds = SecondsSince(fill);
    result_.fill = clients_->submits().Get();
    Progress(absl::StrFormat("%d jobs submitted in %.1f s, %d refused", running + options_.jobs,
                             result_.fill_seconds, result_.refused));
    return absl::OkStatus();
  }

  void Hold() {
    const TimePoint begin = SteadyClock::now();
    const double cpu = coordinator_->CpuSeconds();
    fleet_->answers().Clear();
    double told = 0;
    while (SecondsSince(begin) < 60 * options_.minutes) {
      std::this_thread::sleep_for(kSample);
      result_.memory.push_back({SecondsSince(begin), coordinator_->ResidentBytes()});
      if (result_.memory.back().seconds < told + 10) continue;
      told = result_.memory.back().seconds;
      const FleetCounts counts = fleet_->counts();
      Progress(absl::StrFormat(
          "%4.0f s: %d attached, %d ranks begun, %d finished, %.0f MiB, heartbeat p99 %.3f s, submit %.3f s, "
          "list %.3f s, %d events",
          told, counts.attached, counts.ranks_started, counts.ranks_finished,
          static_cast<double>(result_.memory.back().resident_bytes) / kMiB, fleet_->answers().Get().p99,
          clients_->submits().Get().p99, clients_->lists().Get().p99, clients_->events()));
    }
    result_.cores = (coordinator_->CpuSeconds() - cpu) / SecondsSince(begin);
    result_.fleet = fleet_->counts();
    result_.heartbeats = fleet_->answers().Get();
    result_.submits = clients_->submits().Get();
    result_.lists = clients_->lists().Get();
    result_.events = clients_->events();
    result_.watching = clients_->watching();
    result_.errors = clients_->errors();
    result_.last_error = clients_->last_error();
  }

  absl::Status Restart() {
    clients_->SetExpected(false);
    fleet_->SetExpected(false);
    const TimePoint begin = SteadyClock::now();
    SEQPAR_RETURN_IF_ERROR(coordinator_->Restart());
    const bool back = WaitFor(options_.patience,
                              [this] { return fleet_->counts().term > result_.fleet.term && AllAttached(); });
    result_.back_seconds = SecondsSince(begin);
    result_.attached_again = fleet_->counts().attached;
    result_.ranks_resumed = fleet_->counts().ranks_resumed;
    Progress(absl::StrFormat("%d nodes are back after %.1f s", result_.attached_again, result_.back_seconds));
    if (!back) return absl::OkStatus();
    // Nor may it lose anybody once the leases that it granted have run out.
    fleet_->SetExpected(true);
    std::this_thread::sleep_for(std::chrono::seconds(8));
    result_.lost_later = fleet_->counts().streams_ended - result_.fleet.streams_ended;
    return absl::OkStatus();
  }

  Options options_;
  Result result_;
  std::unique_ptr<CoordinatorProcess> coordinator_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<Clients> clients_;
};

// What is told, beside what the load is meant for.
struct Line {
  std::string what;
  double seen = 0;
  std::string unit;
  std::optional<double> target;  // at most
};

std::vector<Line> LinesOf(const Result& result, double minutes) {
  const double ms = 1e3;
  std::vector<Line> lines = {
      {"leases lost", static_cast<double>(result.fleet.streams_ended + result.lost_later), "", 0},
      {"heartbeat answered, p50", ms * result.heartbeats.p50, "ms", {}},
      {"heartbeat answered, p99", ms * result.heartbeats.p99, "ms", 500},
      {"heartbeat answered, worst", ms * result.heartbeats.max, "ms", {}},
      {"submit, p50", ms * result.submits.p50, "ms", {}},
      {"submit, p99", ms * result.submits.p99, "ms", 100},
      {"list page, p50", ms * result.lists.p50, "ms", {}},
      {"list page, p99", ms * result.lists.p99, "ms", 50},
      {"nodes back after the restart", result.back_seconds, "s", 15},
      {"largest message to a node", static_cast<double>(result.fleet.largest_message_bytes) / kMiB, "MiB", 4},
      {"the coordinator's processor cores", result.cores, "", 1},
  };
  double peak = 0;
  for (const Sample& s : result.memory) peak = std::max(peak, static_cast<double>(s.resident_bytes) / kMiB);
  lines.push_back({"memory, peak", peak, "MiB", 1536});
  const auto second = MeanMiB(result.memory, 60, 120);
  const auto last = MeanMiB(result.memory, 60 * minutes - 60, 60 * minutes);
  if (minutes >= 3 && second && last) {
    lines.push_back({"memory, last minute over second", 100 * (*last / *second - 1), "%", 2});
  }
  return lines;
}

std::string Figure(double value) {
  return value < 10 ? absl::StrFormat("%.2f", value) : absl::StrFormat("%.0f", value);
}

void PrintTable(const Options& options, const Result& result) {
  std::printf("%d nodes of %d devices, %d jobs waiting, %d watchers of which %d never read, %.1f minutes\n",
              options.fleet.nodes, options.fleet.devices, options.jobs, options.clients.watchers,
              options.clients.silent, options.minutes);
  using Align = TextTable::Align;
  TextTable table(
      {{"", Align::kLeft}, {"seen", Align::kRight}, {"at most", Align::kRight}, {"ratio", Align::kRight}});
  for (const Line& line : LinesOf(result, options.minutes)) {
    const std::string unit = line.unit.empty() ? "" : " " + line.unit;
    std::vector<std::string> row = {line.what, Figure(line.seen) + unit};
    if (line.target) row.push_back(Figure(*line.target) + unit);
    if (line.target && *line.target > 0) row.push_back(Figure(line.seen / *line.target));
    table.AddRow(std::move(row));
  }
  std::printf("%s", table.ToString(2).c_str());
  std::printf(
      "heartbeats %d, submits %d, list pages %d, events read %d; ranks begun %d, finished %d, resumed %d; "
      "errors "
      "%d %s\n",
      static_cast<int>(result.heartbeats.count), static_cast<int>(result.submits.count),
      static_cast<int>(result.lists.count), static_cast<int>(result.events),
      static_cast<int>(result.fleet.ranks_started), static_cast<int>(result.fleet.ranks_finished),
      static_cast<int>(result.ranks_resumed), static_cast<int>(result.errors), result.last_error.c_str());
}

void PrintJson(const Options& options, const Result& result) {
  Json json;
  json["nodes"] = options.fleet.nodes;
  json["devices"] = options.fleet.nodes * options.fleet.devices;
  json["jobs_waiting"] = options.jobs;
  json["watchers"] = options.clients.watchers;
  json["silent_watchers"] = options.clients.silent;
  json["minutes"] = options.minutes;
  for (const Line& line : LinesOf(result, options.minutes)) {
    Json& out = json["figures"][line.what];
    out["seen"] = line.seen;
    out["unit"] = line.unit;
    if (line.target) out["target"] = *line.target;
    if (line.target && *line.target > 0) out["ratio"] = line.seen / *line.target;
  }
  json["counts"] = {{"heartbeats", result.heartbeats.count},
                    {"late_heartbeats", result.fleet.late_beats},
                    {"submits", result.submits.count},
                    {"list_pages", result.lists.count},
                    {"events_read", result.events},
                    {"watching", result.watching},
                    {"ranks_begun", result.fleet.ranks_started},
                    {"ranks_finished", result.fleet.ranks_finished},
                    {"ranks_stopped", result.fleet.ranks_stopped},
                    {"ranks_resumed", result.ranks_resumed},
                    {"nodes_back", result.attached_again},
                    {"refused", result.refused},
                    {"errors", result.errors}};
  json["last_error"] = result.last_error;
  json["attach_seconds"] = result.attach_seconds;
  json["fill"] = {
      {"seconds", result.fill_seconds}, {"p50_ms", 1e3 * result.fill.p50}, {"p99_ms", 1e3 * result.fill.p99}};
  json["striped_plan"] = {{"ranks", result.fleet.largest_start_ranks},
                          {"bytes", result.fleet.largest_start_bytes},
                          {"seconds", result.striped_seconds}};
  for (const Sample& sample : result.memory) {
    json["resident_mib"].push_back({sample.seconds, static_cast<double>(sample.resident_bytes) / kMiB});
  }
  std::printf("%s\n", json.dump(1).c_str());
}

// What must hold at any load, however slow the machine is.
std::vector<std::string> Broken(const Options& options, const Result& result) {
  std::vector<std::string> broken;
  const auto demand = [&broken](bool holds, const std::string& what) {
    if (!holds) broken.push_back(what);
  };
  demand(result.fleet.streams_ended == 0, absl::StrCat(result.fleet.streams_ended, " nodes were lost"));
  demand(result.lost_later == 0, absl::StrCat(result.lost_later, " nodes were lost after the restart"));
  demand(result.refused == 0, absl::StrCat(result.refused, " submits were refused: ", result.last_error));
  demand(result.errors == 0, absl::StrCat(result.errors, " calls failed: ", result.last_error));
  demand(result.attached_again == options.fleet.nodes,
         absl::StrCat("only ", result.attached_again, " nodes came back"));
  demand(result.fleet.largest_start_ranks >= options.striped_ranks, "the striped plan was not delivered");
  demand(result.fleet.ranks_finished > 0, "no rank finished");
  demand(result.ranks_resumed > 0, "the restart resumed no rank");
  demand(result.events > 0, "no watcher was told anything");
  demand(static_cast<double>(result.fleet.largest_message_bytes) <= 4 * kMiB,
         absl::StrCat("a message has ", result.fleet.largest_message_bytes, " bytes"));
  return broken;
}

// A node and its connection is a file each, here and there.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Report(const Options& options, const Result& result) {
  if (options.output == "json") {
    PrintJson(options, result);
  } else {
    PrintTable(options, result);
  }
  if (!options.check) return 0;
  const std::vector<std::string> broken = Broken(options, result);
  for (const std::string& what : broken) std::fprintf(stderr, "broken: %s\n", what.c_str());
  return broken.empty() ? 0 : 1;
}

// gRPC cleans up when its last user has gone, on a thread of its own, beside which a process had better not
// end.
class GrpcLibrary {
 public:
  GrpcLibrary() { grpc_init(); }
  ~GrpcLibrary() { grpc_shutdown_blocking(); }
};

int Main(int argc, char** argv) {
  const GrpcLibrary grpc;
  Options options;
  const auto here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  options.coordinator.binary = here.parent_path() / "bin" / "seqpar-coordinator";
  CLI::App app("A coordinator under load: simulated nodes, jobs, and watchers.");
  app.footer(kFooter);
  const auto add = [&app](const char* flag, auto* value, const char* help) {
    return app.add_option(flag, *value, help)->capture_default_str();
  };
  add("--coordinator", &options.coordinator.binary, "The coordinator's binary")->check(CLI::ExistingFile);
  add("--core", &options.coordinator.core, "The one core that it has; -1: any")->check(CLI::Range(-1, 1023));
  add("--coordinator-flag", &options.coordinator.flags,
      "One more flag of its: --coordinator-flag=--lease=2s");
  add("--nodes", &options.fleet.nodes, "Simulated nodes")->check(CLI::Range(1, 100'000));
  add("--devices", &options.fleet.devices, "Devices of a node")->check(CLI::Range(1, 64));
  add("--jobs", &options.jobs, "Jobs that wait")->check(CLI::Range(1, 1'000'000));
  add("--ranks", &options.clients.ranks, "Ranks of a job")->check(CLI::Range(1, 4096));
  add("--striped-ranks", &options.striped_ranks, "Ranks of the striped job of 4M tokens")
      ->check(CLI::Range(1, 4096));
  add("--job-seconds", &options.fleet.job_seconds, "A job runs for half of it to one and a half")
      ->check(CLI::PositiveNumber);
  add("--watchers", &options.clients.watchers, "Streams of WatchJob")->check(CLI::Range(1, 100'000));
  add("--silent", &options.clients.silent, "Of these, such as never read")->check(CLI::Range(0, 100'000));
  add("--submits", &options.clients.submits, "Jobs that are submitted a second")->check(CLI::PositiveNumber);
  add("--lists", &options.clients.lists, "Pages of jobs that are listed a second")
      ->check(CLI::PositiveNumber);
  add("--minutes", &options.minutes, "How long the load lasts")->check(CLI::PositiveNumber);
  add("-o,--output", &options.output, "table or json")->check(CLI::IsMember({"table", "json"}));
  app.add_flag("--check", options.check,
               "Exit with 1 where anything was lost or unbounded, however long it took");
  CLI11_PARSE(app, argc, argv);
  RaiseFileLimit();
  char folder[] = "/tmp/seqpar-load-XXXXXX";
  if (mkdtemp(folder) == nullptr) return 1;
  options.coordinator.folder = folder;
  const absl::StatusOr<Result> result = Load(options).Run();
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
    return 1;  // the log stays
  }
  const int code = Report(options, *result);
  if (code == 0) std::filesystem::remove_all(folder);
  return code;
}

}  // namespace
}  // namespace seqpar::load

int main(int argc, char** argv) { return seqpar::load::Main(argc, argv); }
