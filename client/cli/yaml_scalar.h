// One YAML scalar into one field of a message, or what is wrong with it.
#ifndef SEQPAR_CLIENT_CLI_YAML_SCALAR_H_
#define SEQPAR_CLIENT_CLI_YAML_SCALAR_H_

#include <google/protobuf/message.h>
#include <yaml-cpp/yaml.h>

#include <string>

namespace seqpar {

struct ScalarProblem {
  std::string description;
  std::string nearest;
};

// Sets `field`, or appends to it where it is repeated. False, with the problem, where the node does not fit;
// the message is then unchanged. REQUIRES: `field` is no message.
bool WriteScalar(const YAML::Node& node, const google::protobuf::FieldDescriptor* field,
                 google::protobuf::Message* message, ScalarProblem* problem);

// "a list", "a mapping", "nothing", "'text'".
std::string DescribeNode(const YAML::Node& node);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_YAML_SCALAR_H_
