#include "client/lib/wait.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/base/units.h"

namespace seqpar {
namespace {

// One stream lasts no longer than this: a server that vanished silently is noticed by then.
constexpr double kStreamSecondsMax = 30;
constexpr double kRetrySeconds = 0.5;

// What keeps a service from answering for now.
enum class Trouble { kNone, kUnreachable, kOverloaded };

// kNone: the same call would be answered the same. CANCELLED, which nobody here asked for: the server gave up
// what was open when it was told to stop.
Trouble TroubleOf(const absl::Status& status) {
  if (ReasonOf(status) == reason::kOverloaded) return Trouble::kOverloaded;
  const bool away = absl::IsUnavailable(status) || absl::IsCancelled(status);
  return away ? Trouble::kUnreachable : Trouble::kNone;
}

class Waiter {
 public:
  Waiter(SeqparService& service, const std::string& id, const WaitOptions& options, const Clock& clock,
         const WaitHooks& hooks)
      : service_(service),
        id_(id),
        options_(options),
        clock_(clock),
        hooks_(hooks),
        begin_us_(clock.BootMicros()) {}

  absl::StatusOr<v1::Job> Run() {
    while (true) {
      const double left = SecondsLeft();
      if (left <= 0) {
        return MakeError(
            absl::StatusCode::kDeadlineExceeded, reason::kDeadlineExceeded,
            absl::StrCat("job ", id_, " has not ended after ", FormatSeconds(options_.wait_seconds)));
      }
      absl::Status status;
      if (!HasEnded(job_)) status = WatchOnce(std::min(left, kStreamSecondsMax));
      if (HasEnded(job_)) {
        absl::StatusOr<v1::Job> whole = Whole();
        status = whole.status();
        if (TroubleOf(status) == Trouble::kNone) return whole;
      }
      if (const Trouble trouble = TroubleOf(status); trouble != Trouble::kNone) {
        SEQPAR_RETURN_IF_ERROR(GoThrough(trouble, status));
        const double asked = std::min<double>(RetrySecondsOf(status), options_.reconnect_seconds);
        hooks_.sleep(std::min(std::max(kRetrySeconds, asked), SecondsLeft()));
      } else if (status.ok()) {
        // The server ended the stream before the job ended: it is shutting down.
        Answered();
        hooks_.sleep(std::min(kRetrySeconds, SecondsLeft()));
      } else if (status.code() == absl::StatusCode::kDeadlineExceeded) {
        Answered();
      } else {
        return status;
      }
    }
  }

 private:
  absl::Status WatchOnce(double seconds) {
    v1::WatchJobRequest request;
    request.set_id(id_);
    request.set_revision(revision_);
    return service_.WatchJob(request, seconds, [this](const v1::JobEvent& event) {
      Answered();
      if (event.revision() > revision_ || revision_ == 0) {
        revision_ = event.revision();
        job_ = event.job();
        hooks_.on_change(job_);
      }
      return !HasEnded(job_);
    });
  }

  // Events may come without the report: the job as it is stored has it.
  absl::StatusOr<v1::Job> Whole() {
    if (job_.has_report() || job_.state() != v1::JOB_STATE_SUCCEEDED) return job_;
    v1::GetJobRequest request;
    request.set_id(id_);
    return service_.GetJob(request);
  }

  // Notes what `status` says, or gives up with it.
  absl::Status GoThrough(Trouble trouble, const absl::Status& status) {
    const int64_t now_us = clock_.BootMicros();
    if (trouble_ == Trouble::kNone) trouble_since_us_ = now_us;
    if (static_cast<double>(now_us - trouble_since_us_) * 1e-6 >= options_.reconnect_seconds) return status;
    if (trouble != trouble_) {
      hooks_.on_message(absl::StrCat(
          "the coordinator ", trouble == Trouble::kOverloaded ? "has too much to do" : "cannot be reached",
          " (", std::string(status.message()), "); trying again for ",
          FormatSeconds(options_.reconnect_seconds)));
    }
    trouble_ = trouble;
    return absl::OkStatus();
  }

  void Answered() {
    if (trouble_ == Trouble::kNone) return;
    trouble_ = Trouble::kNone;
    hooks_.on_message("the coordinator answers again");
  }

  double SecondsLeft() const {
    if (options_.wait_seconds <= 0) return std::numeric_limits<double>::infinity();
    return options_.wait_seconds - static_cast<double>(clock_.BootMicros() - begin_us_) * 1e-6;
  }

  SeqparService& service_;
  const std::string& id_;
  const WaitOptions& options_;
  const Clock& clock_;
  const WaitHooks& hooks_;
  const int64_t begin_us_;
  Trouble trouble_ = Trouble::kNone;
  int64_t trouble_since_us_ = 0;
  int64_t revision_ = 0;
  v1::Job job_;
};

}  // namespace

bool HasEnded(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_SUCCEEDED || job.state() == v1::JOB_STATE_FAILED ||
         job.state() == v1::JOB_STATE_CANCELLED;
}

absl::StatusOr<v1::Job> WaitForJob(SeqparService& service, const std::string& id, const WaitOptions& options,
                                   const Clock& clock, const WaitHooks& hooks) {
  return Waiter(service, id, options, clock, hooks).Run();
}

}  // namespace seqpar
