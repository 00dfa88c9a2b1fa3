// What workers and coordinator mean by the worst of verification's errors.
#ifndef SEQPAR_COMMON_JOB_VERIFICATION_H_
#define SEQPAR_COMMON_JOB_VERIFICATION_H_

#include <cmath>

namespace seqpar {

// Whether error `a` is worse than `b`: NaN is worse than any number.
inline bool IsWorseError(double a, double b) { return std::isnan(a) ? !std::isnan(b) : a > b; }

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_VERIFICATION_H_
