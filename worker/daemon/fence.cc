#include "worker/daemon/fence.h"

#include "absl/strings/str_cat.h"

namespace seqpar {

absl::Status CommandFence::AdmitTerm(int64_t term) {
  if (term < highest_term_) {
    return absl::FailedPreconditionError(
        absl::StrCat("term ", term, " is over: this worker has obeyed term ", highest_term_));
  }
  highest_term_ = term;
  return absl::OkStatus();
}

std::map<std::string, int32_t> CommandFence::LatestAttempts(size_t count) const {
  std::map<std::string, int32_t> latest;
  for (auto job = jobs_.rbegin(); job != jobs_.rend() && latest.size() < count; ++job) {
    latest[*job] = highest_attempt_.at(*job);
  }
  return latest;
}

absl::Status CommandFence::Admit(int64_t term, const std::string& job, int32_t attempt) {
  const auto known = highest_attempt_.find(job);
  if (known != highest_attempt_.end() && attempt < known->second) {
    return absl::FailedPreconditionError(absl::StrCat(
        "attempt ", attempt, " of ", job, " is over: this worker has seen attempt ", known->second));
  }
  if (absl::Status admitted = AdmitTerm(term); !admitted.ok()) return admitted;
  if (known != highest_attempt_.end()) {
    known->second = attempt;
    return absl::OkStatus();
  }
  if (jobs_.size() == kJobsMax) {
    highest_attempt_.erase(jobs_.front());
    jobs_.pop_front();
  }
  highest_attempt_[job] = attempt;
  jobs_.push_back(job);
  return absl::OkStatus();
}

}  // namespace seqpar
