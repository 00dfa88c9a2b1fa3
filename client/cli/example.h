// Example jobs: a commented job file, and tensors that go with it.
#ifndef SEQPAR_CLIENT_CLI_EXAMPLE_H_
#define SEQPAR_CLIENT_CLI_EXAMPLE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// A commented job file with every field. weights, input, grad_output: "" for a seed, else the path of a file.
struct ExampleOptions {
  std::string name = "example";
  int64_t hidden = 256;
  int64_t tokens = 8192;  // of the input; in the comment where the input is a file
  std::string weights_file;
  std::string input_file;
  std::string grad_output_file;
  std::string output_file = "example-output.safetensors";
};
std::string ExampleJob(const ExampleOptions& options);

// Writes `folder`/job.yaml, weights.safetensors, input.safetensors and grad_output.safetensors: the seeded
// values that the job would have without files, in float32. ALREADY_EXISTS, and nothing is written, where one
// of them is there and not to be overwritten. Returns the path of the job file.
absl::StatusOr<std::string> WriteExample(const std::string& folder, bool overwrite = false);

// Each byte of the file `text` becomes a token: a row of a seeded table of 256 rows. Writes hidden_states [1,
// bytes, hidden] as `folder`/input.safetensors and a job.yaml that reads it. INVALID_ARGUMENT for an empty
// file, ALREADY_EXISTS as above. Returns the path of the job file.
absl::StatusOr<std::string> WriteTextExample(const std::string& text, const std::string& folder,
                                             int64_t hidden, bool overwrite = false);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_EXAMPLE_H_
