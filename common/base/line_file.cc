#include "common/base/line_file.h"

#include <cerrno>
#include <cstdio>
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
  if (file && std::rename(partial.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                   absl::StrCat("cannot write ", path, ": ", std::generic_category().message(errno)));
}

LineFile::~LineFile() {
  if (written_) std::remove(path_.c_str());
}

absl::Status LineFile::Write(const std::string& line) {
  if (path_.empty()) return absl::OkStatus();
  written_ = true;
  return WriteLine(path_, line);
}

}  // namespace seqpar
