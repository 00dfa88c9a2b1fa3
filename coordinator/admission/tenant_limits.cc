#include "coordinator/admission/tenant_limits.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/base/units.h"
#include "common/job/tensors.h"
#include "coordinator/auth/field_line.h"

namespace seqpar {
namespace {

constexpr int kRetrySeconds = 5;
constexpr char kOthers[] = "*";

const std::vector<std::string>& Fields() {
  static const auto* fields =
      new std::vector<std::string>{"tenant", "queued_jobs", "running_jobs", "devices", "output_bytes"};
  return *fields;
}

void ReadCount(FieldLine* line, const std::string& name, int64_t* limit) {
  const std::string value = line->Value(name);
  int64_t count = 0;
  if (value.empty()) return;
  if (!absl::SimpleAtoi(value, &count) || count < 1) {
    return line->Wrong(absl::StrCat(name, "=", value, " is no whole number of at least 1"), "1");
  }
  *limit = count;
}

TenantLimits ReadLimits(FieldLine* line) {
  TenantLimits limits;
  ReadCount(line, "queued_jobs", &limits.queued_jobs);
  ReadCount(line, "running_jobs", &limits.running_jobs);
  ReadCount(line, "devices", &limits.devices);
  if (const std::string value = line->Value("output_bytes"); !value.empty()) {
    const absl::StatusOr<int64_t> bytes = ParseBytes(value);
    if (bytes.ok()) limits.output_bytes = *bytes;
    if (!bytes.ok()) line->Wrong(absl::StrCat("output_bytes: ", bytes.status().message()), "1Ti");
  }
  return limits;
}

std::string NameOf(const std::string& tenant) {
  return tenant.empty() ? "whoever has no tenant" : absl::StrCat("tenant ", tenant);
}

// One limit that a job would pass.
absl::Status Passed(const std::string& tenant, const char* limit, int64_t value, int64_t used, int64_t asked,
                    const std::string& message) {
  return WithMetadata(MakeError(absl::StatusCode::kResourceExhausted, reason::kTenantLimit, message),
                      {{"tenant", tenant},
                       {"limit", limit},
                       {"value", absl::StrCat(value)},
                       {"used", absl::StrCat(used)},
                       {"asked", absl::StrCat(asked)}});
}

std::string Bytes(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

}  // namespace

const TenantLimits& TenantPolicy::Of(const std::string& tenant) const {
  const auto found = own.find(tenant);
  return found == own.end() ? others : found->second;
}

absl::StatusOr<TenantPolicy> ParseTenants(const std::string& text) {
  TenantPolicy policy;
  bool has_others = false;
  SEQPAR_RETURN_IF_ERROR(ReadFieldLines(text, Fields(), [&](FieldLine* line) {
    const TenantLimits limits = ReadLimits(line);
    bool again = false;
    if (line->Value("tenant") == kOthers) {
      again = std::exchange(has_others, true);
      policy.others = limits;
    } else if (const std::string tenant = line->Word("tenant", true); !tenant.empty()) {
      again = !policy.own.emplace(tenant, limits).second;
    }
    if (again) line->Wrong("is a second line of its tenant", "");
  }));
  return policy;
}

absl::StatusOr<TenantPolicy> ReadTenants(const std::string& path) {
  constexpr char kFlag[] = "--tenants";
  SEQPAR_ASSIGN_OR_RETURN(const std::string text, ReadFieldFile(kFlag, path));
  absl::StatusOr<TenantPolicy> policy = ParseTenants(text);
  if (!policy.ok()) return Annotate(policy.status(), absl::StrCat(kFlag, " ", path));
  return policy;
}

int64_t LeastDevices(const JobSpec& job) {
  const ParallelismSpec& p = job.parallelism;
  const int64_t product = int64_t{std::max(1, p.tensor)} * std::max(1, p.ulysses) * std::max(1, p.ring);
  return std::max<int64_t>(product, job.min_workers);
}

JobDemand DemandOf(const JobSpec& job) {
  JobDemand demand;
  demand.devices = LeastDevices(job);
  if (job.output_file.empty()) return demand;
  SafetensorsHeader layout;
  BuildOutputHeader(job, &layout);
  demand.output_bytes = layout.file_bytes;
  return demand;
}

absl::Status CheckDemand(const std::string& tenant, const TenantLimits& limits, const JobDemand& demand) {
  if (demand.devices > limits.devices) {
    return Passed(tenant, "devices", limits.devices, 0, demand.devices,
                  absl::StrCat("the job takes at least ", demand.devices,
                               " devices (workers.min, or its degrees), and ", NameOf(tenant), " may hold ",
                               limits.devices));
  }
  if (demand.output_bytes > limits.output_bytes) {
    return Passed(tenant, "output_bytes", limits.output_bytes, 0, demand.output_bytes,
                  absl::StrCat("the job's output has ", Bytes(demand.output_bytes), ", and the outputs of ",
                               NameOf(tenant), " may have ", Bytes(limits.output_bytes), " together"));
  }
  return absl::OkStatus();
}

absl::Status CheckRoom(const std::string& tenant, const TenantLimits& limits, const TenantUse& use,
                       const JobDemand& demand) {
  if (use.queued_jobs >= limits.queued_jobs) {
    return WithRetry(Passed(tenant, "queued_jobs", limits.queued_jobs, use.queued_jobs, 1,
                            absl::StrCat(NameOf(tenant), " has ", use.queued_jobs, " jobs that wait, of ",
                                         limits.queued_jobs, " that it may")),
                     kRetrySeconds);
  }
  if (demand.output_bytes > 0 && demand.output_bytes > limits.output_bytes - use.output_bytes) {
    return WithRetry(
        Passed(tenant, "output_bytes", limits.output_bytes, use.output_bytes, demand.output_bytes,
               absl::StrCat("the job's output has ", Bytes(demand.output_bytes), ", and ", NameOf(tenant),
                            "'s jobs that have not ended write ", Bytes(use.output_bytes), " of ",
                            Bytes(limits.output_bytes), " that they may")),
        kRetrySeconds);
  }
  return absl::OkStatus();
}

std::string CallFor(const std::string& tenant, const std::string& job, const std::string& owner) {
  return tenant == owner ? job : "another tenant's job";
}

JobSpec WithDevices(JobSpec job, int64_t devices) {
  // 0: as many as there are.
  if (devices < std::numeric_limits<int>::max() && (job.max_workers == 0 || job.max_workers > devices)) {
    job.max_workers = static_cast<int>(devices);
  }
  return job;
}

}  // namespace seqpar
