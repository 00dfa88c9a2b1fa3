// What the commands print: answers to standard output, as a table or as JSON, everything else to standard
// error.
#ifndef SEQPAR_CLIENT_CLI_OUTPUT_H_
#define SEQPAR_CLIENT_CLI_OUTPUT_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"
#include "client/cli/config.h"

namespace seqpar {

// Protobuf's JSON mapping with the field names of the .proto; fields with their default value are left out.
// `pretty` spreads it over lines, with a newline at the end either way.
std::string ToJson(const google::protobuf::Message& message, bool pretty = true);

// As a terminal may be given it: control characters other than those in `kept` become "\x1b" and the like.
// Names of jobs and what ranks print come from others, who must not write to this one's screen.
std::string Printable(const std::string& text, const std::string& kept = "\n\t");

// An error for people: what is wrong, one violation a line with the nearest legal value, the stable reason,
// and what to do about it where that is known ("is the coordinator running?"). `server` is whom was asked, ""
// where nobody was.
std::string RenderError(const absl::Status& status, const std::string& server);

// Prints to standard error: RenderError, or google.rpc.Status as JSON.
void PrintError(const absl::Status& status, const CliConfig& config);

// To standard output, flushed.
void PrintOut(const std::string& text);
// One line to standard error.
void PrintNote(const std::string& text);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_OUTPUT_H_
