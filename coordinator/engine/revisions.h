// The revisions of jobs, by which clients go on watching where they were: each is greater than every one that
// any start of the coordinator handed out before, whatever of its store was lost. Pure: whoever has it writes
// what it asks for.
#ifndef SEQPAR_COORDINATOR_ENGINE_REVISIONS_H_
#define SEQPAR_COORDINATOR_ENGINE_REVISIONS_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "common/base/saturate.h"

namespace seqpar {

// Not every revision is stored: progress is not worth a write. So they are reserved, many at a time, and a
// start begins above all that were ever reserved. It also begins above the microseconds of the wall clock,
// which is above whatever a store handed out that was lost with its disk or is older than its coordinator, as
// a backup is: nobody hands out a million revisions a second.
class Revisions {
 public:
  // `stored`: the last Reserve() that was written, as text; "" or what no Reserve() can have said: there is
  // none.
  Revisions(const std::string& stored, int64_t wall_us) {
    if (!absl::SimpleAtoi(stored, &reserved_) || reserved_ > kMicrosMax) reserved_ = 0;
    last_ = std::max({reserved_, wall_us, int64_t{0}});
  }

  int64_t Next() { return ++last_; }

  // Where more have to be reserved: what is to be stored, durably before any revision that is handed out from
  // now on is seen. Before the first one there always are.
  std::optional<std::string> Reserve() {
    if (last_ + kReserved / 2 < reserved_) return std::nullopt;
    reserved_ = last_ + kReserved;
    return std::to_string(reserved_);
  }

 private:
  static constexpr int64_t kReserved = 1 << 20;

  int64_t last_ = 0, reserved_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_REVISIONS_H_
