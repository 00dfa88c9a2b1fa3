// How verification moves its float64 values between ranks.
#include <algorithm>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/executor/verify.h"

namespace seqpar {

absl::StatusOr<Verifier::ByRank> Verifier::Gather(Pass pass, const std::vector<double>& mine,
                                                  const std::vector<int64_t>& counts) {
  SEQPAR_CHECK(static_cast<int64_t>(mine.size()) == counts[rank_]);
  std::vector<int64_t> bytes;
  int64_t total = 0;
  for (const int64_t count : counts) {
    bytes.push_back(count * static_cast<int64_t>(sizeof(double)));
    total += bytes.back();
  }
  ByRank by_rank(counts.size());
  if (total == 0) return by_rank;
  Device& device = *streams_.device;
  Stream& comm = *streams_.comm;
  SEQPAR_ASSIGN_OR_RETURN(const Buffer send,
                          device.Allocate(std::max<int64_t>(1, bytes[rank_]), "verification"));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer recv, device.Allocate(total, "verification"));
  std::vector<double> all(static_cast<size_t>(total) / sizeof(double));
  if (!mine.empty()) device.CopyFromHost(comm, mine.data(), send.data(), bytes[rank_]);
  world_->AllGather(comm, {Operation::kVerify, pass}, send.data(), bytes, recv.data());
  device.CopyToHost(comm, recv.data(), all.data(), total);
  SEQPAR_RETURN_IF_ERROR(comm.Synchronize());
  auto from = all.begin();
  for (size_t rank = 0; rank < counts.size(); ++rank) {
    by_rank[rank].assign(from, from + counts[rank]);
    from += counts[rank];
  }
  on_piece_();
  return by_rank;
}

absl::Status Verifier::SumOverAll(Pass pass, Rows64* rows) {
  const std::vector<int64_t> counts(plan_.ranks.size(), static_cast<int64_t>(rows->data.size()));
  SEQPAR_ASSIGN_OR_RETURN(const ByRank by_rank, Gather(pass, rows->data, counts));
  std::fill(rows->data.begin(), rows->data.end(), 0.0);
  for (const std::vector<double>& part : by_rank) {
    for (size_t i = 0; i < rows->data.size(); ++i) rows->data[i] += part[i];
  }
  return absl::OkStatus();
}

absl::Status Verifier::SumOverRing(Pass pass, const std::vector<int64_t>& counts, Rows64* rows) {
  SEQPAR_ASSIGN_OR_RETURN(const ByRank by_rank, Gather(pass, rows->data, counts));
  std::fill(rows->data.begin(), rows->data.end(), 0.0);
  for (const int rank : plan_.ranks[rank_].ring_group) {
    for (size_t i = 0; i < rows->data.size(); ++i) rows->data[i] += by_rank[rank][i];
  }
  return absl::OkStatus();
}

std::vector<Partial64> Verifier::MergeOverRing(const ByRank& partials, const std::vector<int>& ring,
                                               int q_heads) const {
  std::vector<Partial64> merged(sampled_.size() * static_cast<size_t>(q_heads), Partial64(dim_));
  for (const int rank : ring) {
    for (size_t i = 0; i < merged.size(); ++i) merged[i].Merge(&partials[rank][i * (dim_ + 2)]);
  }
  return merged;
}

std::vector<int64_t> Verifier::CountsOf(const std::function<int64_t(const HeadRange&)>& values) const {
  std::vector<int64_t> counts;
  for (const RankPlan& rank : plan_.ranks) counts.push_back(values(rank.heads));
  return counts;
}

}  // namespace seqpar
