// Many nodes, many jobs and many watchers on one coordinator that has one core: what it answers in which
// time, what it takes of memory, and whether it loses anybody.
#include <stdlib.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/flag_checks.h"
#include "common/base/status.h"
#include "tests/bench/load/report.h"

namespace seqpar::load {
namespace {

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

// A node and its connection is a file each, here and there.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return AnswerParseError(app, error);
  }
  RaiseFileLimit();
  char folder[] = "/tmp/seqpar-load-XXXXXX";
  if (mkdtemp(folder) == nullptr) return 1;
  options.coordinator.folder = folder;
  const absl::StatusOr<Result> result = Load(options).Run();
  int code = 1;
  if (result.ok()) {
    code = Report(options, *result);
  } else {
    std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
  }
  if (code == 0) std::filesystem::remove_all(folder);  // else its log stays
  return code;
}

}  // namespace
}  // namespace seqpar::load

int main(int argc, char** argv) { return seqpar::load::Main(argc, argv); }
