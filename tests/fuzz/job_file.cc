// Job and cluster files: whatever the text, there is a message or an answer that says what is wrong; and a
// job that was read is the same after it was written and read again.
#include "client/cli/job_file.h"

#include <cstdint>
#include <string>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/job/proto.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seqpar;
  // The first line may be an assignment, as --set gives one.
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  std::vector<std::string> assignments;
  if (text.rfind("#set ", 0) == 0 && line != std::string::npos)
    assignments.push_back(text.substr(5, line - 5));
  const absl::StatusOr<v1::Job> job = ParseJob(text, assignments);
  if (job.ok()) {
    const JobSpec spec = JobFromProto(*job);
    const v1::Job whole = JobToProto(spec);
    SEQPAR_CHECK(JobToProto(JobFromProto(whole)).SerializeAsString().size() ==
                 whole.SerializeAsString().size());
  } else {
    SEQPAR_CHECK(!job.status().message().empty() && !ViolationsOf(job.status()).empty());
  }
  ParseCluster(text).status().IgnoreError();
  return 0;
}
