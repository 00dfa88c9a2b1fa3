#include "common/base/data_roots.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

absl::Status Refuse(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument, message);
}

std::string ErrnoText(int error) { return std::generic_category().message(error); }

// realpath(3); "" with errno set where it fails.
std::string RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> resolved(realpath(path.c_str(), nullptr), std::free);
  return resolved == nullptr ? std::string() : std::string(resolved.get());
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string Join(const std::string& folder, const std::string& rest) {
  if (rest.empty()) return folder;
  return folder == "/" ? "/" + rest : absl::StrCat(folder, "/", rest);
}

// Without empty and "." components and without a slash at the end; links and ".." stay.
std::string Tidy(const std::string& absolute) {
  std::string tidy;
  for (const std::string& component : std::vector<std::string>(absl::StrSplit(absolute, '/'))) {
    if (!component.empty() && component != ".") absl::StrAppend(&tidy, "/", component);
  }
  return tidy.empty() ? "/" : tidy;
}

bool IsUnder(const std::string& path, const std::string& folder) {
  if (folder == "/" || path == folder) return true;
  return path.size() > folder.size() && path.compare(0, folder.size(), folder) == 0 &&
         path[folder.size()] == '/';
}

absl::Status OpenError(int error, const std::string& path, const std::string& root) {
  const auto code = [error] {
    switch (error) {
      case ENOENT:
      case ENOTDIR:
        return absl::StatusCode::kNotFound;
      case EEXIST:
      case EISDIR:
        return absl::StatusCode::kAlreadyExists;
      case EACCES:
      case EPERM:
      case EROFS:
      case ELOOP:
        return absl::StatusCode::kPermissionDenied;
      case ENOSPC:
      case EDQUOT:
        return absl::StatusCode::kResourceExhausted;
      default:
        return absl::StatusCode::kInternal;
    }
  };
  if (error == EXDEV)
    return Refuse(absl::StrCat("path ", path, " leaves data root ", root, " by a symbolic link"));
  if (error == ENOSYS) return Refuse("data roots need Linux 5.6 or newer (openat2)");
  return MakeError(code(), reason::kStorage, absl::StrCat("cannot open ", path, ": ", ErrnoText(error)));
}

// The canonical form of `path` (absolute, tidy): realpath of what exists of it, and the rest as it stands.
absl::StatusOr<std::string> Canonical(const std::string& path) {
  std::string existing = path;
  std::string rest;
  struct stat info;
  while (lstat(existing.c_str(), &info) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) return Refuse(absl::StrCat(existing, ": ", ErrnoText(errno)));
    const size_t slash = existing.rfind('/');
    rest = Join(existing.substr(slash + 1), rest);
    existing = slash == 0 ? "/" : existing.substr(0, slash);
  }
  const std::string resolved = RealPath(existing);
  if (resolved.empty()) {
    return Refuse(absl::StrCat(existing, " is a symbolic link to nowhere: ", ErrnoText(errno)));
  }
  if (!rest.empty() && !IsDirectory(resolved)) return Refuse(absl::StrCat(existing, " is not a directory"));
  return Join(resolved, rest);
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::string>> ParseDataRoot(const std::string& flag) {
  const size_t equals = flag.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == flag.size()) {
    return Refuse(absl::StrCat("data root \"", flag, "\" is not NAME=PATH"));
  }
  const std::string name = flag.substr(0, equals);
  const bool legal = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  });
  if (!legal) {
    return Refuse(absl::StrCat("data root name \"", name, "\" has other characters than A-Z a-z 0-9 - _ ."));
  }
  const size_t slash = name.find('/');
  if (slash != std::string::npos &&
      (slash == 0 || slash + 1 == name.size() || name.find('/', slash + 1) != std::string::npos)) {
    return Refuse(absl::StrCat("data root name \"", name, "\" is neither NAME nor TENANT/NAME"));
  }
  return std::make_pair(name, flag.substr(equals + 1));
}

