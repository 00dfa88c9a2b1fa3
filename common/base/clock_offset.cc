#include "common/base/clock_offset.h"

#include <algorithm>

namespace seqpar {
namespace {

constexpr size_t kSamplesMax = 64;
// Two quartz oscillators without discipline are apart by 100 parts in a million at most (50 each, the usual
// tolerance).
constexpr int64_t kDriftNsPerMs = 100;
constexpr int64_t kClockMaxUs = int64_t{100} * 365 * 24 * 3600 * 1'000'000;
constexpr int64_t kResolutionNs = 1000;  // of the four readings

}  // namespace

int64_t ClockOffsetEstimator::Sample::BoundAt(int64_t now_us) const {
  return offset.bound_ns + std::max<int64_t>(now_us - at_us, 0) / 1000 * kDriftNsPerMs;
}

void ClockOffsetEstimator::Add(const RoundTrip& trip) {
  // Two clocks of a machine's life are no century apart; further, and differences of them no longer fit.
  for (const int64_t us : {trip.sent_us, trip.received_us, trip.their_received_us, trip.their_answered_us}) {
    if (us < -kClockMaxUs || us > kClockMaxUs) return;
  }
  const int64_t here_us = trip.received_us - trip.sent_us;
  const int64_t there_us = trip.their_answered_us - trip.their_received_us;
  if (there_us < 0 || here_us < there_us) return;
  Sample sample;
  // In nanoseconds halves are whole.
  sample.offset.offset_ns =
      500 * ((trip.their_received_us - trip.sent_us) + (trip.their_answered_us - trip.received_us));
  sample.offset.bound_ns = 500 * (here_us - there_us) + kResolutionNs;
  sample.at_us = trip.received_us;
  samples_.push_back(sample);
  if (samples_.size() > kSamplesMax) samples_.pop_front();
}

std::optional<ClockOffset> ClockOffsetEstimator::Estimate(int64_t now_us) const {
  if (samples_.empty()) return std::nullopt;
  const auto best = std::min_element(
      samples_.begin(), samples_.end(),
      [now_us](const Sample& a, const Sample& b) { return a.BoundAt(now_us) < b.BoundAt(now_us); });
  return ClockOffset{best->offset.offset_ns, best->BoundAt(now_us)};
}

}  // namespace seqpar
