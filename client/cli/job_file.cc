#include "client/cli/job_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "client/cli/yaml_proto.h"
#include "common/base/fd.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

YamlOptions JobOptions() {
  YamlOptions options;
  options.first_output_only_field = kFirstOutputOnlyField;
  options.scalar_shorthand = {{v1::Parallelism::descriptor()->full_name(), "strategy"},
                              {v1::Devices::descriptor()->full_name(), "kind"}};
  return options;
}

}  // namespace

absl::Status ParseJob(const std::string& text, const std::vector<std::string>& assignments, v1::Job* job) {
  return ParseYaml(text, assignments, JobOptions(), reason::kInvalidJob, job);
}

absl::StatusOr<v1::Job> ParseJob(const std::string& text, const std::vector<std::string>& assignments) {
  v1::Job job;
  SEQPAR_RETURN_IF_ERROR(ParseJob(text, assignments, &job));
  return job;
}

std::optional<v1::CreateJobRequest> AskAboutTheRest(const v1::Job& job, const absl::Status& refused) {
  v1::CreateJobRequest request;
  *request.mutable_job() = job;
  request.set_validate_only(true);
  for (const Violation& violation : ViolationsOf(refused)) {
    if (violation.field.empty()) return std::nullopt;
    v1::Violation* unread = request.add_unread();
    unread->set_field(violation.field);
    unread->set_description(violation.description);
    unread->set_nearest(violation.nearest);
  }
  return request;
}

absl::Status WholeRefusal(const absl::Status& refused, const absl::Status& answer) {
  const std::vector<Violation> own = ViolationsOf(refused), told = ViolationsOf(answer);
  const auto same = [](const Violation& a, const Violation& b) {
    return a.field == b.field && a.description == b.description && a.nearest == b.nearest;
  };
  const bool all = told.size() >= own.size() && std::equal(own.begin(), own.end(), told.begin(), same);
  return all ? answer : refused;
}

absl::Status OfFile(const absl::Status& refused, const std::string& file, bool every) {
  std::vector<Violation> violations = ViolationsOf(refused);
  if (violations.empty()) return refused;
  const std::string name = file == "-" ? "standard input" : file;
  for (Violation& violation : violations) {
    if (violation.field.empty()) {
      violation.field = name;
    } else if (every) {
      violation.field = absl::StrCat(name, ": ", violation.field);
    }
  }
  return InvalidInput(ReasonOf(refused).c_str(), violations);
}

absl::StatusOr<v1::Cluster> ParseCluster(const std::string& text) {
  v1::Cluster cluster;
  SEQPAR_RETURN_IF_ERROR(ParseYaml(text, {}, YamlOptions(), reason::kInvalidArgument, &cluster));
  return cluster;
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  UniqueFd file;
  int fd = STDIN_FILENO;
  if (path != "-") {
    file.Reset(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    fd = file.get();
  }
  std::string text;
  char buffer[1 << 16];
  ssize_t got = 0;
  while (fd >= 0 && (got = read(fd, buffer, sizeof(buffer))) != 0) {
    if (got > 0) text.append(buffer, static_cast<size_t>(got));
    if (got < 0 && errno != EINTR) break;
  }
  if (fd >= 0 && got == 0) return text;
  const int error = errno;
  return absl::Status(absl::ErrnoToStatusCode(error),
                      absl::StrCat("cannot read ", path, ": ", std::strerror(error)));
}

}  // namespace seqpar
