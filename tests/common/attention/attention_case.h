// One composition of attention cores, run on threads and compared with the oracle.
#ifndef SEQPAR_TESTS_COMMON_ATTENTION_ATTENTION_CASE_H_
#define SEQPAR_TESTS_COMMON_ATTENTION_ATTENTION_CASE_H_

#include <map>
#include <string>
#include <vector>

#include "common/attention/strategies.h"
#include "tests/oracle/attention_oracle.h"
#include "tests/oracle/run_ranks.h"

namespace seqpar {

struct AttentionCase {
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  DType dtype = DType::kF32;
  AttentionProblem problem;
  std::string ToString() const;
};

// The inputs of a problem, rounded to the storage type.
struct AttentionInputs {
  std::vector<float> q, k, v, dout;
};
AttentionInputs MakeInputs(const AttentionProblem& problem, DType dtype, uint64_t seed = 1);

// Results of all ranks put together, as values of the storage type. dK/dV of a KV head that several tensor
// ranks hold are summed, as the layer does with the weight gradients made of them.
struct AttentionResults {
  std::vector<double> out, dq, dk, dv;
  std::vector<double> lse;                             // [rows, heads], of the innermost core
  std::vector<std::map<TrafficKey, Traffic>> traffic;  // by rank
};
absl::StatusOr<AttentionResults> RunAttentionCase(const AttentionCase& c, const AttentionInputs& inputs,
                                                  bool backward, const RunRanksOptions& options = {});

// Forward and all gradients within the error rule (a case that is not is run with other values too and judged
// by all of them); the failure names what and the case. `kv_head` >= 0: only the query heads of that KV head,
// in batch row `row`, are compared, each of which is a problem of its own. Returns how many runs it took.
int ExpectRight(const AttentionCase& c, int kv_head = -1, int64_t row = 0,
                const RunRanksOptions& options = {});

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COMMON_ATTENTION_ATTENTION_CASE_H_
