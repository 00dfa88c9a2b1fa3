// The layer in front of every service of the server, health and reflection too: over TLS each call is
// identified and held against the table of rules before anything of it is looked at.
#ifndef SEQPAR_COORDINATOR_API_CALL_GATE_H_
#define SEQPAR_COORDINATOR_API_CALL_GATE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/tls.h"
#include "coordinator/auth/audit_log.h"
#include "coordinator/auth/authenticator.h"
#include "coordinator/auth/caller.h"

namespace grpc {
class ServerContextBase;
class ServerCredentials;
}  // namespace grpc

namespace seqpar {

// Whether whoever opened a stream might still do so; UNAUTHENTICATED once they might not. A stream that stays
// open asks now and then: the gate looks at calls only when they come. Thread-safe; outlives the call, not
// the gate.
using Standing = std::function<absl::Status()>;

// Thread-safe.
class CallGate {
 public:
  // `authenticator` null: everybody may do everything (in the clear, on loopback). Both outlive the gate,
  // which outlives the server.
  CallGate(const Authenticator* authenticator, AuditLog* audit)
      : authenticator_(authenticator), audit_(audit) {}

  // What the server listens with. REQUIRES: CheckTls(tls) was OK; tls.enabled() exactly where there is an
  // authenticator.
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const ServerTls& tls) const;

  // Who makes a call that was let in. UNAUTHENTICATED where their token was taken back meanwhile.
  absl::StatusOr<Caller> CallerOf(const grpc::ServerContextBase& context) const;

  // Of a stream that `caller` has opened.
  Standing StandingOf(const grpc::ServerContextBase& context, const Caller& caller) const;

  AuditLog* audit() const { return audit_; }

 private:
  const Authenticator* const authenticator_;
  AuditLog* const audit_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_CALL_GATE_H_
