#include "coordinator/api/grpc_status.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr size_t kMessageBytesMax = 1500;
constexpr size_t kDetailsBytesMax = 4000;  // a third more in base64

// With the message cut on a character's boundary.
std::string Shortened(std::string message) {
  if (message.size() <= kMessageBytesMax) return message;
  size_t end = kMessageBytesMax;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xc0) == 0x80) --end;
  return message.substr(0, end) + "...";
}

google::rpc::Status Details(const absl::Status& status) {
  google::rpc::Status details = StatusToProto(status);
  details.set_message(Shortened(details.message()));
  return details;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  absl::Status told = status;
  if (ReasonOf(status).empty()) {
    told = MakeError(status.code(), absl::StatusCodeToString(status.code()).c_str(),
                     std::string(status.message()));
  }
  google::rpc::Status details = Details(told);
  std::vector<Violation> violations = ViolationsOf(told);
  const size_t all = violations.size();
  while (details.ByteSizeLong() > kDetailsBytesMax && violations.size() > 1) {
    violations.pop_back();
    absl::Status fewer = InvalidInput(ReasonOf(told).c_str(), violations);
    details =
        Details(Annotate(fewer, absl::StrCat("the first ", violations.size(), " of ", all, " violations")));
  }
  return grpc::Status(static_cast<grpc::StatusCode>(told.code()), details.message(),
                      details.SerializeAsString());
}

}  // namespace seqpar
