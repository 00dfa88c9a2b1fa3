#include "common/job/cluster.h"

#include <algorithm>

namespace seqpar {
namespace {

using RateField = double DeviceRates::*;
constexpr RateField kRates[] = {&DeviceRates::gemm_flops,
                                &DeviceRates::attention_forward_flops,
                                &DeviceRates::attention_backward_flops,
                                &DeviceRates::copy_bytes,
                                &DeviceRates::gemm_input_gradient_flops,
                                &DeviceRates::gemm_weight_gradient_flops,
                                &DeviceRates::weight_bytes,
                                &DeviceRates::pointwise_bytes,
                                &DeviceRates::seeded_values,
                                &DeviceRates::touch_bytes,
                                &DeviceRates::float32_gemm_flops,
                                &DeviceRates::float32_attention_forward_flops,
                                &DeviceRates::float32_attention_backward_flops};

using AttentionField = double AttentionRates::*;
constexpr AttentionField kAttentionRates[] = {&AttentionRates::forward_flops,
                                              &AttentionRates::backward_flops};
constexpr AttentionField kAttentionTimes[] = {&AttentionRates::forward_row, &AttentionRates::backward_row,
                                              &AttentionRates::forward_edge, &AttentionRates::backward_edge};

// 0 is none.
void KeepLess(double* kept, double value) {
  if (*kept == 0 || (value > 0 && value < *kept)) *kept = value;
}

}  // namespace

AttentionRates AttentionRatesAt(const DeviceRates& rates, int head_dim) {
  if (rates.attention.empty()) {
    AttentionRates plain;
    plain.head_dim = head_dim;
    plain.forward_flops = rates.attention_forward_flops;
    plain.backward_flops = rates.attention_backward_flops;
    return plain;
  }
  const auto above = std::find_if(rates.attention.begin(), rates.attention.end(),
                                  [&](const AttentionRates& r) { return r.head_dim >= head_dim; });
  if (above == rates.attention.end()) return rates.attention.back();
  if (above == rates.attention.begin() || above->head_dim == head_dim) return *above;
  const AttentionRates& below = *(above - 1);
  const double part =
      static_cast<double>(head_dim - below.head_dim) / static_cast<double>(above->head_dim - below.head_dim);
  AttentionRates between;
  between.head_dim = head_dim;
  const auto mix = [&](AttentionField f) { between.*f = (1 - part) * (below.*f) + part * ((*above).*f); };
  for (AttentionField f : kAttentionRates) mix(f);
  for (AttentionField f : kAttentionTimes) mix(f);
  return between;
}

DeviceRates RatesFor(const DeviceRates& rates, DType dtype) {
  DeviceRates own = rates;
  if (dtype != DType::kF32) return own;
  if (rates.float32_gemm_flops > 0) {
    own.gemm_flops = rates.float32_gemm_flops;
    own.gemm_input_gradient_flops = own.gemm_weight_gradient_flops = 0;
  }
  if (rates.float32_attention_forward_flops > 0 && rates.float32_attention_backward_flops > 0) {
    own.attention_forward_flops = rates.float32_attention_forward_flops;
    own.attention_backward_flops = rates.float32_attention_backward_flops;
    own.attention.clear();
  }
  return own;
}

DeviceRates Scaled(const DeviceRates& rates, double factor) {
  DeviceRates scaled = rates;
  for (RateField f : kRates) scaled.*f *= factor;
  scaled.operation_seconds /= factor;
  for (AttentionRates& attention : scaled.attention) {
    for (AttentionField f : kAttentionRates) attention.*f *= factor;
    for (AttentionField f : kAttentionTimes) attention.*f /= factor;
  }
  return scaled;
}

DeviceRates MeanRates(const std::vector<DeviceRates>& all) {
  const double part = 1.0 / static_cast<double>(all.size());
  DeviceRates mean = all.front();
  const auto average = [&](double* to, auto value_of) {
    *to = 0;
    for (const DeviceRates& one : all) *to += part * value_of(one);
  };
  for (RateField f : kRates) average(&(mean.*f), [f](const DeviceRates& r) { return r.*f; });
  average(&mean.peak_flops, [](const DeviceRates& r) { return r.peak_flops; });
  average(&mean.operation_seconds, [](const DeviceRates& r) { return r.operation_seconds; });
  for (size_t i = 0; i < mean.attention.size(); ++i) {
    const auto average_one = [&](AttentionField f) {
      average(&(mean.attention[i].*f), [&, f](const DeviceRates& r) { return r.attention[i].*f; });
    };
    for (AttentionField f : kAttentionRates) average_one(f);
    for (AttentionField f : kAttentionTimes) average_one(f);
  }
  return mean;
}

DeviceRates SlowerOf(const DeviceRates& a, const DeviceRates& b) {
  DeviceRates slower = a;
  for (RateField f : kRates) KeepLess(&(slower.*f), b.*f);
  KeepLess(&slower.peak_flops, b.peak_flops);
  slower.operation_seconds = std::max(a.operation_seconds, b.operation_seconds);
  if (a.attention.size() != b.attention.size()) {
    // Measured by one of them only: what both have counts.
    slower.attention.clear();
    return slower;
  }
  for (size_t i = 0; i < slower.attention.size(); ++i) {
    AttentionRates& mine = slower.attention[i];
    const AttentionRates other = AttentionRatesAt(b, mine.head_dim);
    for (AttentionField f : kAttentionRates) KeepLess(&(mine.*f), other.*f);
    for (AttentionField f : kAttentionTimes) mine.*f = std::max(mine.*f, other.*f);
  }
  return slower;
}

}  // namespace seqpar
