#include "worker/backend/cuda_plugin.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/version.h"

namespace seqpar {
namespace {

constexpr char kFile[] = "libseqpar-cuda.so";

absl::Status Missing(const std::string& what) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                   absl::StrCat("no GPUs can be used: ", what));
}

std::vector<std::string> Candidates() {
  if (const char* named = std::getenv("SEQPAR_CUDA_PLUGIN"); named != nullptr && *named != '\0')
    return {named};
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {kFile};
  const std::filesystem::path folder = program.parent_path();
  return {(folder / kFile).string(), (folder.parent_path() / "lib" / kFile).string(),
          (folder.parent_path() / "lib/seqpar" / kFile).string()};
}

absl::StatusOr<const CudaPlugin*> OpenOnce() {
  const std::vector<std::string> candidates = Candidates();
  for (const std::string& path : candidates) {
    if (access(path.c_str(), R_OK) != 0) continue;
    // Never closed: CUDA's threads and the objects it made may outlive whoever would close it.
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return Missing(dlerror());
    const auto* plugin = static_cast<const CudaPlugin*>(dlsym(handle, kCudaPluginSymbol));
    if (plugin == nullptr) return Missing(absl::StrCat(path, " is no plug-in of ours"));
    if (std::strcmp(plugin->version, kVersion) != 0) {
      return Missing(absl::StrCat(path, " is of version ", plugin->version, ", this program of ", kVersion));
    }
    return plugin;
  }
  return Missing(absl::StrCat("there is no ", candidates.front(),
                              ": this build found no CUDA compiler, or the plug-in was not installed"));
}

}  // namespace

absl::StatusOr<const CudaPlugin*> OpenCudaPlugin() {
  static const auto* const opened = new absl::StatusOr<const CudaPlugin*>(OpenOnce());
  return *opened;
}

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCudaBackend(const BackendConfig& config) {
  SEQPAR_ASSIGN_OR_RETURN(const CudaPlugin* plugin, OpenCudaPlugin());
  return plugin->make(config);
}

}  // namespace seqpar
