// The rule by which a sharded result is right (docs/formulas.md, "When a result passes").
#ifndef SEQPAR_TESTS_ORACLE_ERROR_RULE_H_
#define SEQPAR_TESTS_ORACLE_ERROR_RULE_H_

#include <string>
#include <vector>

#include "common/tensor/dtype.h"
#include "gtest/gtest.h"

namespace seqpar {

// What errors are measured by.
struct ErrorScale {
  double norm = 0;     // ||ref||
  double largest = 0;  // max |ref|
};
ErrorScale ScaleOf(const std::vector<double>& reference);

struct ErrorPair {
  double norm = 0;     // ||x - ref|| / scale.norm
  double largest = 0;  // max |x - ref| / scale.largest
};
ErrorPair ErrorOf(const std::vector<double>& x, const std::vector<double>& reference,
                  const ErrorScale& scale);

// The errors of one tensor over one or more runs with other values. Errors are noise: where a tensor has few
// elements, the ratio of two such errors says something only when several runs are pooled.
class TensorErrors {
 public:
  // `sibling` is the scale where the exact gradient is zero: below 1e-10 of it, `reference` is taken for
  // zero.
  void Add(const std::vector<double>& x, const std::vector<float>& one_device,
           const std::vector<double>& reference, const ErrorScale& sibling = {});
  // float32: err <= 4 err(one device) + 1e-6; 16-bit: err <= 2 err(one device), or 1e-6 for what is summed in
  // float32; norm-relative and by the worst element, each the root mean square of the runs.
  testing::AssertionResult WithinRule(DType dtype) const;

 private:
  int runs_ = 0;
  ErrorPair error_, plain_;  // sums of squares
};

// Of one run.
testing::AssertionResult WithinRule(const std::vector<double>& x, const std::vector<float>& one_device,
                                    const std::vector<double>& reference, DType dtype,
                                    const ErrorScale& sibling = {});

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_ERROR_RULE_H_
