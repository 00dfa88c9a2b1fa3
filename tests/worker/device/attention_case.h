// One call of the attention kernels: its inputs, what float64 says, and what a device says.
#ifndef SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_CASE_H_
#define SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_CASE_H_

#include <string>
#include <vector>

#include "common/device/device.h"
#include "tests/worker/device/guarded_matrix.h"

namespace seqpar {

struct AttentionCase {
  int head_dim = 16;
  int64_t queries = 1, keys = 1, batch = 1;
  HeadRange heads{0, 1, 0, 1};
  int group = 1;
  std::vector<int32_t> lo, hi;  // one a query
  DType dtype = DType::kF32;
  double magnitude = 1;        // of q and k
  double value_magnitude = 1;  // of v and dout
  bool same_rows = false;      // every row of a matrix is its first
  double gradients_from = 1;   // what dq, dk and dv hold before they are added to
  int64_t gap = 0;             // elements between rows
  Guard guard = Guard::kAfter;
  std::string ToString() const;
};

// Key ranges by shape; `queries` and `keys` end at the same position.
void SetFull(AttentionCase* c);
void SetCausal(AttentionCase* c);
void SetWindow(AttentionCase* c, int64_t left, int64_t right);
void SetDocuments(AttentionCase* c, const std::vector<int64_t>& lengths);  // causal in each; square

// The values of each matrix, row major, in the layout of common/device/device.h.
struct AttentionResult {
  std::vector<double> out, lse, dq, dk, dv;
};

// The seeded inputs of a case; the same for the oracle and for every device.
struct AttentionInputs {
  explicit AttentionInputs(const AttentionCase& c);
  GuardedMatrix q, k, v, dout;
};

// Straight from the definition, in float64.
AttentionResult Oracle(const AttentionCase& c, const AttentionInputs& in);

// On a device, into memory that held garbage (out, lse) or c.gradients_from (gradients, from which it is
// taken off again). `cuts`: keys where the forward pass is cut into calls that merge; backward too. lse and
// delta for backward are the oracle's, rounded.
AttentionResult RunOn(Device& device, const AttentionCase& c, const AttentionInputs& in,
                      const AttentionResult& oracle, const std::vector<int64_t>& cuts = {});

// Forward, delta and backward one after the other, as a layer does, each from what the device had before;
// gradients from zero.
AttentionResult RunThrough(Device& device, const AttentionCase& c, const AttentionInputs& in);

// As a layer does where the tile is all there is: results have the type of the inputs, gradients lie over q
// and over k and v, which are halves of one matrix. lse and delta for backward are the oracle's, rounded.
AttentionResult RunWhole(Device& device, const AttentionCase& c, const AttentionInputs& in,
                         const AttentionResult& oracle);

// ||x - reference|| / ||reference||, and the worst element relative to the largest of the reference. An exact
// zero reference asks for exact zeros.
struct RelativeError {
  double norm = 0, worst = 0;
};
RelativeError ErrorOf(const std::vector<double>& x, const std::vector<double>& reference,
                      const std::vector<double>& sibling = {});

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_CASE_H_
