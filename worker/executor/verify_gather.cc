// How verification moves its float64 values between ranks.
#include <algorithm>
#include <numeric>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/job/verification.h"
#include "worker/executor/verify.h"

namespace seqpar {

absl::Status Verifier::Gather(Pass pass, const std::vector<double>& mine, const std::vector<int64_t>& counts,
                              int64_t unit, const UsePiece& use) {
  SEQPAR_CHECK(static_cast<int64_t>(mine.size()) == counts[rank_]);
  constexpr auto kBytes = static_cast<int64_t>(sizeof(double));
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  const int64_t at_once = std::min(most, VerifyValuesAtOnce(world_->size(), unit, bytes_at_once_));
  Device& device = *streams_.device;
  Stream& comm = *streams_.comm;
  Buffer send, recv;  // as large as the first piece needs: no later one is larger
  std::vector<double> all;
  ByRank piece(counts.size());
  for (int64_t first = 0; first < most; first += at_once) {
    std::vector<int64_t> bytes;
    int64_t total = 0;
    for (const int64_t count : counts) {
      bytes.push_back(std::clamp<int64_t>(count - first, 0, at_once) * kBytes);
      total += bytes.back();
    }
    if (first == 0) {
      SEQPAR_ASSIGN_OR_RETURN(send, device.Allocate(std::max<int64_t>(1, bytes[rank_]), "verification"));
      SEQPAR_ASSIGN_OR_RETURN(recv, device.Allocate(total, "verification"));
    }
    all.resize(static_cast<size_t>(total / kBytes));
    if (bytes[rank_] > 0) device.CopyFromHost(comm, mine.data() + first, send.data(), bytes[rank_]);
    world_->AllGather(comm, {Operation::kVerify, pass}, send.data(), bytes, recv.data());
    device.CopyToHost(comm, recv.data(), all.data(), total);
    SEQPAR_RETURN_IF_ERROR(comm.Synchronize());
    auto from = all.begin();
    for (size_t rank = 0; rank < counts.size(); ++rank) {
      piece[rank].assign(from, from + bytes[rank] / kBytes);
      from += bytes[rank] / kBytes;
    }
    use(first, piece);
    on_piece_();
  }
  return absl::OkStatus();
}

absl::Status Verifier::SumOver(Pass pass, const std::vector<int>& ranks, const std::vector<int64_t>& counts,
                               Rows64* rows) {
  const std::vector<double> mine = rows->data;
  std::fill(rows->data.begin(), rows->data.end(), 0.0);
  return Gather(pass, mine, counts, 1, [&](int64_t first, const ByRank& piece) {
    for (const int rank : ranks) {
      for (size_t i = 0; i < piece[rank].size(); ++i) rows->data[first + i] += piece[rank][i];
    }
  });
}

absl::Status Verifier::SumOverAll(Pass pass, Rows64* rows) {
  std::vector<int> all(plan_.ranks.size());
  std::iota(all.begin(), all.end(), 0);
  const std::vector<int64_t> counts(plan_.ranks.size(), static_cast<int64_t>(rows->data.size()));
  return SumOver(pass, all, counts, rows);
}

absl::Status Verifier::SumOverRing(Pass pass, const std::vector<int64_t>& counts, Rows64* rows) {
  return SumOver(pass, plan_.ranks[rank_].ring_group, counts, rows);
}

absl::StatusOr<std::vector<Verifier::Merged>> Verifier::MergeOverRings(
    Pass pass, const std::vector<double>& mine, const std::vector<std::vector<int>>& rings) {
  const int64_t rows = static_cast<int64_t>(sampled_.size()), unit = dim_ + 2;
  const auto counts = CountsOf([&](const HeadRange& heads) { return rows * heads.q_heads() * unit; });
  std::vector<Merged> merged;
  for (const std::vector<int>& ring : rings) {
    merged.emplace_back(static_cast<size_t>(counts[ring[0]] / unit), Partial64(dim_));
  }
  SEQPAR_RETURN_IF_ERROR(Gather(pass, mine, counts, unit, [&](int64_t first, const ByRank& piece) {
    for (size_t i = 0; i < rings.size(); ++i) {
      for (const int rank : rings[i]) {
        const std::vector<double>& packed = piece[rank];
        for (size_t at = 0; at < packed.size(); at += unit) merged[i][(first + at) / unit].Merge(&packed[at]);
      }
    }
  }));
  return merged;
}

std::vector<int64_t> Verifier::CountsOf(const std::function<int64_t(const HeadRange&)>& values) const {
  std::vector<int64_t> counts;
  for (const RankPlan& rank : plan_.ranks) counts.push_back(values(rank.heads));
  return counts;
}

}  // namespace seqpar
