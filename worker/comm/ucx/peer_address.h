// What a rank tells the others in the bootstrap, as bytes.
#ifndef SEQPAR_WORKER_COMM_UCX_PEER_ADDRESS_H_
#define SEQPAR_WORKER_COMM_UCX_PEER_ADDRESS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace seqpar {

// A process, such that two ranks can tell whether they may watch each other.
struct ProcessIdentity {
  std::string machine;  // boot id, namespaces of processes and time: equal where ids and starts mean the same
  int64_t pid = 0;
  int64_t start_ticks = 0;  // tells apart processes that had the same id

  static ProcessIdentity Self();
};

// Start of process `pid` in clock ticks since boot; -1 where there is none.
int64_t ProcessStartTicks(int64_t pid);

struct PeerAddress {
  std::string version;    // of UCX
  std::string interface;  // "tcp,posix on eth0": for people
  ProcessIdentity process;
  std::string address;  // UCX's own

  std::string Serialize() const;
  // FAILED_PRECONDITION, reason BOOTSTRAP_MISMATCH, where the bytes are no such address.
  static absl::StatusOr<PeerAddress> Parse(const std::string& blob);
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_PEER_ADDRESS_H_
