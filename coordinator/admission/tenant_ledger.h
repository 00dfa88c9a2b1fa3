// What the live jobs of each tenant take up. A value; one thread.
#ifndef SEQPAR_COORDINATOR_ADMISSION_TENANT_LEDGER_H_
#define SEQPAR_COORDINATOR_ADMISSION_TENANT_LEDGER_H_

#include <cstdint>
#include <map>
#include <string>

#include "coordinator/admission/tenant_limits.h"

namespace seqpar {

class TenantLedger {
 public:
  // A job that waits for devices.
  void Add(const std::string& job, const std::string& tenant, int64_t output_bytes);
  // It holds so many devices now; 0: it waits. Nothing for a job that was not added, or was removed.
  void Hold(const std::string& job, int64_t devices);
  void Remove(const std::string& job);

  TenantUse Of(const std::string& tenant) const;

 private:
  struct Entry {
    std::string tenant;
    int64_t devices = 0, output_bytes = 0;
  };
  // Adds the job to its tenant's sum, or takes it from it; a sum of nothing goes.
  void Count(const Entry& entry, int sign);

  std::map<std::string, Entry> jobs_;
  std::map<std::string, TenantUse> tenants_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ADMISSION_TENANT_LEDGER_H_
