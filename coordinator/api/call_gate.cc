#include "coordinator/api/call_gate.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <string>

#include "common/base/status.h"
#include "common/base/tls.h"

namespace seqpar {
namespace {

using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

std::string Text(const grpc::string_ref& ref) { return std::string(ref.data(), ref.size()); }

// Nothing where the header is there twice: which of the two counts is not for us to guess.
std::string Header(const Metadata& metadata, const char* name) {
  return metadata.count(name) == 1 ? Text(metadata.find(name)->second) : std::string();
}

Credentials CredentialsOf(const Metadata& metadata, const grpc::AuthContext* connection) {
  Credentials credentials;
  credentials.authorization = Header(metadata, "authorization");
  if (connection == nullptr) return credentials;
  for (const grpc::string_ref& uri : connection->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    credentials.certificate_uris.push_back(Text(uri));
  }
  if (credentials.certificate_uris.empty() || !credentials.authorization.empty()) return credentials;
  for (const grpc::string_ref& pem : connection->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME)) {
    const absl::StatusOr<CertificateTimes> times = CertificateTimesOf(Text(pem));
    credentials.certificate_end_us = times.ok() ? times->end_us : 0;
  }
  return credentials;
}

// gRPC asks it about each call of each service, also of methods that do not exist, before the call is made.
// Its answer has no details, so reason and code are one word. It must not wait.
class Doorkeeper : public grpc::AuthMetadataProcessor {
 public:
  Doorkeeper(const Authenticator* authenticator, AuditLog* audit)
      : authenticator_(authenticator), audit_(audit) {}

  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* connection, OutputMetadata*,
                       OutputMetadata*) override {
    const std::string method = Header(metadata, ":path");
    const absl::Status admitted = authenticator_->Admit(method, CredentialsOf(metadata, connection));
    if (admitted.ok()) return grpc::Status::OK;
    audit_->Refused(method, admitted);
    return {static_cast<grpc::StatusCode>(admitted.code()), std::string(admitted.message())};
  }

 private:
  const Authenticator* const authenticator_;
  AuditLog* const audit_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> CallGate::MakeCredentials(const ServerTls& tls) const {
  if (authenticator_ == nullptr) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          tls.key_file, tls.cert_file, tls.client_ca_file, kTlsRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (!tls.client_ca_file.empty()) {
    options.watch_root_certs();
    options.set_cert_request_type(tls.require_client_cert
                                      ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                      : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::experimental::TlsServerCredentials(options);
  credentials->SetAuthMetadataProcessor(std::make_shared<Doorkeeper>(authenticator_, audit_));
  return credentials;
}

absl::StatusOr<Caller> CallGate::CallerOf(const grpc::ServerContextBase& context) const {
  Caller caller = AnyCaller();
  if (authenticator_ != nullptr) {
    const std::shared_ptr<const grpc::AuthContext> connection = context.auth_context();
    SEQPAR_ASSIGN_OR_RETURN(
        caller, authenticator_->Identify(CredentialsOf(context.client_metadata(), connection.get())));
  }
  caller.peer = context.peer();
  return caller;
}

Standing CallGate::StandingOf(const grpc::ServerContextBase& context, const Caller& caller) const {
  if (authenticator_ == nullptr) return [] { return absl::OkStatus(); };
  return [authenticator = authenticator_, caller,
          credentials = CredentialsOf(context.client_metadata(), context.auth_context().get())] {
    return authenticator->Confirm(credentials, caller);
  };
}

}  // namespace seqpar
