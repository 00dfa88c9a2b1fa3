// A set of tensors in one safetensors file or in a Hugging Face checkpoint folder.
#ifndef SEQPAR_COMMON_TENSOR_CHECKPOINT_H_
#define SEQPAR_COMMON_TENSOR_CHECKPOINT_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/fd.h"
#include "common/tensor/safetensors.h"

namespace seqpar {

// Where a tensor lies.
struct TensorLocation {
  std::string file;  // path
  TensorInfo info;
};

// Opens a file, as the caller may open files: NOT_FOUND where there is none.
using FileOpener = std::function<absl::StatusOr<UniqueFd>(const std::string& path, int flags)>;
// By open(2), whatever its path.
absl::StatusOr<UniqueFd> OpenAnyFile(const std::string& path, int flags);

// Reads headers only. Immutable once opened; thread-safe.
class Checkpoint {
 public:
  // `path`: a safetensors file, or a folder with model.safetensors or model.safetensors.index.json (whose
  // files must lie in the folder and hold what the index says). NOT_FOUND, INVALID_ARGUMENT with what and
  // where; errors of `open`, by which alone files are opened.
  static absl::StatusOr<Checkpoint> Open(const std::string& path, const FileOpener& open = OpenAnyFile);

  // Null where there is none of this name.
  const TensorLocation* Find(const std::string& name) const;
  const std::map<std::string, TensorLocation>& tensors() const { return tensors_; }
  // Names of tensors that are there but of a type that is not supported (I64, BOOL, ...), with that type.
  const std::map<std::string, std::string>& other_dtypes() const { return other_dtypes_; }
  // Every safetensors file read, and the index: what a fingerprint covers.
  const std::vector<std::string>& files() const { return files_; }
  // The text of config.json beside the weights; "" for a single file or where there is none.
  const std::string& config_json() const { return config_json_; }

 private:
  absl::Status AddFile(const FileOpener& open, const std::string& path,
                       const std::map<std::string, std::string>* wanted, const std::string& file_name);

  std::map<std::string, TensorLocation> tensors_;
  std::map<std::string, std::string> other_dtypes_;
  std::vector<std::string> files_;
  std::string config_json_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_TENSOR_CHECKPOINT_H_
