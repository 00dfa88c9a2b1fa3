// What one tenant may have at once, and whether a new job is within it: pure, but for the file.
#ifndef SEQPAR_COORDINATOR_ADMISSION_TENANT_LIMITS_H_
#define SEQPAR_COORDINATOR_ADMISSION_TENANT_LIMITS_H_

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/job/job.h"

namespace seqpar {

struct TenantLimits {
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t queued_jobs = kNone;   // that hold no devices: above it submits are refused
  int64_t running_jobs = kNone;  // that hold devices: above it jobs wait
  int64_t devices = kNone;       // that its jobs hold: above it jobs wait, or get fewer
  int64_t output_bytes =
      kNone;  // of the outputs of its jobs that have not ended: above it submits are refused
};

// The same, as its jobs take it up.
struct TenantUse {
  int64_t queued_jobs = 0, running_jobs = 0, devices = 0, output_bytes = 0;
  friend bool operator==(const TenantUse&, const TenantUse&) = default;
};

// The limits of every tenant; those of jobs without one are those of the tenant "".
struct TenantPolicy {
  TenantLimits others;  // of those that have none of their own
  std::map<std::string, TenantLimits> own;
  const TenantLimits& Of(const std::string& tenant) const;
};

// One tenant a line; what is not said has no limit, nor has a tenant that is not there:
//   tenant=search queued_jobs=1000 running_jobs=8 devices=64 output_bytes=10Ti
//   tenant=* queued_jobs=100 devices=16
// "*" is each tenant without a line of its own. INVALID_ARGUMENT with every wrong line.
absl::StatusOr<TenantPolicy> ParseTenants(const std::string& text);
// The same of the file that --tenants names.
absl::StatusOr<TenantPolicy> ReadTenants(const std::string& path);

// The devices without which the job cannot run, as far as it says so itself: workers.min, or what its degrees
// make. REQUIRES: a validated job.
int64_t LeastDevices(const JobSpec& job);

// What a job asks of its tenant's share.
struct JobDemand {
  int64_t devices = 1;  // the fewest that it takes
  int64_t output_bytes = 0;
};
// REQUIRES: a validated job.
JobDemand DemandOf(const JobSpec& job);

// RESOURCE_EXHAUSTED (TENANT_LIMIT), with the limit and its value as metadata, for a job that `limits` never
// allow, whatever else the tenant has.
absl::Status CheckDemand(const std::string& tenant, const TenantLimits& limits, const JobDemand& demand);
// The same for one that they do not allow beside what the tenant has; it may be later, and the error says
// when to try again.
absl::Status CheckRoom(const std::string& tenant, const TenantLimits& limits, const TenantUse& use,
                       const JobDemand& demand);

// What `tenant` is told of a job in place of its id: jobs of others have no name.
std::string CallFor(const std::string& tenant, const std::string& job, const std::string& owner);

// The job as it is planned where it may have `devices` at most. REQUIRES: devices >= 1.
JobSpec WithDevices(JobSpec job, int64_t devices);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ADMISSION_TENANT_LIMITS_H_
