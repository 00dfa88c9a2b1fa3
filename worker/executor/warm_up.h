// What a device does slowly the first time: libraries choose algorithms and load kernels when a product or an
// attention tile of a new shape comes. Done before the clock of the steps runs. `step` is called after each
// product and tile, on the caller's thread: a library may take seconds for one.
#ifndef SEQPAR_WORKER_EXECUTOR_WARM_UP_H_
#define SEQPAR_WORKER_EXECUTOR_WARM_UP_H_

#include <functional>

#include "absl/status/status.h"
#include "common/device/device.h"
#include "common/job/job.h"
#include "common/job/plan.h"

namespace seqpar {

// Runs each product that a step has, in every pass of the job and by the rows that a layer runs it in, on
// memory that is given back: at most as long as a layer's products take and once more its weights' gradients,
// and what the first of their kind cost. REQUIRES: nothing else of the rank is allocated yet; what it needs
// is less than the rank will. Errors are the stream's.
absl::Status WarmUpProducts(const JobSpec& job, const Plan& plan, int rank, Device& device, Stream& compute,
                            const std::function<void()>& step);

// Has the device make what the attention tiles of the rank's schedule need of a library, in every pass of the
// job (Device::PrepareAttention): the host's time alone. Nothing of a step depends on the data, so that a
// step finds all of it made but for what was beyond the device's bound. Errors: the plan's mesh is none.
absl::Status WarmUpAttention(const JobSpec& job, const Plan& plan, int rank, Device& device,
                             const std::function<void()>& step);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_WARM_UP_H_
