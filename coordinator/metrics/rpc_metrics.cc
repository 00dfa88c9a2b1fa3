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
  registry_->StartAtZero(Metric::kRpcSeconds);
}

void RpcMetrics::Begun(const std::string& method) {
  registry_->Gauge(Metric::kRpcsOpen, {MethodLabel(method)}).Increment();
}

void RpcMetrics::Ended(const std::string& method, const std::string& code, double seconds) {
  const std::string label = MethodLabel(method);
  registry_->Gauge(Metric::kRpcsOpen, {label}).Decrement();
  registry_->Counter(Metric::kRpcs, {label, Known(InfoOf(Metric::kRpcs).labels[1], code, "UNKNOWN")})
      .Increment();
  registry_
      ->Histogram(Metric::kRpcSeconds, {label, Known(InfoOf(Metric::kRpcSeconds).labels[1], code, "other")})
      .Observe(seconds);
}

}  // namespace seqpar
