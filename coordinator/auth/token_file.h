// The tokens that users and workers may show, from a file that holds their hashes.
//
// One a line, fields in any order; empty lines and lines that begin with # say nothing:
//   name=alice role=submitter tenant=search expires=2027-01-31 sha256=64 hexadecimal digits
//   name=rack7 role=worker node=gpu-7 expires=2027-01-31T12:00:00Z sha256=...
// A date means the end of that day, in UTC. Viewers and submitters have a tenant, operators may, workers have
// a node
// ("*": any). Two lines may have one name, so that a token can be replaced before it ends; the hashes differ.
#ifndef SEQPAR_COORDINATOR_AUTH_TOKEN_FILE_H_
#define SEQPAR_COORDINATOR_AUTH_TOKEN_FILE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "coordinator/auth/caller.h"

namespace seqpar {

struct Token {
  Caller caller;  // without its peer
  int64_t end_us = 0;
};
using TokensByHash = std::map<std::string, Token>;

// Below this a token could be guessed, and found from its hash. `openssl rand -hex 32` makes 64.
inline constexpr size_t kTokenCharactersMin = 32;

// INVALID_ARGUMENT with every wrong line.
absl::StatusOr<TokensByHash> ParseTokens(const std::string& text);

// Thread-safe. Looks at the file again, at most once a second, when it is asked: a changed one counts from
// then on. One that cannot be read or understood is logged, and what was read before it stays.
class TokenFile {
 public:
  // INVALID_ARGUMENT where the file cannot be read, understood, or may be written by everybody. `clock`
  // outlives it.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path, const Clock* clock);

  // UNAUTHENTICATED for a token that is not in the file, or whose time is over.
  absl::StatusOr<Caller> Find(const std::string& token);

 private:
  TokenFile(std::string path, const Clock* clock) : path_(std::move(path)), clock_(clock) {}
  absl::Status Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Clock* const clock_;
  Mutex mutex_;
  TokensByHash tokens_ ABSL_GUARDED_BY(mutex_);
  std::string version_ ABSL_GUARDED_BY(mutex_);  // of the file that was looked at last: inode, size, time
  int64_t looked_us_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_TOKEN_FILE_H_
