// Reads YAML (and so JSON) into any message by walking its descriptor: field names as in the .proto, enum
// values short and in lower case, everything unknown or of the wrong kind refused, all of it in one answer.
#ifndef SEQPAR_CLIENT_CLI_YAML_PROTO_H_
#define SEQPAR_CLIENT_CLI_YAML_PROTO_H_

#include <google/protobuf/message.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/status.h"

namespace seqpar {

struct YamlOptions {
  // Fields of the outermost message from this number on are set by the service and refused in a file; 0:
  // none.
  int first_output_only_field = 0;
  // Full message name -> the field that a scalar stands for: `parallelism: ring` is {strategy: ring}.
  std::map<std::string, std::string> scalar_shorthand;
};

// Fills `message` (which it clears first) from the one document in `text`, then applies `assignments` in
// order. What cannot be read is left out of it; where the text is no document at all, everything is, and a
// violation has no field.
//
// An assignment is "path=value": names joined by dots ("config.num_hidden_layers=2", "labels.team=a"), the
// value any YAML; it replaces what the file says, lists and sub-messages whole, and an empty value puts the
// field back to its default.
//
// INVALID_ARGUMENT (`reason`) with every violation at once: the field's path, what is wrong with the line in
// parentheses, and the nearest name or value. Refused are: text that is not YAML, several documents, keys
// given twice, unknown and output-only fields, both members of a oneof, a value of the wrong kind, integers
// that are out of range or not whole, numbers that are not finite or quoted, and fields without a value.
absl::Status ParseYaml(const std::string& text, const std::vector<std::string>& assignments,
                       const YamlOptions& options, const char* reason, google::protobuf::Message* message);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_YAML_PROTO_H_
