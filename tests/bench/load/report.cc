#include "tests/bench/load/report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/table.h"

namespace seqpar::load {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kMiB = 1 << 20;

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

}  // namespace

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

}  // namespace seqpar::load
