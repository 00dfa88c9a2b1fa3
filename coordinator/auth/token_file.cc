#include "coordinator/auth/token_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/tls.h"

namespace seqpar {
namespace {

constexpr int64_t kLookAgainUs = 1'000'000;
constexpr size_t kHashDigits = 64;

bool IsWord(const std::string& text) {
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.' && c != '@') return false;
  }
  return !text.empty();
}

bool IsHash(const std::string& text) {
  for (const char c : text) {
    if (!absl::ascii_isxdigit(c) || absl::ascii_isupper(c)) return false;
  }
  return text.size() == kHashDigits;
}

// A date lasts to its end.
bool ParseEnd(const std::string& text, int64_t* us) {
  absl::Time time;
  std::string ignored;
  if (absl::ParseTime("%Y-%m-%d", text, absl::UTCTimeZone(), &time, &ignored)) {
    time += absl::Hours(24);
  } else if (!absl::ParseTime(absl::RFC3339_full, text, &time, &ignored)) {
    return false;
  }
  *us = absl::ToUnixMicros(time);
  return true;
}

// Reads one line into `hash` and `token`; adds what is wrong with it.
class Line {
 public:
  Line(int number, std::vector<Violation>* violations)
      : field_(absl::StrCat("line ", number)), violations_(violations) {}

  void Read(const std::string& text, std::string* hash, Token* token) {
    for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ' ', absl::SkipEmpty()))) {
      const std::pair<std::string, std::string> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
      const bool known = NearestName(pair.first, kFields) == pair.first;
      if (!known) Wrong(absl::StrCat("has a field ", pair.first), NearestName(pair.first, kFields));
      if (known && !values_.insert(pair).second) Wrong(absl::StrCat("has ", pair.first, " twice"), "");
    }
    Caller& caller = token->caller;
    caller.name = Word("name", true);
    const std::string role = Word("role", true);
    const bool is_role = ReadRole(role, &caller.role);
    if (!role.empty() && !is_role) Wrong(absl::StrCat("has no role ", role), NearestName(role, kRoles));
    const bool worker = is_role && caller.role == Role::kWorker;
    caller.tenant = Word("tenant", is_role && !worker && caller.role != Role::kOperator);
    caller.node = values_["node"] == "*" ? "*" : Word("node", worker);
    if (worker && !caller.tenant.empty()) Wrong("gives a worker a tenant; it has a node", "");
    if (is_role && !worker && !caller.node.empty()) Wrong("gives a user a node; only a worker has one", "");
    if (!ParseEnd(values_["expires"], &token->end_us)) Wrong("needs expires=, a date or time", "2027-01-31");
    *hash = values_["sha256"];
    if (!IsHash(*hash))
      Wrong("needs sha256=, 64 digits 0-9a-f as `seqpar-coordinator --hash-token` prints them", "");
  }
  void Wrong(const std::string& what, const std::string& nearest) {
    violations_->push_back({field_, what, nearest});
  }

 private:
  static bool ReadRole(const std::string& name, Role* role) {
    for (const Role candidate : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kWorker}) {
      if (name != RoleName(candidate)) continue;
      *role = candidate;
      return true;
    }
    return false;
  }

  std::string Word(const char* name, bool required) {
    const std::string value = values_[name];
    const bool absent = values_.count(name) == 0 || value.empty();
    if (absent && required) Wrong(absl::StrCat("needs ", name, "="), "");
    if (!absent && !IsWord(value))
      Wrong(absl::StrCat(name, " has other characters than A-Z a-z 0-9 - _ . @"), "");
    return value;
  }

  inline static const std::vector<std::string> kFields = {"name", "role",    "tenant",
                                                          "node", "expires", "sha256"};
  inline static const std::vector<std::string> kRoles = {"viewer", "submitter", "operator", "worker"};
  const std::string field_;
  std::vector<Violation>* const violations_;
  std::map<std::string, std::string> values_;
};

absl::Status NotAuthenticated(const std::string& message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated, message);
}

// Tells one state of the file from another; "" with errno where there is none.
std::string VersionOf(const std::string& path, mode_t* mode) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return "";
  *mode = info.st_mode;
  return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec, " ",
                      info.st_mtim.tv_nsec, " ", info.st_mode);
}

}  // namespace

absl::StatusOr<TokensByHash> ParseTokens(const std::string& text) {
  TokensByHash tokens;
  std::vector<Violation> violations;
  int number = 0;
  for (std::string line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    ++number;
    absl::StripAsciiWhitespace(&line);
    if (line.empty() || line[0] == '#') continue;
    Line reader(number, &violations);
    std::string hash;
    Token token;
    reader.Read(line, &hash, &token);
    if (!tokens.emplace(hash, token).second) reader.Wrong("has the hash of a line before it", "");
  }
  if (!violations.empty()) return InvalidInput(reason::kInvalidArgument, violations);
  return tokens;
}

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::string& path, const Clock* clock) {
  std::unique_ptr<TokenFile> file(new TokenFile(path, clock));
  MutexLock lock(file->mutex_);
  SEQPAR_RETURN_IF_ERROR(file->Read());
  return file;
}

absl::Status TokenFile::Read() {
  looked_us_ = clock_->BootMicros();
  mode_t mode = 0;
  version_ = VersionOf(path_, &mode);
  std::ifstream in(path_);
  std::ostringstream text;
  if (version_.empty() || !in) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("--tokens ", path_, " cannot be read: ", std::generic_category().message(errno)));
  }
  if ((mode & S_IWOTH) != 0) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat("--tokens ", path_, " may be written by everybody: chmod o-w"));
  }
  if (in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  absl::StatusOr<TokensByHash> tokens = ParseTokens(text.str());
  if (!tokens.ok()) return Annotate(tokens.status(), absl::StrCat("--tokens ", path_));
  tokens_ = *std::move(tokens);
  return absl::OkStatus();
}

void TokenFile::Refresh() {
  if (clock_->BootMicros() < looked_us_ + kLookAgainUs) return;
  looked_us_ = clock_->BootMicros();
  mode_t mode = 0;
  const std::string version = VersionOf(path_, &mode);
  if (version == version_) return;
  if (const absl::Status read = Read(); !read.ok()) {
    LogError("the tokens stay as they were", {{"error", read.message()}});
  } else {
    LogInfo("tokens read again", {{"file", path_}, {"tokens", tokens_.size()}});
  }
}

absl::StatusOr<Caller> TokenFile::Find(const std::string& token) {
  MutexLock lock(mutex_);
  Refresh();
  const auto found = tokens_.find(Sha256Hex(token));
  if (found == tokens_.end()) return NotAuthenticated("this token is not known here");
  if (clock_->WallMicros() >= found->second.end_us) {
    return NotAuthenticated(absl::StrCat("this token of ", found->second.caller.name, " has expired"));
  }
  return found->second.caller;
}

}  // namespace seqpar
