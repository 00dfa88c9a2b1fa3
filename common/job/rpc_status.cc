#include "common/job/rpc_status.h"

#include "common/job/proto.h"
#include "google/rpc/error_details.pb.h"

namespace seqpar {

absl::Status StatusFromRpc(int code, const std::string& message, const std::string& details) {
  if (code == 0) return absl::OkStatus();
  google::rpc::Status status;
  if (!details.empty() && status.ParseFromString(details)) {
    status.set_code(code);
    status.set_message(message);
    return StatusFromProto(status);
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

}  // namespace seqpar
