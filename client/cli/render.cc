#include "client/cli/render.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/output.h"
#include "client/cli/progress.h"
#include "common/base/status.h"
#include "common/base/table.h"
#include "common/base/units.h"
#include "common/device/device_models.h"
#include "common/job/enum_names.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr size_t kLinksShown = 10;
constexpr TextTable::Align kRight = TextTable::Align::kRight;

std::string State(const v1::Job& job) { return absl::AsciiStrToUpper(ShortName(job.state())); }

std::string Time(const google::protobuf::Timestamp& time) {
  google::protobuf::Timestamp seconds = time;
  seconds.set_nanos(0);
  return google::protobuf::util::TimeUtil::ToString(seconds);
}

std::string ErrorLine(const google::rpc::Status& error) {
  const std::string why = ReasonOf(StatusFromProto(error));
  return why.empty() ? error.message() : absl::StrCat(error.message(), " [", why, "]");
}

// "4 x cpu, 2 threads, 1.00 GiB", "8 x cuda, NVIDIA H200, 138 GiB"
std::string Devices(const v1::Node& node) {
  if (node.devices().empty()) return "none";
  const v1::DeviceSpec& first = node.devices(0).spec();
  const std::string what = IsHost(first.kind())
                               ? absl::StrCat(first.threads(), first.threads() == 1 ? " thread" : " threads")
                               : first.name();
  return absl::StrCat(node.devices_size(), " x ", first.kind(), ", ", what, ", ",
                      FormatBytes(static_cast<double>(first.memory_bytes())));
}

std::string Labels(const v1::Node& node) {
  const std::map<std::string, std::string> labels(node.labels().begin(), node.labels().end());  // in order
  return absl::StrJoin(labels, " ", absl::PairFormatter("="));
}

// A line for each device that takes no ranks though its node does.
std::string SetAside(const v1::ListNodesResponse& nodes) {
  std::string text;
  for (const v1::Node& node : nodes.nodes()) {
    for (int i = 0; i < node.devices_size(); ++i) {
      if (node.devices(i).set_aside().empty()) continue;
      absl::StrAppend(&text, node.name(), "/", i, " is set aside: ", node.devices(i).set_aside(), "\n");
    }
  }
  return text;
}

// A line for each link between nodes, the slowest first; of very many only those.
std::string NodeLinks(const v1::ListNodesResponse& nodes) {
  std::vector<std::pair<const v1::Node*, const v1::NodeLink*>> links;
  for (const v1::Node& node : nodes.nodes()) {
    for (const v1::NodeLink& link : node.links()) {
      if (node.name() < link.peer()) links.emplace_back(&node, &link);
    }
  }
  std::stable_sort(links.begin(), links.end(), [](const auto& a, const auto& b) {
    return a.second->rates().bandwidth() < b.second->rates().bandwidth();
  });
  std::string text;
  for (size_t i = 0; i < std::min(links.size(), kLinksShown); ++i) {
    const v1::NodeLink& link = *links[i].second;
    absl::StrAppend(&text, links[i].first->name(), " to ", link.peer(), " (", link.device_kind(),
                    "): ", FormatBytes(link.rates().bandwidth()), "/s, ",
                    FormatSeconds(link.rates().latency()), link.outdated() ? ", outdated" : "", "\n");
  }
  if (links.size() > kLinksShown) {
    absl::StrAppend(&text, links.size() - kLinksShown, " more links, none slower: -o json\n");
  }
  return text;
}

}  // namespace

std::string RenderJob(const v1::Job& job) {
  std::string text = absl::StrCat("job           ", job.id(), job.name().empty() ? "" : "  ", job.name(),
                                  "\n", "state         ", RenderProgress(job), "\n");
  if (job.has_create_time()) absl::StrAppend(&text, "created       ", Time(job.create_time()), "\n");
  if (job.has_start_time()) absl::StrAppend(&text, "started       ", Time(job.start_time()), "\n");
  if (job.has_end_time()) absl::StrAppend(&text, "ended         ", Time(job.end_time()), "\n");
  if (job.error().code() != 0) absl::StrAppend(&text, "error         ", ErrorLine(job.error()), "\n");
  for (const v1::AttemptInfo& attempt : job.attempts()) {
    absl::StrAppend(&text, "attempt ", attempt.attempt(), "     ", attempt.mesh(), " on ",
                    absl::StrJoin(attempt.devices(), " "), "\n");
    if (attempt.first_layer() > 0) {
      absl::StrAppend(&text, "  goes on from the checkpoint after layer ", attempt.first_layer(), "\n");
    }
    if (attempt.error().code() != 0)
      absl::StrAppend(&text, "  first cause  ", ErrorLine(attempt.error()),
                      attempt.not_counted() ? " (not one of its attempts)\n" : "\n");
    for (const std::string& consequence : attempt.consequences()) {
      absl::StrAppend(&text, "  then         ", consequence, "\n");
    }
  }
  if (job.has_report()) absl::StrAppend(&text, RenderReport(job.report()));
  return Printable(text);
}

std::string RenderJobs(const v1::ListJobsResponse& jobs) {
  if (jobs.jobs().empty()) return "no jobs\n";
  TextTable table({{"JOB"}, {"NAME"}, {"STATE"}, {"PHASE"}, {"ATTEMPT", kRight}, {"CREATED"}, {"WHY"}});
  for (const v1::Job& job : jobs.jobs()) {
    std::string why = job.error().code() != 0 ? ErrorLine(job.error()) : job.reason();
    why = why.substr(0, why.find('\n'));
    table.AddRow({job.id(), Printable(job.name(), /*kept=*/""), State(job), ShortName(job.phase()),
                  absl::StrCat(job.attempt()), Time(job.create_time()), why});
  }
  std::string text = table.ToString();
  if (!jobs.next_page_token().empty()) absl::StrAppend(&text, "more: ask with a larger --limit\n");
  return Printable(text);
}

std::string RenderNodes(const v1::ListNodesResponse& nodes) {
  if (nodes.nodes().empty()) return "no nodes\n";
  TextTable table({{"NODE"},
                   {"STATE"},
                   {"DEVICES"},
                   {"BUSY", kRight},
                   {"LEASE LEFT", kRight},
                   {"VERSION"},
                   {"LABELS"},
                   {"JOBS"}});
  for (const v1::Node& node : nodes.nodes()) {
    int busy = 0;
    std::vector<std::string> jobs;
    for (const v1::NodeDevice& device : node.devices()) {
      if (device.job().empty()) continue;
      ++busy;
      if (jobs.empty() || jobs.back() != device.job()) jobs.push_back(device.job());
    }
    const bool gone = node.state() == v1::NODE_STATE_LOST;
    table.AddRow({node.name(),
                  absl::StrCat(absl::AsciiStrToUpper(ShortName(node.state())),
                               gone && node.drained() ? ", DRAINED" : ""),
                  Devices(node), absl::StrCat(busy), FormatSeconds(node.lease_left()), node.version(),
                  Labels(node), absl::StrJoin(jobs, " ")});
  }
  return Printable(absl::StrCat(table.ToString(), SetAside(nodes), NodeLinks(nodes)));
}

std::string RenderLogs(const v1::GetJobLogsResponse& logs) {
  std::string text;
  for (const v1::RankLog& log : logs.logs()) {
    absl::StrAppend(&text, "== attempt ", log.attempt(), ", rank ", log.rank(), ", ", log.device(), "\n",
                    log.text());
    if (!log.text().empty() && !absl::EndsWith(log.text(), "\n")) text += '\n';
  }
  return text.empty() ? "no logs\n" : Printable(text);
}

}  // namespace seqpar
