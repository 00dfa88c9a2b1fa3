#include "client/cli/output.h"

#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/check.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

std::string Hint(const absl::Status& status, const std::string& server) {
  if (status.code() == absl::StatusCode::kUnavailable && ReasonOf(status).empty() && !server.empty()) {
    if (absl::StrContains(status.message(), "handshake")) {
      return "Is --tls-ca the authority of its certificate, and the host that was dialled, or "
             "--tls-server-name, "
             "a name in it?\n";
    }
    return absl::StrCat("Is a coordinator running at ", server,
                        "? `seqpar local up` starts one here; --server or SEQPAR_SERVER names another.\n");
  }
  if (const int seconds = RetrySecondsOf(status); seconds > 0) {
    return absl::StrCat("It may be taken in ", seconds, " s.\n");
  }
  return "";
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  SEQPAR_CHECK(status.ok());
  if (json.empty() || json.back() != '\n') json += '\n';
  return json;
}

std::string Printable(const std::string& text, const std::string& kept) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte == 0xc2 && next >= 0x80 && next <= 0x9f) {  // U+0080 to U+009f are controls too: CSI is one
      absl::StrAppendFormat(&printable, "\\u%04x", next);
      ++i;
    } else if (!absl::ascii_iscntrl(byte) || kept.find(c) != std::string::npos) {
      printable += c;
    } else {
      absl::StrAppendFormat(&printable, "\\x%02x", byte);
    }
  }
  return printable;
}

std::string RenderError(const absl::Status& status, const std::string& server) {
  const std::vector<Violation> violations = ViolationsOf(status);
  const std::string why = ReasonOf(status);
  const std::string code = why.empty() ? absl::StatusCodeToString(status.code()) : why;
  if (violations.empty()) {
    return Printable(
        absl::StrCat("seqpar: ", std::string(status.message()), " [", code, "]\n", Hint(status, server)));
  }
  std::string text = absl::StrCat("seqpar: ", violations.size(),
                                  violations.size() == 1 ? " violation [" : " violations [", code, "]\n");
  for (const Violation& v : violations) {
    absl::StrAppend(&text, "  ", v.field.empty() ? "" : absl::StrCat(v.field, ": "), v.description,
                    v.nearest.empty() ? "" : absl::StrCat("; nearest: ", v.nearest), "\n");
  }
  return Printable(text);
}

void PrintError(const absl::Status& status, const CliConfig& config) {
  const std::string text = config.output == OutputFormat::kJson ? ToJson(StatusToProto(status))
                                                                : RenderError(status, config.server);
  std::fputs(text.c_str(), stderr);
}

void PrintOut(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);  // whole, whatever is in it
  std::fflush(stdout);
}

void PrintNote(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

}  // namespace seqpar
