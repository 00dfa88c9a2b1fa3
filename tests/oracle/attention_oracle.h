// Attention straight from its definition, for clarity: the float64 oracle, and in float the plain "one
// device" run that the error rule compares with (docs/formulas.md, "When a result passes").
//
// Values are vectors of rows: row = token * batch + batch index, heads side by side in the columns.
#ifndef SEQPAR_TESTS_ORACLE_ATTENTION_ORACLE_H_
#define SEQPAR_TESTS_ORACLE_ATTENTION_ORACLE_H_

#include <cstdint>
#include <vector>

#include "common/job/job.h"

namespace seqpar {

struct AttentionProblem {
  int64_t batch = 1;
  int64_t tokens = 0;
  int heads = 1;
  int kv_heads = 1;
  int head_dim = 0;
  MaskSpec mask;
  // Query heads at which a rank's range ends. Where a KV head is used on both sides, its dK/dV are the sum of
  // contributions of the storage type: so the arithmetic is laid down, whoever computes it.
  std::vector<int> range_ends;
  int64_t rows() const { return batch * tokens; }
  int64_t q_cols() const { return int64_t{heads} * head_dim; }
  int64_t kv_cols() const { return int64_t{kv_heads} * head_dim; }
};

// Whether the query at p sees the key at k, by the words of the definition and without the product's Mask.
bool Sees(const MaskSpec& mask, int64_t p, int64_t k);

template <typename T>
struct AttentionOutput {
  std::vector<T> out;  // [rows, q_cols]
  std::vector<T> lse;  // [rows, heads]
};
template <typename T>
struct AttentionGrads {
  std::vector<T> dq, dk, dv;
};

// Results are rounded to `storage` where T is float.
template <typename T>
AttentionOutput<T> AttentionForwardOracle(const AttentionProblem& problem, const std::vector<T>& q,
                                          const std::vector<T>& k, const std::vector<T>& v, DType storage);
// `forward` is what AttentionForwardOracle returned for the same q, k, v.
template <typename T>
AttentionGrads<T> AttentionBackwardOracle(const AttentionProblem& problem, const std::vector<T>& q,
                                          const std::vector<T>& k, const std::vector<T>& v,
                                          const AttentionOutput<T>& forward, const std::vector<T>& dout,
                                          DType storage);

// Rounds to the storage type and back; float64 values are left alone.
void RoundTo(DType storage, std::vector<float>* values);
inline void RoundTo(DType, std::vector<double>*) {}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_ATTENTION_ORACLE_H_
