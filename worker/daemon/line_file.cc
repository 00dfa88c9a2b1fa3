#include "worker/daemon/line_file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {

absl::Status WriteLine(const std::string& path, const std::string& line) {
  const std::string partial = path + ".partial";
  std::ofstream file(partial, std::ios::trunc);
  file << line << "\n";
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(partial, path, error);
  if (!file || error)
    return MakeError(absl::StatusCode::kInternal, reason::kStorage, absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

LineFile::~LineFile() {
  std::error_code ignored;
  if (written_) std::filesystem::remove(path_, ignored);
}

absl::Status LineFile::Write(const std::string& line) {
  if (path_.empty()) return absl::OkStatus();
  written_ = true;
  return WriteLine(path_, line);
}

}  // namespace seqpar
