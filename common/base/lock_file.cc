#include "common/base/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

absl::Status Failed(const char* what, const std::string& path) {
  return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                   absl::StrCat("cannot ", what, " ", path, ": ", std::generic_category().message(errno)));
}

// What the holder wrote. A moment after it took the lock there may be nothing yet.
std::string Holder(int fd) {
  char text[512];
  const ssize_t n = pread(fd, text, sizeof(text), 0);
  const std::string holder(
      absl::StripAsciiWhitespace(absl::string_view(text, n > 0 ? static_cast<size_t>(n) : 0)));
  return holder.empty() ? "another process" : holder;
}

void WriteHolder(int fd) {
  char host[256] = {};
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  const std::string text = absl::StrCat("pid ", getpid(), " on ", host, "\n");
  (void)!ftruncate(fd, 0);
  (void)!pwrite(fd, text.data(), text.size(), 0);
}

}  // namespace

absl::StatusOr<UniqueFd> TakeLockFile(const std::string& path, std::string* holder) {
  UniqueFd lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.valid()) return Failed("open", path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
    WriteHolder(lock.get());
    return lock;
  }
  if (errno != EWOULDBLOCK) return Failed("lock", path);
  *holder = Holder(lock.get());
  return UniqueFd();
}

}  // namespace seqpar
