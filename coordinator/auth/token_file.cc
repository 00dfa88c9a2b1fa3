#include "coordinator/auth/token_file.h"

#include <sys/stat.h>

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/tls.h"
#include "coordinator/auth/field_line.h"

namespace seqpar {
namespace {

constexpr int64_t kLookAgainUs = 1'000'000;
constexpr size_t kHashDigits = 64;

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

const std::vector<std::string>& Fields() {
  static const auto* fields =
      new std::vector<std::string>{"name", "role", "tenant", "node", "expires", "sha256"};
  return *fields;
}

bool ReadRole(const std::string& name, Role* role) {
  for (const Role candidate : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kWorker}) {
    if (name != RoleName(candidate)) continue;
    *role = candidate;
    return true;
  }
  return false;
}

// Reads one line; adds to it what is wrong.
void ReadToken(FieldLine* line, std::string* hash, Token* token) {
  Caller& caller = token->caller;
  caller.name = line->Word("name", true);
  const std::string role = line->Word("role", true);
  const bool is_role = ReadRole(role, &caller.role);
  if (!role.empty() && !is_role) {
    line->Wrong(absl::StrCat("has no role ", role),
                NearestName(role, {"viewer", "submitter", "operator", "worker"}));
  }
  const bool worker = is_role && caller.role == Role::kWorker;
  caller.tenant = line->Word("tenant", is_role && !worker && caller.role != Role::kOperator);
  caller.node = line->Value("node") == "*" ? "*" : line->Word("node", worker);
  if (worker && !caller.tenant.empty()) line->Wrong("gives a worker a tenant; it has a node", "");
  if (is_role && !worker && !caller.node.empty()) {
    line->Wrong("gives a user a node; only a worker has one", "");
  }
  if (!ParseEnd(line->Value("expires"), &token->end_us)) {
    line->Wrong("needs expires=, a date or time", "2027-01-31");
  }
  *hash = line->Value("sha256");
  if (!IsHash(*hash)) {
    line->Wrong("needs sha256=, 64 digits 0-9a-f as `seqpar-coordinator --hash-token` prints them", "");
  }
}

absl::Status NotAuthenticated(const std::string& message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated, message);
}

// Tells one state of the file from another; "" where there is none.
std::string VersionOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_dev, " ", info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec, " ",
                      info.st_mtim.tv_nsec, " ", info.st_mode);
}

}  // namespace

absl::StatusOr<TokensByHash> ParseTokens(const std::string& text) {
  TokensByHash tokens;
  SEQPAR_RETURN_IF_ERROR(ReadFieldLines(text, Fields(), [&tokens](FieldLine* line) {
    std::string hash;
    Token token;
    ReadToken(line, &hash, &token);
    if (!tokens.emplace(hash, token).second) line->Wrong("has the hash of a line before it", "");
  }));
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
  version_ = VersionOf(path_);
  SEQPAR_ASSIGN_OR_RETURN(const std::string text, ReadFieldFile("--tokens", path_));
  absl::StatusOr<TokensByHash> tokens = ParseTokens(text);
  if (!tokens.ok()) return Annotate(tokens.status(), absl::StrCat("--tokens ", path_));
  tokens_ = *std::move(tokens);
  return absl::OkStatus();
}

void TokenFile::Refresh() {
  if (clock_->BootMicros() < looked_us_ + kLookAgainUs) return;
  looked_us_ = clock_->BootMicros();
  if (VersionOf(path_) == version_) return;
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
