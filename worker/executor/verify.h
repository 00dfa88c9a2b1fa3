// verify: sampled rows of every layer are computed again in float64 across the ranks and compared with what
// the layer made of them.
//
// Forward, for the sampled rows of a layer: from its input x (whose rows all ranks get), q, k and v are
// computed anew; the k and v that ranks hold for these rows are compared with them; attention is computed
// against the K and V that the ranks really hold, each rank for its heads and keys, partial results merged;
// then output projection, residual, norm and MLP, each rank with its slice of the weights. The result is
// compared with the layer's output. Backward, given what the attention core was given (q, K, V, dout): dq of
// the sampled queries over all keys, and dk and dv of the sampled keys over all queries, compared with what
// the core gave.
//
// Error: ||got - ref|| / ||ref|| over the sampled rows; where the reference vanishes beside its siblings
// (gradients of one layer), the largest of them is the scale.
#ifndef SEQPAR_WORKER_EXECUTOR_VERIFY_H_
#define SEQPAR_WORKER_EXECUTOR_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/job/plan.h"
#include "common/job/verification.h"
#include "common/layers/layer_stack.h"
#include "seqpar/v1/report.pb.h"
#include "worker/executor/float64.h"

namespace seqpar {

struct SampledRow {
  int64_t token = 0;
  int64_t batch = 0;
};

// `rows` rows (at most one a token), spread over the sequence, the same for the same job id on every rank.
std::vector<SampledRow> SampleRows(const std::string& job_id, int rows, int64_t tokens, int64_t batch);

// One rank's part. All ranks of the world make the same calls in the same order, with their streams idle.
// Traffic is counted under Operation::kVerify.
class Verifier {
 public:
  // `world` and what `streams` names outlive the verifier. `on_piece` is called now and then: progress. Takes
  // `bytes_at_once` of device memory for what goes between ranks (verification.h), the same on all of them.
  Verifier(const JobSpec& job, const Plan& plan, int rank, const std::string& job_id, Communicator* world,
           const RankStreams& streams, std::function<void()> on_piece, int64_t bytes_at_once = kVerifyBytes);

  // After a layer's forward, or backward.
  absl::Status Check(const LayerStep& step);
  // What all checks so far have found; the same on every rank.
  v1::Verification result() const;

 private:
  using ByRank = std::vector<std::vector<double>>;
  using Merged = std::vector<Partial64>;  // by row and head

  // Squared norms of a tensor's sampled rows on this rank.
  struct Difference {
    const char* tensor;
    double difference = 0, reference = 0;
    void Add(const double* want, const float* got, int64_t n);
  };

  absl::Status CheckForward(const LayerStep& step);
  absl::Status CheckBackward(const LayerStep& step);

  // x and y of the sampled rows, from the ranks that hold them.
  absl::StatusOr<std::pair<Rows64, Rows64>> GatherInOut(const LayerStep& step);
  // Compares the sampled rows of `view`'s K and V with ones computed from h; gives q, rotated.
  absl::StatusOr<Rows64> ProjectAndCompare(const WeightSet& weights, const AttentionView& view,
                                           const Rows64& h, Difference* k, Difference* v);
  // Attention of q (this rank's heads, all sampled rows) over the keys that this rank holds, packed by row
  // and head.
  absl::StatusOr<std::vector<double>> AttendLocally(const AttentionView& view, const Rows64& q);
  // Output projection, residual and MLP of the attention's output of all heads.
  absl::StatusOr<Rows64> FinishLayer(const WeightSet& weights, const Rows64& x, const Rows64& attention);
  // act(gate, up) of this rank's part of the intermediate size.
  absl::StatusOr<Rows64> ActivateMlp(const WeightSet& weights, const Rows64& h);
  // Calls use(sampled row, local query head, k, v) for every key of this rank that a sampled row sees.
  using SeenKey = std::function<void(int64_t, int, const float*, const float*)>;
  absl::Status ForEachSeenKey(const AttentionView& view, const SeenKey& use) const;

  // dq of the sampled queries from the keys of this rank; dk, dv of the sampled keys from its queries.
  absl::StatusOr<Rows64> QueryGradients(const AttentionView& view, const Rows64& q, const Rows64& dout,
                                        const std::vector<Partial64>& attention);
  absl::StatusOr<Rows64> KeyGradients(const AttentionView& view, const Rows64& kv);

  // The sampled row in a matrix with rows token * batch + batch index; -1 where `share` has not its token.
  int64_t RowIn(const TokenShare& share, const SampledRow& sampled) const;
  // The sampled rows of `matrix` as far as this rank has them, else 0.
  absl::StatusOr<Rows64> OwnRows(const TokenShare& share, const Matrix& matrix) const;
  absl::Status Compare(const TokenShare& share, const Matrix& got, const Rows64& want,
                       Difference* difference) const;
  int LocalKvHead(const HeadRange& heads, int local_q_head) const {
    return (heads.q_begin + local_q_head) / group_ - heads.kv_begin;
  }

  // Calls use(first, piece) for every rank's values, counts[i] of rank i, piece by piece (verification.h):
  // piece[i] are those of rank i from `first` on, whole units.
  using UsePiece = std::function<void(int64_t, const ByRank&)>;
  absl::Status Gather(Pass pass, const std::vector<double>& mine, const std::vector<int64_t>& counts,
                      int64_t unit, const UsePiece& use);
  // Sum over `ranks`, in their order.
  absl::Status SumOver(Pass pass, const std::vector<int>& ranks, const std::vector<int64_t>& counts,
                       Rows64* rows);
  absl::Status SumOverAll(Pass pass, Rows64* rows);
  // Over this rank's ring group, in ring order.
  absl::Status SumOverRing(Pass pass, const std::vector<int64_t>& counts, Rows64* rows);
  // `mine`: this rank's part as AttendLocally packs it. The attention of the heads of each of `rings`.
  absl::StatusOr<std::vector<Merged>> MergeOverRings(Pass pass, const std::vector<double>& mine,
                                                     const std::vector<std::vector<int>>& rings);
  std::vector<int64_t> CountsOf(const std::function<int64_t(const HeadRange&)>& values) const;
  absl::Status Record(Pass pass, int layer, const std::vector<Difference>& differences);

  const JobSpec job_;
  const Plan plan_;
  const int rank_;
  Communicator* const world_;
  const RankStreams streams_;
  const std::function<void()> on_piece_;
  const int64_t bytes_at_once_;
  const HostCopier copier_;
  const Mask mask_;
  const int group_, dim_;
  const double scale_;
  const std::vector<SampledRow> sampled_;
  std::vector<v1::LayerError> errors_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_VERIFY_H_
