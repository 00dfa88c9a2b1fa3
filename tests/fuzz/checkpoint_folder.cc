// The JSON files of a Hugging Face checkpoint folder: config.json held against a job, and the index of the
// weights.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "common/tensor/checkpoint.h"
#include "coordinator/validate/config_json.h"
#include "coordinator/validate/violations.h"

namespace seqpar {
namespace {

// A file that is only in memory.
absl::StatusOr<UniqueFd> InMemory(const std::string& text) {
  UniqueFd file(memfd_create("fuzz", MFD_CLOEXEC));
  if (file.get() < 0 || write(file.get(), text.data(), text.size()) < 0)
    return absl::InternalError("memfd_create");
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

void Check(const std::string& text) {
  JobSpec job;
  job.config.hidden_size = 64;
  job.config.heads = 4;
  job.config.kv_heads = 2;
  job.config.head_dim = 16;
  job.config.intermediate_size = 96;
  job.config.layers = 2;
  job.config.rope_theta = 10000;
  Violations violations;
  CheckConfigJson(job, text, &violations);
  // The folder is any that exists; every file of it has the text as its content, but for the one of weights.
  const auto open = [&text](const std::string& path, int) -> absl::StatusOr<UniqueFd> {
    if (path == "/") return OpenAnyFile(path, O_RDONLY | O_DIRECTORY);
    if (absl::EndsWith(path, "/model.safetensors")) return absl::NotFoundError(path);
    return InMemory(text);
  };
  Checkpoint::Open("/", open).status().IgnoreError();
  Checkpoint::Open("/x.safetensors", open).status().IgnoreError();
}

}  // namespace
}  // namespace seqpar

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  seqpar::Check(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
