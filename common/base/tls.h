// What TLS is told, on either side, and the checks that say in words what is wrong with it before a handshake
// does in numbers. The handshakes themselves are gRPC's (common/rpc/channel.h, coordinator/api/call_gate.h).
#ifndef SEQPAR_COMMON_BASE_TLS_H_
#define SEQPAR_COMMON_BASE_TLS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// All files are PEM. They are read again while the process runs: replaced ones count within
// kTlsRefreshSeconds.
inline constexpr int kTlsRefreshSeconds = 1;

struct ServerTls {
  std::string cert_file, key_file;   // the server's own; empty: no TLS
  std::string client_ca_file;        // signs certificates of clients; empty: none is asked for
  bool require_client_cert = false;  // mutual TLS for everybody, not only for those who show a certificate
  bool enabled() const { return !cert_file.empty(); }
};

struct ClientTls {
  bool wanted = false;              // TLS though no file says so: the system's authorities are believed
  std::string ca_file;              // signs the server's certificate; empty: the system's authorities
  std::string cert_file, key_file;  // shown to the server; empty: none
  std::string server_name;  // that the server's certificate must have; empty: the host that is dialled
  std::string token_file;   // the user's or worker's token, read again at each call
  std::string token;        // the same from the environment; empty: none
  bool enabled() const { return wanted || !ca_file.empty() || !cert_file.empty() || !key_file.empty(); }
  bool has_token() const { return !token_file.empty() || !token.empty(); }
};

// INVALID_ARGUMENT, naming the flag, for a certificate without its key or the reverse, a file that cannot be
// read or is no PEM, a key that has a passphrase or does not belong to the certificate, and a certificate
// whose time is over or has not come at `wall_us`. A key that other users can read is warned of. Without TLS:
// whatever needs it is refused, so that nothing is sent in the clear by mistake.
absl::Status CheckTls(const ServerTls& tls, int64_t wall_us);
absl::Status CheckTls(const ClientTls& tls, int64_t wall_us);

// From when until when the first certificate of a PEM file counts, in microseconds since the epoch.
struct CertificateTimes {
  int64_t begin_us = 0, end_us = 0;
};
absl::StatusOr<CertificateTimes> ReadCertificateTimes(const std::string& cert_file);
// The same of its text. INVALID_ARGUMENT where it has no certificate in PEM.
absl::StatusOr<CertificateTimes> CertificateTimesOf(const std::string& pem);

// The token to send now: of the file, without the white space around it, or of the environment.
// INVALID_ARGUMENT for a file that cannot be read and for a token of other characters than HTTP allows there
// (visible ASCII).
absl::StatusOr<std::string> ReadToken(const ClientTls& tls);

// SHA-256 in lower-case hexadecimal.
std::string Sha256Hex(const std::string& bytes);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_TLS_H_
