// How another machine's clock stands to ours, from round trips.
#ifndef SEQPAR_COMMON_BASE_CLOCK_OFFSET_H_
#define SEQPAR_COMMON_BASE_CLOCK_OFFSET_H_

#include <cstdint>
#include <deque>
#include <optional>

namespace seqpar {

// Four readings of one exchange: ours when the request left and when its answer came, theirs when it arrived
// and when the answer was made.
struct RoundTrip {
  int64_t sent_us = 0;
  int64_t their_received_us = 0;
  int64_t their_answered_us = 0;
  int64_t received_us = 0;
};

struct ClockOffset {
  int64_t offset_ns = 0;  // theirs = ours + offset,
  int64_t bound_ns = 0;   // give or take this
};

// The midpoint method (as in NTP, RFC 5905 section 8): of a round trip the offset is what makes both ways
// equally long; it is wrong by half of the time that was spent on the way at most. Of the recent round trips
// that with the smallest bound counts; bounds grow with age by what two clocks may drift apart. Pure: not
// thread-safe.
class ClockOffsetEstimator {
 public:
  // A round trip that contradicts itself (longer there than here, an answer before its question) is ignored.
  void Add(const RoundTrip& trip);
  // As of our time `now_us`; nothing before the first round trip.
  std::optional<ClockOffset> Estimate(int64_t now_us) const;
  // The other side is another machine, or has started again.
  void Reset() { samples_.clear(); }

 private:
  struct Sample {
    ClockOffset offset;
    int64_t at_us;
    // The bound at a later time of ours.
    int64_t BoundAt(int64_t now_us) const;
  };
  std::deque<Sample> samples_;  // oldest first
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_CLOCK_OFFSET_H_
