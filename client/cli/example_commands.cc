#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/example.h"
#include "client/cli/exit_codes.h"
#include "client/cli/output.h"

namespace seqpar {
namespace {

int Written(const absl::StatusOr<std::string>& job_file, const CliConfig& config) {
  if (!job_file.ok()) {
    PrintError(job_file.status(), config);
    return kExitUsage;
  }
  PrintOut(*job_file + "\n");
  PrintNote(absl::StrCat("next: seqpar submit -f ", *job_file,
                         " --wait   (the folder must lie under a data root)"));
  return kExitOk;
}

}  // namespace

int RunExample(const CliConfig& config) {
  if (config.write_dir.empty()) {
    PrintOut(ExampleJob(ExampleOptions()));
    return kExitOk;
  }
  return Written(WriteExample(config.write_dir, config.overwrite), config);
}

int RunExampleText(const CliConfig& config) {
  return Written(WriteTextExample(config.text_file, config.write_dir.empty() ? "." : config.write_dir,
                                  config.hidden, config.overwrite),
                 config);
}

}  // namespace seqpar
