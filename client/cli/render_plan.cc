#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/render.h"
#include "common/base/table.h"
#include "common/base/units.h"
#include "common/job/enum_names.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr TextTable::Align kRight = TextTable::Align::kRight;
constexpr int kRanksShownMax = 16;

std::string Heads(const v1::HeadRange& heads) {
  return absl::StrCat("[", heads.q_begin(), ", ", heads.q_end(), ") kv [", heads.kv_begin(), ", ",
                      heads.kv_end(), ")");
}

int64_t Tokens(const v1::RankPlan& rank) {
  int64_t tokens = 0;
  for (const v1::Segment& s : rank.segments()) tokens += Segment{s.begin(), s.end(), s.stride()}.size();
  return tokens;
}

std::string Place(const v1::RankPlan& rank) {
  return rank.node().empty() ? "-" : absl::StrCat(rank.node(), "/", rank.device());
}

std::string RenderRanks(const v1::Plan& plan) {
  TextTable table({{"rank", kRight},
                   {"device"},
                   {"tokens", kRight},
                   {"heads"},
                   {"attended pairs", kRight},
                   {"memory", kRight}});
  const int shown = std::min(plan.ranks_size(), kRanksShownMax);
  for (int i = 0; i < shown; ++i) {
    const v1::RankPlan& rank = plan.ranks(i);
    table.AddRow({absl::StrCat(rank.rank()), Place(rank), absl::StrCat(Tokens(rank)), Heads(rank.heads()),
                  FormatCount(rank.attended_pairs()),
                  FormatBytes(static_cast<double>(rank.predicted_peak_bytes()))});
  }
  std::string text = table.ToString(2);
  if (shown < plan.ranks_size()) {
    absl::StrAppend(&text, "  and ", plan.ranks_size() - shown, " more (-o json has all)\n");
  }
  return text;
}

// "forward 2.1 s and backward 5.3 s; " of a job that has both.
std::string Passes(const v1::Prediction& prediction) {
  const auto seconds = [](const v1::PassPrediction& pass) {
    return pass.compute_seconds() + pass.communication_seconds();
  };
  if (seconds(prediction.backward()) <= 0) return "";
  return absl::StrCat("forward ", FormatSeconds(seconds(prediction.forward())), " and backward ",
                      FormatSeconds(seconds(prediction.backward())), "; ");
}

std::vector<TextTable::Column> CandidateColumns() {
  return {{"mesh"},
          {"strategy"},
          {"layout"},
          {"core"},
          {"recompute"},
          {"step", kRight},
          {"memory/rank", kRight},
          {"sent/rank", kRight},
          {"why not"}};
}

std::vector<std::string> CandidateCells(const v1::Candidate& candidate, const std::string& why) {
  const v1::Prediction& prediction = candidate.prediction();
  return {MeshFromProto(candidate.mesh()).ToString(),
          ShortName(candidate.strategy()),
          ShortName(candidate.layout()),
          ShortName(candidate.core()),
          ShortName(candidate.recompute()),
          FormatSeconds(prediction.step_seconds()),
          FormatBytes(static_cast<double>(prediction.peak_bytes())),
          FormatBytes(static_cast<double>(prediction.bytes_sent())),
          why};
}

std::string RenderExplanation(const v1::Explanation& explanation) {
  std::string text =
      absl::StrCat("\n", explanation.considered(), " considered, ", explanation.feasible(), " feasible\n");
  TextTable best(CandidateColumns());
  for (int i = 0; i < explanation.best_size(); ++i) {
    best.AddRow(CandidateCells(explanation.best(i), i == 0 ? "chosen" : explanation.best(i).reason()));
  }
  if (!best.empty()) absl::StrAppend(&text, best.ToString(2));
  TextTable rest({{"count", kRight}, {"reason"}, {"nearest miss"}, {"of it"}});
  const auto add = [&rest](const v1::Explanation::Rejected& group) {
    const v1::Candidate& nearest = group.nearest();
    rest.AddRow({absl::StrCat(group.count()), group.reason(),
                 absl::StrCat(MeshFromProto(nearest.mesh()).ToString(), " ", ShortName(nearest.strategy())),
                 nearest.reason()});
  };
  if (explanation.has_slower()) add(explanation.slower());
  for (const auto& group : explanation.rejected()) add(group);
  return rest.empty() ? text : absl::StrCat(text, "\nthe rest\n", rest.ToString(2));
}

}  // namespace

std::string RenderPlan(const v1::PlanJobResponse& answer) {
  const v1::Plan& plan = answer.plan();
  const v1::Prediction& prediction = plan.prediction();
  std::string text =
      absl::StrCat("plan      ", ShortName(plan.strategy()), ", mesh ", MeshFromProto(plan.mesh()).ToString(),
                   " (", plan.ranks_size(), plan.ranks_size() == 1 ? " rank" : " ranks", "), layout ",
                   ShortName(plan.layout()), ", core ", ShortName(plan.core()), ", recompute ",
                   ShortName(plan.recompute()), "\n", "why       ", plan.reason(), "\n");
  absl::StrAppend(&text, "step      ", FormatSeconds(prediction.step_seconds()),
                  " predicted: ", Passes(prediction), "compute ", FormatSeconds(prediction.compute_seconds()),
                  ", exposed communication ", FormatSeconds(prediction.communication_seconds()), "\n");
  absl::StrAppend(&text, "a rank    ", FormatBytes(static_cast<double>(prediction.peak_bytes())),
                  " of memory, ", FormatBytes(static_cast<double>(prediction.bytes_sent())),
                  " sent, at most\n");
  absl::StrAppend(&text, "work      ", FormatCount(prediction.model_flops(), "FLOP"), "\n\n");
  return absl::StrCat(text, RenderRanks(plan), RenderExplanation(answer.explanation()));
}

}  // namespace seqpar
