#include "common/rpc/channel.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <map>

namespace seqpar {
namespace {

// Puts the token on each call. Runs on gRPC's own threads, which may wait for a file.
class TokenPlugin : public grpc::MetadataCredentialsPlugin {
 public:
  explicit TokenPlugin(const ClientTls& tls) : tls_(tls) {}

  grpc::Status GetMetadata(grpc::string_ref, grpc::string_ref, const grpc::AuthContext&,
                           std::multimap<grpc::string, grpc::string>* metadata) override {
    const absl::StatusOr<std::string> token = ReadToken(tls_);
    if (!token.ok()) return {grpc::StatusCode::UNAUTHENTICATED, std::string(token.status().message())};
    metadata->emplace("authorization", "Bearer " + *token);
    return grpc::Status::OK;
  }

 private:
  const ClientTls tls_;
};

std::shared_ptr<grpc::ChannelCredentials> TlsOf(const ClientTls& tls) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  if (!tls.ca_file.empty() || !tls.cert_file.empty()) {
    options.set_certificate_provider(std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
        tls.key_file, tls.cert_file, tls.ca_file, kTlsRefreshSeconds));
  }
  if (!tls.ca_file.empty()) options.watch_root_certs();
  if (!tls.cert_file.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& server, const ClientTls& tls,
                                           grpc::ChannelArguments arguments) {
  if (!tls.enabled()) return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
  if (!tls.server_name.empty()) arguments.SetSslTargetNameOverride(tls.server_name);
  std::shared_ptr<grpc::ChannelCredentials> credentials = TlsOf(tls);
  if (tls.has_token()) {
    credentials = grpc::CompositeChannelCredentials(
        credentials, grpc::MetadataCredentialsFromPlugin(std::make_unique<TokenPlugin>(tls)));
  }
  return grpc::CreateCustomChannel(server, credentials, arguments);
}

void WaitOutFailure(grpc::Channel& channel, std::chrono::duration<double> limit,
                    const std::function<bool()>& stop) {
  using Clock = std::chrono::steady_clock;
  constexpr Clock::duration kLook = std::chrono::milliseconds(100);
  if (channel.GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_TRANSIENT_FAILURE) return;
  const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(limit);
  for (auto now = Clock::now(); now < end && !(stop && stop()); now = Clock::now()) {
    if (channel.WaitForConnected(std::chrono::system_clock::now() + std::min(end - now, kLook))) return;
  }
}

}  // namespace seqpar
