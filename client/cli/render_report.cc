#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/render.h"
#include "common/base/table.h"
#include "common/base/units.h"

namespace seqpar {
namespace {

constexpr TextTable::Align kRight = TextTable::Align::kRight;
constexpr double kSlow = 1.5;  // a rank that is worth a line

std::string Error(double value) { return absl::StrFormat("%.2e", value); }

// "12.3 s, predicted 11.9 s (+3.4%)"
std::string Beside(double measured, double predicted) {
  std::string text = FormatSeconds(measured);
  if (predicted <= 0) return text;
  return absl::StrCat(text, ", predicted ", FormatSeconds(predicted),
                      absl::StrFormat(" (%+.1f%%)", 100 * (measured / predicted - 1)));
}

std::string RenderRanks(const v1::Report& report) {
  TextTable table({{"rank", kRight},
                   {"device"},
                   {"kernel"},
                   {"tokens", kRight},
                   {"compute", kRight},
                   {"exposed", kRight},
                   {"hidden", kRight},
                   {"execute", kRight},
                   {"peak", kRight},
                   {"predicted", kRight},
                   {"sent", kRight}});
  for (const v1::RankReport& rank : report.ranks()) {
    int64_t sent = 0;
    for (const v1::Traffic& traffic : rank.traffic()) sent += traffic.bytes();
    table.AddRow({absl::StrCat(rank.rank()), rank.device(), rank.kernel(), absl::StrCat(rank.tokens()),
                  FormatSeconds(rank.compute_seconds()), FormatSeconds(rank.communication_exposed_seconds()),
                  FormatSeconds(rank.communication_hidden_seconds()), FormatSeconds(rank.execute_seconds()),
                  FormatBytes(static_cast<double>(rank.peak_bytes())),
                  FormatBytes(static_cast<double>(rank.predicted_peak_bytes())),
                  FormatBytes(static_cast<double>(sent))});
  }
  return absl::StrCat("\nranks, all passes\n", table.ToString(2));
}

std::string RenderTraffic(const v1::Report& report) {
  struct Sum {
    int64_t bytes = 0, messages = 0, bytes_max = 0;
  };
  // In the order in which the first rank met them.
  std::vector<std::pair<std::string, std::string>> order;
  std::map<std::pair<std::string, std::string>, Sum> sums;
  for (const v1::RankReport& rank : report.ranks()) {
    for (const v1::Traffic& traffic : rank.traffic()) {
      const std::pair<std::string, std::string> key(traffic.operation(), traffic.pass());
      if (sums.find(key) == sums.end()) order.push_back(key);
      Sum& sum = sums[key];
      sum.bytes += traffic.bytes();
      sum.messages += traffic.messages();
      sum.bytes_max = std::max(sum.bytes_max, traffic.bytes());
    }
  }
  if (order.empty()) return "";
  TextTable table({{"operation"},
                   {"pass"},
                   {"bytes", kRight},
                   {"", kRight},
                   {"messages", kRight},
                   {"most by a rank", kRight}});
  for (const auto& key : order) {
    const Sum& sum = sums[key];
    table.AddRow({key.first, key.second, absl::StrCat(sum.bytes), FormatBytes(static_cast<double>(sum.bytes)),
                  absl::StrCat(sum.messages), FormatBytes(static_cast<double>(sum.bytes_max))});
  }
  return absl::StrCat("\ntraffic, sent by all ranks\n", table.ToString(2));
}

// Each pass and the step: what the slowest rank took beside what the plan predicted.
std::string RenderPasses(const v1::Report& report) {
  if (report.passes().empty() || report.passes_size() != report.predicted_passes_size()) return "";
  TextTable table({{"pass"},
                   {"seconds", kRight},
                   {"predicted", kRight},
                   {"compute", kRight},
                   {"predicted", kRight},
                   {"exposed", kRight},
                   {"predicted", kRight},
                   {"hidden", kRight}});
  for (int i = 0; i < report.passes_size(); ++i) {
    const v1::PassFigures &measured = report.passes(i), &predicted = report.predicted_passes(i);
    table.AddRow({measured.pass(), FormatSeconds(measured.seconds()), FormatSeconds(predicted.seconds()),
                  FormatSeconds(measured.compute_seconds()), FormatSeconds(predicted.compute_seconds()),
                  FormatSeconds(measured.communication_exposed_seconds()),
                  FormatSeconds(predicted.communication_exposed_seconds()),
                  FormatSeconds(measured.communication_hidden_seconds())});
  }
  return absl::StrCat("\npasses, of the slowest rank (exposed and hidden: communication)\n",
                      table.ToString(2));
}

std::string RenderPhases(const v1::Report& report) {
  if (report.phases().empty()) return "";
  TextTable table({{"phase"}, {"measured", kRight}, {"predicted", kRight}, {"", kRight}});
  for (const v1::PhaseSeconds& phase : report.phases()) {
    const double predicted = phase.predicted();
    table.AddRow({phase.phase(), FormatSeconds(phase.seconds()),
                  predicted > 0 ? FormatSeconds(predicted) : "",
                  predicted > 0 ? absl::StrFormat("%+.1f%%", 100 * (phase.seconds() / predicted - 1)) : ""});
  }
  return absl::StrCat("\nphases, of the slowest rank\n", table.ToString(2));
}

std::string RenderVerification(const v1::Verification& verification) {
  if (!verification.ran()) return "verification  not asked for (verify: {rows: 8})\n";
  std::string text = absl::StrCat(
      "verification  ", verification.worst_error() <= verification.max_error() ? "passed" : "FAILED",
      ": worst error ", Error(verification.worst_error()), " (", verification.worst_tensor(), ", layer ",
      verification.worst_layer(), "), bound ", Error(verification.max_error()), ", ", verification.rows(),
      " rows a layer in float64\n");
  std::map<int, std::vector<std::string>> by_layer;
  for (const v1::LayerError& error : verification.layers()) {
    by_layer[error.layer()].push_back(absl::StrCat(error.tensor(), " ", Error(error.error())));
  }
  for (const auto& layer : by_layer) {
    absl::StrAppend(&text, "  layer ", layer.first, "  ", absl::StrJoin(layer.second, ", "), "\n");
  }
  return text;
}

// Where a rank says so: reports of before do not.
std::string RenderBits(const v1::Report& report) {
  if (report.ranks().empty() || !report.ranks(0).has_deterministic()) return "";
  const bool same = std::all_of(report.ranks().begin(), report.ranks().end(),
                                [](const v1::RankReport& rank) { return rank.deterministic(); });
  return same ? "bits          the same from run to run\n"
              : "bits          gradients' last ones may differ from run to run (deterministic: true keeps "
                "them)\n";
}

}  // namespace

std::string RenderReport(const v1::Report& report) {
  std::string text;
  absl::StrAppend(&text, "plan          ", report.strategy(), ", mesh ", report.mesh(), ", layout ",
                  report.layout(), ", core ", report.core(), ", recompute ", report.recompute(), "\n");
  if (!report.reason().empty()) absl::StrAppend(&text, "why           ", report.reason(), "\n");
  absl::StrAppend(&text, "step          ", Beside(report.step_seconds(), report.predicted_step_seconds()),
                  "\n");
  absl::StrAppend(&text, "rate          ", FormatRate(report.tokens_per_second(), "tokens"), ", ",
                  FormatRate(report.flops_per_second(), "FLOP"), ", ",
                  FormatPercent(report.fraction_of_peak()), " of the measured peak (",
                  FormatCount(report.model_flops(), "FLOP"), ", ", report.tokens(), " tokens, ",
                  report.layers(), report.layers() == 1 ? " layer)\n" : " layers)\n");
  absl::StrAppend(&text, RenderVerification(report.verification()), RenderBits(report));
  for (const v1::RankReport& rank : report.ranks()) {
    if (rank.slowness() < kSlow) continue;
    absl::StrAppend(&text, "slow          rank ", rank.rank(), " on ", rank.device(), " took ",
                    absl::StrFormat("%.1f", rank.slowness()),
                    " times as long for its work as the median rank\n");
  }
  if (!report.output().empty()) absl::StrAppend(&text, "output        ", report.output(), "\n");
  if (report.ignored_tensors() > 0) {
    absl::StrAppend(&text, "ignored       ", report.ignored_tensors(), " tensors outside the layers used\n");
  }
  return absl::StrCat(text, RenderPasses(report), RenderPhases(report), RenderRanks(report),
                      RenderTraffic(report));
}

}  // namespace seqpar
