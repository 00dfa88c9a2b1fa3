#include "coordinator/job_machine/stuck.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

std::string Seconds(int64_t us) { return absl::StrCat(static_cast<double>(us) / 1e6, " s"); }

std::string Name(const JobRecord& record, int rank) {
  return absl::StrCat("rank ", rank, " on ", record.ranks[rank].Where());
}

// "rank 2 on a/2: phase execute, layer 3, backward, step 41; in ring #12, waits for rank 1".
std::string Describe(const JobRecord& record, int index) {
  const RankRecord& rank = record.ranks[index];
  std::string text = absl::StrCat(Name(record, index), ": phase ", PhaseName(rank.phase));
  if (rank.phase == JobPhase::kExecute) absl::StrAppend(&text, ", layer ", rank.layer);
  if (!rank.pass.empty()) absl::StrAppend(&text, ", ", rank.pass);
  absl::StrAppend(&text, ", step ", rank.step);
  if (!rank.waiting_group.empty()) {
    absl::StrAppend(&text, "; in ", rank.waiting_group, " #", rank.collective);
    if (rank.waiting_for_rank >= 0) absl::StrAppend(&text, ", waits for rank ", rank.waiting_for_rank);
  }
  return text;
}

bool Waits(const RankRecord& rank) { return !rank.waiting_group.empty(); }

}  // namespace

std::optional<Stuck> FindMissingAtBootstrap(const JobRecord& record, int64_t timeout_us, int64_t now_us) {
  if (now_us - record.attempt_begin_us < timeout_us) return std::nullopt;
  std::set<int> missing;
  for (size_t i = 0; i < record.ranks.size(); ++i) {
    const int rank = static_cast<int>(i);
    if (record.ranks[i].phase > JobPhase::kBootstrap) continue;
    bool arrived = !record.blobs.empty();
    for (const auto& [group, blobs] : record.blobs) arrived = arrived && blobs.count(rank) != 0;
    if (!arrived) missing.insert(rank);
  }
  if (missing.empty()) return std::nullopt;
  std::vector<std::string> names;
  for (const int rank : missing) {
    names.push_back(absl::StrCat(Name(record, rank),
                                 record.ranks[rank].state == RankState::kAssigned ? " (never started)" : ""));
  }
  Stuck stuck;
  stuck.cause = MakeError(absl::StatusCode::kDeadlineExceeded, reason::kBootstrapTimeout,
                          absl::StrCat(missing.size(), " of ", record.ranks.size(),
                                       " ranks did not arrive in phase bootstrap within ",
                                       Seconds(timeout_us), ": ", absl::StrJoin(names, ", ")));
  return stuck;
}

std::optional<Stuck> FindStandstill(const JobRecord& record, int64_t timeout_us, int64_t now_us) {
  std::vector<int> stale;
  int open = 0;
  bool one_holds_up = false;
  for (size_t i = 0; i < record.ranks.size(); ++i) {
    const RankRecord& rank = record.ranks[i];
    if (rank.state == RankState::kFinished) continue;
    ++open;
    if (now_us - rank.progress_us < timeout_us) continue;
    stale.push_back(static_cast<int>(i));
    one_holds_up = one_holds_up || !Waits(rank);
  }
  if (stale.empty() || !(one_holds_up || static_cast<int>(stale.size()) == open)) return std::nullopt;
  // A rank outside every collective keeps the others waiting; failing that, the one whose collective is the
  // earliest: it has got the least far.
  const int culprit = *std::min_element(stale.begin(), stale.end(), [&](int a, int b) {
    const RankRecord& x = record.ranks[a];
    const RankRecord& y = record.ranks[b];
    if (Waits(x) != Waits(y)) return !Waits(x);
    return x.collective < y.collective;
  });
  Stuck stuck;
  stuck.cause =
      MakeError(absl::StatusCode::kDeadlineExceeded, reason::kNoProgress,
                absl::StrCat("no progress for ", Seconds(timeout_us), ": ", Describe(record, culprit)));
  for (const int rank : stale) {
    if (rank != culprit) stuck.others.push_back(Describe(record, rank));
  }
  return stuck;
}

}  // namespace seqpar
