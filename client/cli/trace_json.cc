#include "client/cli/trace_json.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

using Json = nlohmann::ordered_json;

const char* const kTracks[] = {"phases", "compute", "communication"};  // from top to bottom

struct Slice {
  int64_t begin_ns = 0, end_ns = 0;
  v1::TraceActivity activity;
};

// What the report counts of a rank, by pass and layer.
struct LayerTimes {
  int64_t compute_ns = 0, communicating_ns = 0, exposed_ns = 0;
};

struct Rank {
  std::string device;
  std::map<std::string, std::vector<Slice>> tracks;
  std::map<std::pair<std::string, int>, LayerTimes> layers;
  int64_t dropped = 0, dropped_ns = 0;
  int64_t chunks = 0, next_chunk = 0;
};

std::string NodeOf(const std::string& device) { return device.substr(0, device.rfind('/')); }

void Count(const v1::TraceActivity& activity, int64_t duration_ns, Rank* rank) {
  if (activity.pass().empty()) return;
  LayerTimes& times = rank->layers[{activity.pass(), activity.layer()}];
  switch (activity.kind()) {
    case v1::TRACE_ACTIVITY_KIND_COMPUTE:
      times.compute_ns += duration_ns;
      break;
    case v1::TRACE_ACTIVITY_KIND_COMMUNICATION:
      times.communicating_ns += duration_ns;
      break;
    case v1::TRACE_ACTIVITY_KIND_EXPOSED:
      times.exposed_ns += duration_ns;
      break;
    default:
      break;
  }
}

bool Continues(const Slice& before, const v1::TraceActivity& activity, int64_t begin_ns) {
  return activity.kind() == v1::TRACE_ACTIVITY_KIND_PHASE && before.end_ns == begin_ns &&
         before.activity.name() == activity.name();
}

void AddTrack(const v1::TraceChunk& chunk, const v1::TraceTrack& track, int64_t offset_ns, Rank* rank) {
  std::vector<Slice>& slices = rank->tracks[track.name()];
  int64_t at_ns = track.base_ns() + offset_ns;
  const int spans = std::min({track.gap_ns_size(), track.duration_ns_size(), track.activity_size()});
  for (int i = 0; i < spans; ++i) {
    if (track.activity(i) < 0 || track.activity(i) >= chunk.activities_size()) continue;
    const v1::TraceActivity& activity = chunk.activities(track.activity(i));
    const int64_t begin_ns = at_ns + track.gap_ns(i);
    at_ns = begin_ns + track.duration_ns(i);
    Count(activity, track.duration_ns(i), rank);
    if (!slices.empty() && Continues(slices.back(), activity, begin_ns)) {
      slices.back().end_ns = at_ns;
    } else {
      slices.push_back({begin_ns, at_ns, activity});
    }
  }
}

void AddDropped(const v1::TraceChunk& chunk, Rank* rank) {
  for (const v1::TraceDropped& dropped : chunk.dropped()) {
    if (dropped.activity() < 0 || dropped.activity() >= chunk.activities_size()) continue;
    rank->dropped += dropped.spans();
    rank->dropped_ns += dropped.duration_ns();
    Count(chunk.activities(dropped.activity()), dropped.duration_ns(), rank);
  }
}

std::map<std::string, v1::TraceClock> BestClocks(const std::vector<v1::TraceChunk>& chunks) {
  std::map<std::string, v1::TraceClock> clocks;
  for (const v1::TraceChunk& chunk : chunks) {
    v1::TraceClock& best = clocks[NodeOf(chunk.device())];
    if (!chunk.clock().known()) continue;
    if (!best.known() || chunk.clock().bound_ns() < best.bound_ns()) best = chunk.clock();
  }
  return clocks;
}

// Microseconds, to the nanosecond.
std::string Micros(int64_t ns) { return absl::StrFormat("%d.%03d", ns / 1000, ns % 1000); }

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

std::string Quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void AddName(const char* what, int rank, int track, const std::string& name,
             std::vector<std::string>* events) {
  events->push_back(absl::StrCat("{\"ph\":\"M\",\"name\":\"", what, "\",\"pid\":", rank, ",\"tid\":", track,
                                 ",\"args\":{\"name\":", Quoted(name), "}}"));
}

void AddSlice(const Slice& slice, int64_t origin_ns, int rank, int track, std::vector<std::string>* events) {
  const v1::TraceActivity& activity = slice.activity;
  std::string args = absl::StrCat("\"phase\":", Quoted(activity.phase()));
  if (!activity.pass().empty()) {
    absl::StrAppend(&args, ",\"pass\":", Quoted(activity.pass()), ",\"layer\":", activity.layer());
  }
  events->push_back(absl::StrCat(
      "{\"ph\":\"X\",\"pid\":", rank, ",\"tid\":", track, ",\"ts\":", Micros(slice.begin_ns - origin_ns),
      ",\"dur\":", Micros(slice.end_ns - slice.begin_ns), ",\"name\":", Quoted(activity.name()),
      ",\"cat\":", Quoted(ShortName(activity.kind())), ",\"args\":{", args, "}}"));
}

