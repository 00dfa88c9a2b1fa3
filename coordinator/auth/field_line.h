// Files of lines of NAME=VALUE words, in any order; empty lines and lines that begin with # say nothing.
#ifndef SEQPAR_COORDINATOR_AUTH_FIELD_LINE_H_
#define SEQPAR_COORDINATOR_AUTH_FIELD_LINE_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/status.h"

namespace seqpar {

// One line, and what is wrong with it.
class FieldLine {
 public:
  // Adds a violation for each word that is none of `fields` or there twice. `violations` outlives it.
  FieldLine(int number, const std::string& text, const std::vector<std::string>& fields,
            std::vector<Violation>* violations);

  // "" where it is not there.
  std::string Value(const std::string& name) const;
  // The same; a violation where it has other characters than A-Z a-z 0-9 - _ . @, or is not there though it
  // has to be.
  std::string Word(const std::string& name, bool required);
  void Wrong(const std::string& what, const std::string& nearest);

 private:
  const std::string field_;
  std::vector<Violation>* const violations_;
  std::map<std::string, std::string> values_;
};

// Gives each line of `text` that says something to `read`. INVALID_ARGUMENT with every violation.
absl::Status ReadFieldLines(const std::string& text, const std::vector<std::string>& fields,
                            const std::function<void(FieldLine*)>& read);

// The whole file. INVALID_ARGUMENT, with `flag` that named it, where it cannot be read or may be written by
// everybody.
absl::StatusOr<std::string> ReadFieldFile(const std::string& flag, const std::string& path);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_FIELD_LINE_H_
