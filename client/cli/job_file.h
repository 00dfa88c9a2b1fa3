// Job and cluster files.
#ifndef SEQPAR_CLIENT_CLI_JOB_FILE_H_
#define SEQPAR_CLIENT_CLI_JOB_FILE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "seqpar/v1/job.pb.h"
#include "seqpar/v1/plan.pb.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

// v1.Job: "Output only" begins here.
inline constexpr int kFirstOutputOnlyField = 100;

// The job in YAML `text` with `assignments` ("key=value", see yaml_proto.h) applied. INVALID_ARGUMENT
// (INVALID_JOB) with every violation. Only the form is checked here; what the values mean is the service's to
// judge.
absl::StatusOr<v1::Job> ParseJob(const std::string& text, const std::vector<std::string>& assignments);
// The same, where what can be read is wanted although not all of it can.
absl::Status ParseJob(const std::string& text, const std::vector<std::string>& assignments, v1::Job* job);

// What the service is asked where a job file is wrong in its form, `refused` (as ParseJob says): to say what
// is wrong with the rest, too. Nothing where there is no rest.
std::optional<v1::CreateJobRequest> AskAboutTheRest(const v1::Job& job, const absl::Status& refused);
// The whole of it: `answer`, to what AskAboutTheRest made, where it is one and holds all of `refused`; else
// `refused`.
absl::Status WholeRefusal(const absl::Status& refused, const absl::Status& answer);

// A refusal of what a file holds, with the file's name before every field, or, with `every` false, only where
// no field is named.
absl::Status OfFile(const absl::Status& refused, const std::string& file, bool every);

// The cluster in YAML `text`. INVALID_ARGUMENT with every violation.
absl::StatusOr<v1::Cluster> ParseCluster(const std::string& text);

// The whole file, or standard input for "-". NOT_FOUND, PERMISSION_DENIED or INTERNAL, naming the path.
absl::StatusOr<std::string> ReadText(const std::string& path);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_JOB_FILE_H_
