// The folders that jobs may read and write, and the one way from a path in a job to a path of the file
// system.
#ifndef SEQPAR_COMMON_BASE_DATA_ROOTS_H_
#define SEQPAR_COMMON_BASE_DATA_ROOTS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/fd.h"

namespace seqpar {

// Splits the value of a --data-root flag, "NAME=PATH", or "TENANT/NAME=PATH" where it is one tenant's alone.
// Names are letters, digits, '-', '_' and '.'.
absl::StatusOr<std::pair<std::string, std::string>> ParseDataRoot(const std::string& flag);

// Immutable, thread-safe.
class DataRoots {
 public:
  struct Root {
    std::string name;   // "data", or "search/data" of tenant search
    std::string path;   // absolute, without symbolic links
    std::string given;  // absolute, as configured
    std::string Tenant() const {
      return name.substr(0, name.find('/') + 1);
    }                                        // "search/"; empty: everybody's
    std::shared_ptr<const UniqueFd> folder;  // path, opened: renamed or replaced, it stays the same folder
  };

  // No roots: every path is refused.
  DataRoots() = default;

  // From (name, path) pairs in order of preference. INVALID_ARGUMENT for a name given twice, a path that
  // is not an existing directory, and a tenant's root inside one of others or around it.
  static absl::StatusOr<DataRoots> Create(
      const std::vector<std::pair<std::string, std::string>>& named_paths);

  // The canonical absolute path of `path`, which need not exist. A relative path is relative to the first
  // root, an absolute one must lie under a root, by its configured or its canonical name. INVALID_ARGUMENT,
  // naming the roots, for an empty path, an embedded NUL, a ".." anywhere, a symbolic link that leaves the
  // root, and one whose target does not exist (creating it would create a file elsewhere). What is checked is
  // the file system as it is now: a name to show and to compare. What is used is opened by Open.
  absl::StatusOr<std::string> Resolve(const std::string& path) const;

  // Those that jobs of `tenant` may use: its own and everybody's.
  DataRoots ForTenant(const std::string& tenant) const;
  // Opens `path` (any that Resolve takes) by openat2(2) beneath its root: whoever swaps a folder for a link
  // meanwhile, nothing outside is opened; nor does it wait for the other end of a named pipe. `flags` and
  // `mode` as of open(2); O_CLOEXEC is added. Errors: Resolve's; NOT_FOUND, ALREADY_EXISTS,
  // PERMISSION_DENIED, RESOURCE_EXHAUSTED (a full disk) and INTERNAL with reason STORAGE.
  absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode = 0) const;

  const std::vector<Root>& roots() const { return roots_; }
  // "data=/srv/data, out=/srv/out".
  std::string ToString() const;

 private:
  // The root of a canonical path.
  const Root* RootOf(const std::string& canonical) const;

  std::vector<Root> roots_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_DATA_ROOTS_H_
