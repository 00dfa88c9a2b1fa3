#include "coordinator/job_machine/stuck.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/saturate.h"
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

int64_t PatienceWith(const RankRecord& rank, const Patience& patience) {
  return rank.phase == JobPhase::kExecute ? patience.step_us : patience.other_us;
}

// The rank that `rank` waits for; -1: none that is known.
int WaitsFor(const JobRecord& record, int rank) {
  const int peer = Waits(record.ranks[rank]) ? record.ranks[rank].waiting_for_rank : -1;
  return peer < static_cast<int>(record.ranks.size()) ? peer : -1;
}

// A rank outside every collective keeps the others waiting. Failing that, the end of a chain of those who
// wait for one another; where they wait in a circle, the one of it whose collective is the earliest: it has
// got the least far.
int FindCulprit(const JobRecord& record, const std::vector<int>& stale) {
  const auto outside =
      std::find_if(stale.begin(), stale.end(), [&](int r) { return !Waits(record.ranks[r]); });
  if (outside != stale.end()) return *outside;
  int at = stale.front();
  std::vector<int> chain;
  while (std::find(chain.begin(), chain.end(), at) == chain.end()) {
    chain.push_back(at);
    const int next = WaitsFor(record, at);
    if (next < 0) break;
    at = next;
  }
  std::vector<int> among = stale;
  if (WaitsFor(record, chain.back()) >= 0) {  // the chain has come back to itself
    among.assign(std::find(chain.begin(), chain.end(), at), chain.end());
  }
  return *std::min_element(among.begin(), among.end(), [&](int a, int b) {
    return record.ranks[a].collective < record.ranks[b].collective;
  });
}

// Whether `rank` has left the collective in which `waiter` waits for it.
bool HasLeft(const RankRecord& rank, const RankRecord& waiter) {
  const auto group = rank.groups.find(waiter.waiting_group);
  return group != rank.groups.end() && group->second.finished >= waiter.collective;
}

// "; rank 0 on a/0 waits for it in ring #12, which it has not entered (missing enter)": the edge on which the
// gang stands. "" where nobody waits for `culprit`.
std::string Edge(const JobRecord& record, int culprit) {
  const RankRecord& rank = record.ranks[culprit];
  if (const int peer = WaitsFor(record, culprit); peer >= 0 && HasLeft(record.ranks[peer], rank)) {
    return absl::StrCat("; ", Name(record, peer), " has left it (missing exit)");
  }
  for (size_t i = 0; i < record.ranks.size(); ++i) {
    const RankRecord& waiter = record.ranks[i];
    if (waiter.state == RankState::kFinished || WaitsFor(record, static_cast<int>(i)) != culprit) continue;
    const std::string text = absl::StrCat("; ", Name(record, static_cast<int>(i)), " waits for it in ",
                                          waiter.waiting_group, " #", waiter.collective);
    if (HasLeft(rank, waiter)) return absl::StrCat(text, ", which it has left (missing exit)");
    if (Waits(rank) && rank.waiting_group != waiter.waiting_group) {
      return absl::StrCat(text, ", while it waits in another (mismatch)");
    }
    if (rank.waiting_group == waiter.waiting_group && rank.collective == waiter.collective) {
      return absl::StrCat(text, " too");
    }
    const bool known = rank.groups.count(waiter.waiting_group) != 0;
    return known ? absl::StrCat(text, ", which it has not entered (missing enter)") : text;
  }
  return "";
}

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
  stuck.rank = *missing.begin();
  stuck.cause = MakeError(absl::StatusCode::kDeadlineExceeded, reason::kBootstrapTimeout,
                          absl::StrCat(missing.size(), " of ", record.ranks.size(),
                                       " ranks did not arrive in phase bootstrap within ",
                                       Seconds(timeout_us), ": ", absl::StrJoin(names, ", ")));
  return stuck;
}

Patience PatienceFor(const JobRecord& record, int64_t step_timeout_us, int64_t other_us) {
  constexpr double kLayers = 5;
  const double layers = std::max<double>(1, static_cast<double>(record.spec.config.layers));
  const double predicted = kLayers * record.plan.prediction.step_seconds / layers;
  return {std::max(step_timeout_us, MicrosOf(predicted)), other_us};
}

std::optional<Stuck> FindStandstill(const JobRecord& record, const Patience& patience, int64_t now_us) {
  std::vector<int> stale;
  int open = 0;
  bool one_holds_up = false;
  for (size_t i = 0; i < record.ranks.size(); ++i) {
    const RankRecord& rank = record.ranks[i];
    if (rank.state == RankState::kFinished) continue;
    ++open;
    if (now_us - rank.progress_us < PatienceWith(rank, patience)) continue;
    stale.push_back(static_cast<int>(i));
    one_holds_up = one_holds_up || !Waits(rank);
  }
  if (stale.empty() || !(one_holds_up || static_cast<int>(stale.size()) == open)) return std::nullopt;
  const int culprit = FindCulprit(record, stale);
  const int64_t stood_us = PatienceWith(record.ranks[culprit], patience);
  Stuck stuck;
  stuck.rank = culprit;
  stuck.cause = MakeError(absl::StatusCode::kDeadlineExceeded, reason::kNoProgress,
                          absl::StrCat("no progress for ", Seconds(stood_us), ": ", Describe(record, culprit),
                                       Edge(record, culprit)));
  for (const int rank : stale) {
    if (rank != culprit) stuck.others.push_back(Describe(record, rank));
  }
  return stuck;
}

}  // namespace seqpar
