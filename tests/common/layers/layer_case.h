// Layers over a mesh, run on threads and compared with the oracle.
#ifndef SEQPAR_TESTS_COMMON_LAYERS_LAYER_CASE_H_
#define SEQPAR_TESTS_COMMON_LAYERS_LAYER_CASE_H_

#include <map>
#include <string>
#include <vector>

#include "common/layers/layer_plan.h"
#include "tests/oracle/layer_oracle.h"
#include "tests/oracle/run_ranks.h"

namespace seqpar {

struct LayerCase {
  Mesh mesh;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  Recompute recompute = Recompute::kNone;
  int64_t mlp_piece_rows = 24;  // several pieces also where there are few tokens
  bool inspect = false;
  LayerProblem problem;  // config.layers layers
  std::string ToString() const;
};

// Whole tensors, rounded to the storage type; weights by layer.
struct LayerInputs {
  std::vector<float> x, dy;
  std::vector<NamedValues<float>> weights;
};
LayerInputs MakeLayerInputs(const LayerProblem& problem, uint64_t seed);

// Results of all ranks put together; every element was written once.
struct LayerResults {
  std::vector<double> y, dx;
  std::vector<NamedValues<double>> gradients;          // by layer, summed over the ranks
  std::vector<std::map<TrafficKey, Traffic>> traffic;  // by rank
};
absl::StatusOr<LayerResults> RunLayerCase(const LayerCase& c, const LayerInputs& inputs, bool backward,
                                          const RunRanksOptions& options = {});

// Output, input gradient and every weight gradient within the error rule; a bfloat16 case that is not is run
// with other values too and judged by all of them. Returns how many runs it took.
int ExpectLayersRight(const LayerCase& c, const RunRanksOptions& options = {});

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COMMON_LAYERS_LAYER_CASE_H_
