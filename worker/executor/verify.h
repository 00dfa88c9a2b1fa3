// Verification (design.md promise 8): sampled rows of every layer recomputed in float64 across the ranks.
//
// Forward, for each sampled (position, batch row): from the layer's input row, K and V at that position are
// computed again and compared with what the ranks hold; q is computed again and attends the K and V that the
// ranks hold, partial by partial; the rest of the layer follows and is compared with the layer's output row.
// Backward: dq of the sampled queries, dK and dV of the sampled keys, from the q, K, V, output, log-sum-exp
// and output gradient that the ranks hold.
//
// The error of a tensor is ||got - ref|| / ||ref|| over all sampled rows; where the exact gradient is
// (nearly) zero the norm of its largest sibling is the scale.
#ifndef SEQPAR_WORKER_EXECUTOR_VERIFY_H_
#define SEQPAR_WORKER_EXECUTOR_VERIFY_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/attention/core.h"
#include "common/comm/communicator.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "worker/executor/row_math.h"

namespace seqpar {

// A rank's part of one layer, in device memory.
struct LayerView {
  Matrix input, output;  // own rows [tokens * batch, hidden]
  // A weight's local slice by its name's suffix after "model.layers.{i}." ("self_attn.q_proj.weight"): the
  // rows of column-parallel, the columns of row-parallel weights; vectors are [1, n]. Empty where the config
  // has none.
  std::function<Matrix(const std::string&)> weight;
  AttentionView attention;  // of the innermost core
};

struct TensorError {
  int layer = 0;
  std::string tensor;  // hidden_states, k, v, dq, dk, dv
  double error = 0;
};

// Every rank makes the same calls in the same order, with nothing outstanding on the streams but the layer
// itself.
class Verifier {
 public:
  // `world` is used on `stream`. All outlive the verifier.
  Verifier(const JobSpec& job, const Plan& plan, int rank, const std::string& sample_key, Device* device,
           Stream* stream, Communicator* world);

  absl::Status CheckForward(int layer, const LayerView& view);
  absl::Status CheckBackward(int layer, const LayerView& view);

  // The same on every rank, in order of checking.
  const std::vector<TensorError>& errors() const { return errors_; }
  // The largest; null where nothing was checked.
  const TensorError* worst() const;
  const std::vector<int64_t>& positions() const { return positions_; }

 private:
  struct Score {
    std::string tensor;
    double difference = 0, reference = 0;  // sums of squares
  };

  // Row of the sample in a matrix of (token, batch) rows that holds `share`; -1 where its token is not there.
  int64_t RowOf(int sample, const TokenShare& share) const;
  // Every rank's values one after the other; all ranks give as many.
  absl::StatusOr<std::vector<double>> Gather(Pass pass, const std::vector<double>& mine);
  // Rows of the samples, from the ranks that hold them: `mine` has zeros elsewhere.
  absl::StatusOr<Rows> Share(Pass pass, const Matrix& matrix, const TokenShare& share);
  // Sums what the ranks of the tensor group give.
  absl::StatusOr<Rows> SumOverTensor(const Rows& partial);
  absl::StatusOr<Rows> Weight(const LayerView& view, const std::string& suffix);
  absl::StatusOr<Rows> Project(const LayerView& view, const Rows& x, const std::string& name, int64_t begin,
                               int64_t end);
  absl::Status CompareKv(const LayerView& view, const Rows& normed, Score* k, Score* v);
  absl::StatusOr<std::vector<PartialAttention>> Attend(const LayerView& view, const Rows& q, Pass pass);
  absl::StatusOr<Rows> FinishLayer(const LayerView& view, const Rows& x, const Rows& attended);
  absl::Status Compare(const Matrix& got, const TokenShare& share, const Rows& want, Score* score);
  absl::Status CheckQueries(const LayerView& view, Score* dq);
  absl::Status CheckKeys(const LayerView& view, Score* dk, Score* dv);
  absl::Status Record(int layer, Pass pass, std::vector<Score> scores, bool siblings);

  const JobSpec& job_;
  const Plan& plan_;
  const int rank_;
  Device* const device_;
  Stream* const stream_;
  Communicator* const world_;
  const Mask mask_;
  const TokenLayout layout_;
  const MeshCoord at_;
  std::vector<int64_t> positions_;  // sampled tokens
  std::vector<int64_t> batch_rows_;
  std::vector<TensorError> errors_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_VERIFY_H_
