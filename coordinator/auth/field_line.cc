#include "coordinator/auth/field_line.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace seqpar {
namespace {

bool IsWord(const std::string& text) {
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.' && c != '@') return false;
  }
  return !text.empty();
}

absl::Status BadFile(const std::string& flag, const std::string& path, const std::string& why) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat(flag, " ", path, " ", why));
}

}  // namespace

FieldLine::FieldLine(int number, const std::string& text, const std::vector<std::string>& fields,
                     std::vector<Violation>* violations)
    : field_(absl::StrCat("line ", number)), violations_(violations) {
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ' ', absl::SkipEmpty()))) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
    const bool known = NearestName(pair.first, fields) == pair.first;
    if (!known) Wrong(absl::StrCat("has a field ", pair.first), NearestName(pair.first, fields));
    if (known && !values_.insert(pair).second) Wrong(absl::StrCat("has ", pair.first, " twice"), "");
  }
}

std::string FieldLine::Value(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? "" : found->second;
}

std::string FieldLine::Word(const std::string& name, bool required) {
  std::string value = Value(name);
  if (value.empty() && required) Wrong(absl::StrCat("needs ", name, "="), "");
  if (!value.empty() && !IsWord(value)) {
    Wrong(absl::StrCat(name, " has other characters than A-Z a-z 0-9 - _ . @"), "");
  }
  return value;
}

void FieldLine::Wrong(const std::string& what, const std::string& nearest) {
  violations_->push_back({field_, what, nearest});
}

absl::Status ReadFieldLines(const std::string& text, const std::vector<std::string>& fields,
                            const std::function<void(FieldLine*)>& read) {
  std::vector<Violation> violations;
  int number = 0;
  for (std::string line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    ++number;
    absl::StripAsciiWhitespace(&line);
    if (line.empty() || line[0] == '#') continue;
    FieldLine fields_of_line(number, line, fields, &violations);
    read(&fields_of_line);
  }
  return violations.empty() ? absl::OkStatus() : InvalidInput(reason::kInvalidArgument, violations);
}

absl::StatusOr<std::string> ReadFieldFile(const std::string& flag, const std::string& path) {
  struct stat info;
  std::ifstream in(path);
  if (stat(path.c_str(), &info) != 0 || !in) {
    return BadFile(flag, path, absl::StrCat("cannot be read: ", std::generic_category().message(errno)));
  }
  if ((info.st_mode & S_IWOTH) != 0) return BadFile(flag, path, "may be written by everybody: chmod o-w");
  std::ostringstream text;
  if (in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  return text.str();
}

}  // namespace seqpar