Json Summary(int number, const Rank& rank, const v1::TraceClock& clock) {
  int64_t compute_ns = 0, exposed_ns = 0, hidden_ns = 0;
  for (const auto& [layer, times] : rank.layers) {
    compute_ns += times.compute_ns;
    exposed_ns += times.exposed_ns;
    hidden_ns += std::max<int64_t>(0, times.communicating_ns - times.exposed_ns);
  }
  Json summary;
  summary["rank"] = number;
  summary["device"] = rank.device;
  if (clock.known()) {
    summary["clock_offset_seconds"] = Seconds(clock.offset_ns());
    summary["clock_bound_seconds"] = Seconds(clock.bound_ns());
  }
  summary["compute_seconds"] = Seconds(compute_ns);
  summary["communication_exposed_seconds"] = Seconds(exposed_ns);
  summary["communication_hidden_seconds"] = Seconds(hidden_ns);
  summary["truncated"] = rank.dropped > 0;
  summary["dropped_slices"] = rank.dropped;
  summary["dropped_seconds"] = Seconds(rank.dropped_ns);
  summary["missing_pieces"] = rank.next_chunk - rank.chunks;
  return summary;
}

}  // namespace

std::string TraceToJson(const v1::Job& job, int attempt, const std::vector<v1::TraceChunk>& chunks) {
  const std::map<std::string, v1::TraceClock> clocks = BestClocks(chunks);
  std::map<int, Rank> ranks;
  std::vector<const v1::TraceChunk*> in_order;
  for (const v1::TraceChunk& chunk : chunks) in_order.push_back(&chunk);
  std::stable_sort(in_order.begin(), in_order.end(), [](const v1::TraceChunk* a, const v1::TraceChunk* b) {
    return std::make_pair(a->rank(), a->number()) < std::make_pair(b->rank(), b->number());
  });
  for (const v1::TraceChunk* chunk : in_order) {
    Rank& rank = ranks[chunk->rank()];
    rank.device = chunk->device();
    ++rank.chunks;
    rank.next_chunk = chunk->number() + 1;
    const int64_t offset_ns = clocks.at(NodeOf(chunk->device())).offset_ns();
    for (const v1::TraceTrack& track : chunk->tracks()) AddTrack(*chunk, track, offset_ns, &rank);
    AddDropped(*chunk, &rank);
  }

  int64_t origin_ns = std::numeric_limits<int64_t>::max();
  for (const auto& [number, rank] : ranks) {
    for (const auto& [name, slices] : rank.tracks) {
      if (!slices.empty()) origin_ns = std::min(origin_ns, slices.front().begin_ns);
    }
  }
  std::vector<std::string> events;
  Json summaries = Json::array();
  int64_t bound_ns = 0;
  bool clocks_known = true, truncated = false;
  for (const auto& [number, rank] : ranks) {
    const v1::TraceClock& clock = clocks.at(NodeOf(rank.device));
    clocks_known = clocks_known && clock.known();
    bound_ns = std::max(bound_ns, clock.bound_ns());
    truncated = truncated || rank.dropped > 0 || rank.next_chunk != rank.chunks;
    AddName("process_name", number, 0, absl::StrCat("rank ", number, " (", rank.device, ")"), &events);
    for (int t = 0; t < 3; ++t) {
      AddName("thread_name", number, t, kTracks[t], &events);
      const auto slices = rank.tracks.find(kTracks[t]);
      if (slices == rank.tracks.end()) continue;
      for (const Slice& slice : slices->second) AddSlice(slice, origin_ns, number, t, &events);
    }
    summaries.push_back(Summary(number, rank, clock));
  }

  Json about;
  about["job"] = job.id();
  about["name"] = job.name();
  about["attempt"] = attempt;
  about["state"] = ShortName(job.state());
  about["clock"] = "the coordinator's CLOCK_BOOTTIME, from the first slice on";
  // Two slices of different nodes may each be off by this much, in either direction.
  if (clocks_known) about["clock_bound_seconds"] = Seconds(bound_ns);
  about["truncated"] = truncated;
  about["ranks"] = std::move(summaries);
  std::string text = "{\"displayTimeUnit\":\"ms\",\n\"otherData\":";
  text += about.dump(1, ' ', false, Json::error_handler_t::replace);
  text += ",\n\"traceEvents\":[";
  for (size_t i = 0; i < events.size(); ++i) absl::StrAppend(&text, i == 0 ? "\n" : ",\n", events[i]);
  text += "\n]}\n";
  return text;
}

}  // namespace seqpar
