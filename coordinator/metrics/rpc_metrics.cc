#include "coordinator/metrics/rpc_metrics.h"

#include <algorithm>
#include <vector>

namespace seqpar {
namespace {

constexpr char kPackage[] = "seqpar.v1.";

// `value` where the table knows it, else `other`: a caller cannot make series.
std::string Known(const MetricLabel& label, const std::string& value, const char* other) {
  const std::vector<std::string>& values = label.values;
  return std::find(values.begin(), values.end(), value) == values.end() ? other : value;
}

std::string MethodLabel(const std::string& method) {
  const size_t skip = sizeof(kPackage) - 1;
  if (method.rfind(kPackage, 0) != 0) return "other";
  return Known(InfoOf(Metric::kRpcsOpen).labels[0], method.substr(skip), "other");
}

}  // namespace

RpcMetrics::RpcMetrics(MetricRegistry* registry) : registry_(registry) {
  registry_->StartAtZero(Metric::kRpcsOpen);
  registry_->StartAtZero(Metric::kRpcs);
  for (const std::string& method : InfoOf(Metric::kRpcSeconds).labels[0].values) {
    registry_->Histogram(Metric::kRpcSeconds, {method, "OK"});
  }
}

void RpcMetrics::Begun(const std::string& method) {
  registry_->Gauge(Metric::kRpcsOpen, {MethodLabel(method)}).Increment();
}

void RpcMetrics::Ended(const std::string& method, const std::string& code, double seconds) {
  const MetricRegistry::Values labels = {MethodLabel(method),
                                         Known(InfoOf(Metric::kRpcs).labels[1], code, "UNKNOWN")};
  registry_->Gauge(Metric::kRpcsOpen, {labels[0]}).Decrement();
  registry_->Counter(Metric::kRpcs, labels).Increment();
  registry_->Histogram(Metric::kRpcSeconds, labels).Observe(seconds);
}

}  // namespace seqpar
