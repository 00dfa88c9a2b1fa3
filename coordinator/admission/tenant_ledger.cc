#include "coordinator/admission/tenant_ledger.h"

#include <utility>

namespace seqpar {

void TenantLedger::Add(const std::string& job, const std::string& tenant, int64_t output_bytes) {
  const auto [entry, added] = jobs_.emplace(job, Entry{tenant, 0, output_bytes});
  if (added) Count(entry->second, 1);
}

void TenantLedger::Hold(const std::string& job, int64_t devices) {
  const auto found = jobs_.find(job);
  if (found == jobs_.end() || found->second.devices == devices) return;
  Count(found->second, -1);
  found->second.devices = devices;
  Count(found->second, 1);
}

void TenantLedger::Remove(const std::string& job) {
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return;
  Count(found->second, -1);
  jobs_.erase(found);
}

TenantUse TenantLedger::Of(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? TenantUse() : found->second;
}

void TenantLedger::Count(const Entry& entry, int sign) {
  const auto tenant = tenants_.emplace(entry.tenant, TenantUse()).first;
  TenantUse& use = tenant->second;
  (entry.devices > 0 ? use.running_jobs : use.queued_jobs) += sign;
  use.devices += sign * entry.devices;
  use.output_bytes += sign * entry.output_bytes;
  if (use == TenantUse()) tenants_.erase(tenant);
}

}  // namespace seqpar
