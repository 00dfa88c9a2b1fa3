// Collects what is wrong with a job, so that one answer can hold all of it.
#ifndef SEQPAR_COORDINATOR_VALIDATE_VIOLATIONS_H_
#define SEQPAR_COORDINATOR_VALIDATE_VIOLATIONS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {

class Violations {
 public:
  // Error details travel in trailing metadata, which is small: what goes beyond is counted.
  static constexpr size_t kMost = 64;

  void Add(std::string field, std::string description, std::string nearest = "") {
    list_.push_back({std::move(field), std::move(description), std::move(nearest)});
  }
  // Adds one where value is outside [low, high]; the nearest is the end that it passed. True where it is
  // inside.
  bool Range(const std::string& field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return true;
    Add(field, absl::StrCat("is ", value, "; must be ", low, " to ", high),
        absl::StrCat(value < low ? low : high));
    return false;
  }
  // Whether one names this field.
  bool Has(const std::string& field) const {
    for (const Violation& v : list_) {
      if (v.field == field) return true;
    }
    return false;
  }
  absl::Status ToStatus() const {
    if (list_.empty()) return absl::OkStatus();
    if (list_.size() <= kMost) return InvalidInput(reason::kInvalidJob, list_);
    std::vector<Violation> shown(list_.begin(), list_.begin() + kMost);
    shown.push_back({"", absl::StrCat("and ", list_.size() - kMost, " more"), ""});
    return InvalidInput(reason::kInvalidJob, shown);
  }

 private:
  std::vector<Violation> list_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_VIOLATIONS_H_
