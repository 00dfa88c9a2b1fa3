#include "common/tensor/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "nlohmann/json.hpp"

namespace seqpar {
namespace {

constexpr int64_t kMaxJsonBytes = int64_t{64} << 20;

absl::StatusOr<std::string> ReadSmallFile(const FileOpener& open, const std::string& path) {
  SEQPAR_ASSIGN_OR_RETURN(UniqueFd fd, open(path, O_RDONLY));
  struct stat st;
  if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > kMaxJsonBytes) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat(path, ": not a JSON file of at most ", kMaxJsonBytes, " bytes"));
  }
  std::string text(st.st_size, '\0');
  SEQPAR_RETURN_IF_ERROR(PreadAll(fd.get(), text.data(), st.st_size, 0));
  return text;
}

absl::StatusOr<bool> Exists(const FileOpener& open, const std::string& path) {
  const absl::Status opened = open(path, O_PATH).status();
  if (absl::IsNotFound(opened)) return false;
  if (!opened.ok()) return opened;
  return true;
}

absl::Status BadIndex(const std::string& path, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat(path, ": ", what));
}

// Tensor name -> file name, from model.safetensors.index.json.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const FileOpener& open,
                                                             const std::string& path) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(open, path));
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return BadIndex(path, "no object weight_map");
  }
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string()) return BadIndex(path, absl::StrCat("weight_map.", name, " is not a file name"));
    const std::string value = file.get<std::string>();
    if (value.empty() || value.find('/') != std::string::npos || value == "." || value == "..") {
      return BadIndex(path, absl::StrCat("weight_map.", name, " leaves the folder: ", value));
    }
    files[name] = value;
  }
  return files;
}

}  // namespace

absl::StatusOr<UniqueFd> OpenAnyFile(const std::string& path, int flags) {
  const int never_waits = (flags & O_PATH) == 0 ? O_NONBLOCK : 0;  // for the other end of a named pipe
  UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | never_waits));
  if (fd.valid()) return fd;
  const bool absent = errno == ENOENT || errno == ENOTDIR;
  return MakeError(absent ? absl::StatusCode::kNotFound : absl::StatusCode::kFailedPrecondition,
                   reason::kStorage, absl::StrCat("cannot open ", path, ": ", strerror(errno)));
}

absl::Status Checkpoint::AddFile(const FileOpener& open, const std::string& path,
                                 const std::map<std::string, std::string>* wanted,
                                 const std::string& file_name) {
  SEQPAR_ASSIGN_OR_RETURN(UniqueFd fd, open(path, O_RDONLY));
  auto header = ReadSafetensorsHeader(fd.get());
  if (!header.ok()) return Annotate(header.status(), path);
  files_.push_back(path);
  const auto belongs = [&](const std::string& name) {
    if (wanted == nullptr) return true;
    const auto it = wanted->find(name);
    return it != wanted->end() && it->second == file_name;
  };
  for (auto& [name, info] : header->tensors) {
    if (belongs(name)) tensors_[name] = TensorLocation{path, std::move(info)};
  }
  for (const auto& [name, dtype] : header->other_dtypes) {
    if (belongs(name)) other_dtypes_[name] = dtype;
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& path, const FileOpener& open) {
  Checkpoint result;
  SEQPAR_ASSIGN_OR_RETURN(const UniqueFd what, open(path, O_PATH));
  struct stat st;
  if (fstat(what.get(), &st) != 0) {
    return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                     absl::StrCat(path, ": ", strerror(errno)));
  }
  if (!S_ISDIR(st.st_mode)) {
    SEQPAR_RETURN_IF_ERROR(result.AddFile(open, path, nullptr, ""));
    return result;
  }
  const std::string config = path + "/config.json";
  SEQPAR_ASSIGN_OR_RETURN(const bool has_config, Exists(open, config));
  if (has_config) {
    SEQPAR_ASSIGN_OR_RETURN(result.config_json_, ReadSmallFile(open, config));
    result.files_.push_back(config);
  }
  const std::string index = path + "/model.safetensors.index.json";
  const std::string single = path + "/model.safetensors";
  SEQPAR_ASSIGN_OR_RETURN(const bool has_index, Exists(open, index));
  if (!has_index) {
    SEQPAR_ASSIGN_OR_RETURN(const bool has_single, Exists(open, single));
    if (!has_single) {
      return MakeError(
          absl::StatusCode::kNotFound, reason::kNotFound,
          absl::StrCat(path, ": neither model.safetensors nor model.safetensors.index.json is in it"));
    }
    SEQPAR_RETURN_IF_ERROR(result.AddFile(open, single, nullptr, ""));
    return result;
  }
  SEQPAR_ASSIGN_OR_RETURN(const auto wanted, ReadIndex(open, index));
  result.files_.push_back(index);
  std::set<std::string> names;
  for (const auto& [name, file] : wanted) names.insert(file);
  for (const std::string& name : names) {
    SEQPAR_RETURN_IF_ERROR(result.AddFile(open, absl::StrCat(path, "/", name), &wanted, name));
  }
  for (const auto& [name, file] : wanted) {
    if (result.Find(name) == nullptr && result.other_dtypes_.count(name) == 0) {
      return BadIndex(index, absl::StrCat("weight_map.", name, ": ", file, " has no such tensor"));
    }
  }
  return result;
}

const TensorLocation* Checkpoint::Find(const std::string& name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace seqpar
