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
  // `unread`: what whoever read the job has found already, and left out. It comes first, and nothing is added
  // of such a field, of what holds it or is in it, or of the one that a word which is no field may have
  // meant.
  explicit Violations(std::vector<Violation> unread = {}) : list_(std::move(unread)) {
    for (const Violation& v : list_) {
      unread_.push_back(v.field);
      if (v.nearest.empty()) continue;
      const size_t dot = v.field.rfind('.');
      unread_.push_back(absl::StrCat(dot == std::string::npos ? "" : v.field.substr(0, dot + 1), v.nearest));
    }
  }

  // Error details travel in trailing metadata, which is small: what goes beyond is counted.
  static constexpr size_t kMost = 64;

  void Add(std::string field, std::string description, std::string nearest = "") {
    if (!Unread(field)) list_.push_back({std::move(field), std::move(description), std::move(nearest)});
  }
  // Whether something of this field is missing from the job because it could not be read.
  bool Unread(const std::string& field) const {
    const auto holds = [](const std::string& outer, const std::string& inner) {
      return inner.size() > outer.size() && inner.compare(0, outer.size(), outer) == 0 &&
             (inner[outer.size()] == '.' || inner[outer.size()] == '[');
    };
    for (const std::string& unread : unread_) {
      if (field == unread || holds(field, unread) || holds(unread, field)) return true;
    }
    return false;
  }
  // Adds one where value is outside [low, high]; the nearest is the end that it passed. True where it is
  // inside.
  bool Range(const std::string& field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return true;
    Add(field, absl::StrCat("is ", value, "; must be ", low, " to ", high),
        absl::StrCat(value < low ? low : high));
    return false;
  }
  // Whether the field's value is not to be relied on: it is not legal, or could not be read.
  bool Has(const std::string& field) const {
    if (Unread(field)) return true;
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
  std::vector<std::string> unread_;  // fields
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_VIOLATIONS_H_
