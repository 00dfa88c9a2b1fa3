// Files of one line, by which a process tells scripts where it is.
#ifndef SEQPAR_COMMON_BASE_LINE_FILE_H_
#define SEQPAR_COMMON_BASE_LINE_FILE_H_

#include <string>
#include <utility>

#include "absl/status/status.h"

namespace seqpar {

// Whole or not at all: whoever polls for it never sees half of it. INTERNAL (STORAGE), with the system's
// reason, where it cannot be written.
absl::Status WriteLine(const std::string& path, const std::string& line);

// One that goes again at the end of this, where it was written here.
class LineFile {
 public:
  explicit LineFile(std::string path) : path_(std::move(path)) {}  // empty: none
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;
  absl::Status Write(const std::string& line);

 private:
  const std::string path_;
  bool written_ = false;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_LINE_FILE_H_
