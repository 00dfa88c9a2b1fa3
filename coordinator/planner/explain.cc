#include "coordinator/planner/explain.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/units.h"

namespace seqpar {
namespace {

constexpr size_t kBestShown = 11;

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

std::string Ranks(const Mesh& m) { return absl::StrCat(m.size(), m.size() == 1 ? " rank" : " ranks"); }

bool SameAxes(const Mesh& a, const Mesh& b) {
  return a.tensor == b.tensor && a.ulysses == b.ulysses && a.ring == b.ring;
}

const char* RanAgain(Recompute recompute) {
  return recompute == Recompute::kMlp         ? "the MLP"
         : recompute == Recompute::kAttention ? "attention"
                                              : "each layer";
}

// What makes `slower` slower than `faster`: the larger of the two differences, and its cause where it shows.
std::string CauseOf(const JobSpec& job, const Scored& slow, const Scored& fast) {
  const Candidate &slower = slow.candidate, &faster = fast.candidate;
  const double compute = slower.prediction.compute_seconds - faster.prediction.compute_seconds;
  const double exposed = slower.prediction.communication_seconds - faster.prediction.communication_seconds;
  if (exposed >= compute) {
    if (slower.mesh.size() > faster.mesh.size()) {
      return absl::StrCat(Ranks(slower.mesh), " exchange more than they save");
    }
    return "exposes more communication";
  }
  if (slow.kind != fast.kind) return absl::StrCat("runs on ", slow.kind, " devices");
  if (slower.recompute > faster.recompute) {
    return absl::StrCat("fits only by running ", RanAgain(slower.recompute), " again in backward");
  }
  if (slower.mesh.size() < faster.mesh.size()) {
    return absl::StrCat(Ranks(slower.mesh), slower.mesh.size() == 1 ? " does the work" : " share the work");
  }
  const int parts = slower.mesh.tensor * slower.mesh.ulysses;
  if (job.config.heads % parts != 0 && job.config.heads % (faster.mesh.tensor * faster.mesh.ulysses) == 0) {
    return absl::StrCat(job.config.heads, " heads do not divide by ", parts);
  }
  if (SameAxes(slower.mesh, faster.mesh) && slower.layout != faster.layout) {
    return absl::StrCat("the ", LayoutName(slower.layout), " layout gives its busiest rank more of the mask");
  }
  return "its busiest rank computes more";
}

// Up to here a prediction ties with the fastest: the first where the chosen one is, else the second.
double TieLimit(const std::vector<Scored>& feasible) {
  double fastest = feasible.front().candidate.prediction.step_seconds;
  if (feasible.size() > 1) fastest = std::min(fastest, feasible[1].candidate.prediction.step_seconds);
  return fastest * (1 + kTie);
}

std::string WhyNot(const JobSpec& job, const SearchResult& result, const Scored& scored) {
  const Candidate &c = scored.candidate, &chosen = result.feasible.front().candidate;
  const double ours = chosen.prediction.step_seconds, theirs = c.prediction.step_seconds;
  if (theirs <= TieLimit(result.feasible)) {
    const std::string tie = theirs < ours
                                ? absl::StrFormat("a tie (%.1f %% faster)", Percent(ours - theirs, ours))
                                : absl::StrFormat("a tie (%.1f %% slower)", Percent(theirs - ours, ours));
    return absl::StrCat(tie, c.mesh.size() > chosen.mesh.size() ? ", with more devices" : ", less simple");
  }
  return absl::StrFormat("%.1f %% slower: ", Percent(theirs - ours, ours)) +
         CauseOf(job, scored, result.feasible.front());
}

// The fastest with another mesh than the chosen one; null where there is none.
const Scored* NextMesh(const SearchResult& result) {
  for (const Scored& scored : result.feasible) {
    if (!SameAxes(scored.candidate.mesh, result.feasible.front().candidate.mesh)) return &scored;
  }
  return nullptr;
}

}  // namespace

std::string NameOf(const Candidate& c) {
  std::string name = absl::StrCat(StrategyName(c.strategy), " ", c.mesh.ToString());
  if (c.mesh.size() == 1) name = "one rank";
  if (c.mesh.ring > 1) absl::StrAppend(&name, " ", LayoutName(c.layout));
  if (c.strategy == StrategyKind::kHybrid && c.mesh.ring > 1 && c.core == CoreKind::kGather) {
    absl::StrAppend(&name, ", gather");
  }
  return name;
}

std::string WhyChosen(const JobSpec& job, const SearchResult& result) {
  const Scored& chosen = result.feasible.front();
  const Candidate& c = chosen.candidate;
  const Prediction& p = c.prediction;
  // One kind by the job's wish, or because there is no other, needs no word.
  const std::string on = result.kinds.size() > 1 ? absl::StrCat(" on ", chosen.kind, " devices") : "";
  std::string text = absl::StrCat(NameOf(c), on, ": ");
  // The fastest of the others, which is the fastest of all where the chosen one won a tie.
  const Candidate* next = result.feasible.size() > 1 ? &result.feasible[1].candidate : nullptr;
  if (next == nullptr) {
    absl::StrAppend(&text, "the only mesh that the job allows and that fits");
  } else if (next->prediction.step_seconds < p.step_seconds) {
    absl::StrAppend(&text,
                    absl::StrFormat("ties with the fastest, %s (%.1f %% behind), ", NameOf(*next),
                                    Percent(p.step_seconds - next->prediction.step_seconds,
                                            next->prediction.step_seconds)),
                    c.mesh.size() < next->mesh.size() ? "with fewer devices" : "and is simpler");
  } else {
    absl::StrAppend(&text, "predicted fastest");
    const Scored* other = NextMesh(result);
    if (other != nullptr) {
      absl::StrAppend(&text, "; next mesh is ", NameOf(other->candidate), ", ", WhyNot(job, result, *other));
    }
  }
  absl::StrAppend(&text, ". ", FormatSeconds(p.step_seconds), " a step, ",
                  absl::StrFormat("%.1f %%", Percent(p.communication_seconds, p.step_seconds)),
                  " of it waiting for communication; ", FormatBytes(static_cast<double>(p.peak_bytes)),
                  " of ", FormatBytes(static_cast<double>(chosen.usable_bytes)), " a device");
  if (c.recompute != Recompute::kNone) {
    absl::StrAppend(&text, ", by running ", RanAgain(c.recompute), " again in backward",
                    job.recompute ? ", as the job asks" : "");
  }
  if (!chosen.network_from.empty()) {
    absl::StrAppend(&text, "; between nodes ", FormatBytes(chosen.network.bandwidth), "/s and ",
                    FormatSeconds(chosen.network.latency), ", ", chosen.network_from);
  }
  if (std::abs(p.correction - 1) > 0.005) {
    absl::StrAppend(&text, absl::StrFormat("; times are %.2f of the calibration's, as finished jobs taught",
                                           p.correction));
  }
  return text;
}

Explanation MakeExplanation(const JobSpec& job, const SearchResult& result, bool all) {
  Explanation x;
  x.considered = result.considered;
  x.feasible = static_cast<int64_t>(result.feasible.size());
  x.rejected = result.rejections;
  for (const Scored& scored : result.feasible) {
    const bool shown = x.best.size() < kBestShown;
    if (!shown && (!all || x.all.size() >= kAllShown)) break;
    Candidate c = scored.candidate;
    const bool chosen = &scored == &result.feasible.front();
    c.reason = chosen ? WhyChosen(job, result) : WhyNot(job, result, scored);
    if (shown) x.best.push_back(c);
    if (all && x.all.size() < kAllShown) x.all.push_back(std::move(c));
  }
  if (result.feasible.size() > x.best.size()) {
    x.slower.reason = "fits, not among the ten next best";
    x.slower.count = static_cast<int64_t>(result.feasible.size() - x.best.size());
    const Scored& fastest = result.feasible[x.best.size()];
    x.slower.nearest = fastest.candidate;
    x.slower.nearest.reason = WhyNot(job, result, fastest);
  }
  for (const Scored& scored : result.rejected) {
    if (!all || x.all.size() >= kAllShown) break;
    x.all.push_back(scored.candidate);
  }
  return x;
}

}  // namespace seqpar
