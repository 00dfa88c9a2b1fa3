// Transformer layers straight from their definition (docs/formulas.md, "Meaning"): the float64
// oracle, and in float the plain "one device" run, which rounds to the storage type between operations.
//
// Values are whole tensors: activations [tokens * batch, hidden] with row = token * batch + batch index,
// weights as in files.
#ifndef SEQPAR_TESTS_ORACLE_LAYER_ORACLE_H_
#define SEQPAR_TESTS_ORACLE_LAYER_ORACLE_H_

#include <map>
#include <string>
#include <vector>

#include "tests/oracle/attention_oracle.h"

namespace seqpar {

struct LayerProblem {
  ModelConfig config;
  int64_t batch = 1;
  int64_t tokens = 0;
  MaskSpec mask;
  DType dtype = DType::kF32;
  std::vector<int> range_ends;  // see AttentionProblem
  int64_t rows() const { return batch * tokens; }
};

template <typename T>
using NamedValues = std::map<std::string, std::vector<T>>;  // by suffix, "self_attn.q_proj.weight"

// What forward leaves for backward.
template <typename T>
struct LayerTrace {
  std::vector<T> x, h1, q, k, v, x1, h2, gate, up, activated, y;
  AttentionOutput<T> attention;
};
template <typename T>
LayerTrace<T> LayerForwardOracle(const LayerProblem& problem, const NamedValues<T>& weights,
                                 const std::vector<T>& x);

template <typename T>
struct LayerGrads {
  std::vector<T> dx;
  NamedValues<T> weights;
};
template <typename T>
LayerGrads<T> LayerBackwardOracle(const LayerProblem& problem, const NamedValues<T>& weights,
                                  const LayerTrace<T>& trace, const std::vector<T>& dy);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_LAYER_ORACLE_H_