absl::StatusOr<DataRoots> DataRoots::Create(
    const std::vector<std::pair<std::string, std::string>>& named_paths) {
  DataRoots roots;
  for (const auto& named : named_paths) {
    Root root;
    root.name = named.first;
    for (const Root& other : roots.roots_) {
      if (other.name == root.name) return Refuse(absl::StrCat("data root ", root.name, " is given twice"));
    }
    root.path = RealPath(named.second);
    if (root.path.empty()) {
      return Refuse(absl::StrCat("data root ", root.name, "=", named.second, ": ", ErrnoText(errno)));
    }
    if (!IsDirectory(root.path)) {
      return Refuse(absl::StrCat("data root ", root.name, "=", named.second, " is not a directory"));
    }
    UniqueFd folder(open(root.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) {
      return Refuse(absl::StrCat("data root ", root.name, "=", named.second, ": ", ErrnoText(errno)));
    }
    root.folder = std::make_shared<const UniqueFd>(std::move(folder));
    // A relative root has no other absolute name than its canonical one.
    root.given = named.second[0] == '/' ? Tidy(named.second) : root.path;
    for (const Root& other : roots.roots_) {
      if (other.Tenant() == root.Tenant()) continue;
      if (IsUnder(other.path, root.path) || IsUnder(root.path, other.path)) {
        return Refuse(absl::StrCat("data roots ", other.name, "=", other.path, " and ", root.name, "=",
                                   root.path, " are of different tenants, and one is inside the other"));
      }
    }
    roots.roots_.push_back(std::move(root));
  }
  return roots;
}

absl::StatusOr<std::string> DataRoots::Resolve(const std::string& path) const {
  if (roots_.empty()) return Refuse("no data root is configured, so no file can be used");
  if (path.empty()) return Refuse("the path is empty");
  if (path.find('\0') != std::string::npos) return Refuse("the path contains a NUL");
  for (const std::string& component : std::vector<std::string>(absl::StrSplit(path, '/'))) {
    if (component == "..") return Refuse(absl::StrCat("path ", path, " contains \"..\""));
  }

  const bool relative = path[0] != '/';
  const std::string absolute = Tidy(relative ? Join(roots_[0].path, path) : path);
  const Root* root = relative ? &roots_[0] : nullptr;
  for (const Root& candidate : roots_) {
    if (relative || !(IsUnder(absolute, candidate.given) || IsUnder(absolute, candidate.path))) continue;
    // Of roots inside one another the innermost.
    if (root == nullptr || candidate.path.size() > root->path.size()) root = &candidate;
  }
  if (root == nullptr) {
    return Refuse(absl::StrCat("path ", path, " is under none of the data roots: ", ToString()));
  }
  const absl::StatusOr<std::string> canonical = Canonical(absolute);
  if (!canonical.ok()) return Annotate(canonical.status(), absl::StrCat("path ", path));
  if (!IsUnder(*canonical, root->path)) {
    return Refuse(absl::StrCat("path ", path, " leaves data root ", root->name,
                               " by a symbolic link; the data roots: ", ToString()));
  }
  return *canonical;
}

DataRoots DataRoots::ForTenant(const std::string& tenant) const {
  DataRoots own;
  for (const Root& root : roots_) {
    if (root.Tenant().empty() || root.Tenant() == absl::StrCat(tenant, "/")) own.roots_.push_back(root);
  }
  return own;
}

const DataRoots::Root* DataRoots::RootOf(const std::string& canonical) const {
  const Root* best = nullptr;
  for (const Root& root : roots_) {
    if (IsUnder(canonical, root.path) && (best == nullptr || root.path.size() > best->path.size()))
      best = &root;
  }
  return best;
}

absl::StatusOr<UniqueFd> DataRoots::Open(const std::string& path, int flags, mode_t mode) const {
  SEQPAR_ASSIGN_OR_RETURN(const std::string canonical, Resolve(path));
  const Root& root = *RootOf(canonical);
  std::string beneath = canonical.substr(root.path.size());
  beneath.erase(0, beneath.find_first_not_of('/'));
  if (beneath.empty()) beneath = ".";
  struct open_how how = {};
  // A named pipe would keep whoever opens it waiting for its other end; for files O_NONBLOCK means nothing.
  const int never_waits = (flags & O_PATH) == 0 ? O_NONBLOCK : 0;
  how.flags = static_cast<uint64_t>(static_cast<unsigned>(flags | O_CLOEXEC | never_waits));
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  // By its number: Debian's C library has no openat2. EAGAIN: somebody renamed a folder on the way meanwhile,
  // which nobody does for ever, or holds a lease on the file.
  constexpr int kTries = 1000;
  long fd = -1;
  for (int i = 0; i < kTries; ++i) {
    fd = syscall(SYS_openat2, root.folder->get(), beneath.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  if (fd >= 0) return UniqueFd(static_cast<int>(fd));
  return OpenError(errno, canonical, root.name);
}

std::string DataRoots::ToString() const {
  return absl::StrJoin(roots_, ", ", [](std::string* out, const Root& root) {
    absl::StrAppend(out, root.name, "=", root.path);
  });
}

}  // namespace seqpar
