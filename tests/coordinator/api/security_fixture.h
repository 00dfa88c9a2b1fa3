// A coordinator over TLS with users of two tenants, and a clock that stands still.
#ifndef SEQPAR_TESTS_COORDINATOR_API_SECURITY_FIXTURE_H_
#define SEQPAR_TESTS_COORDINATOR_API_SECURITY_FIXTURE_H_

#include <grpcpp/security/credentials.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "common/base/tls.h"
#include "tests/coordinator/api/coordinator_fixture.h"
#include "tests/support/test_certificates.h"

namespace seqpar {

inline std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class SecurityTest : public CoordinatorTest {
 protected:
  void SetUp() override {
    certificates_.Issue("server", "DNS:localhost,IP:127.0.0.1");
    certificates_.Issue("node", "URI:seqpar://node/a");
    std::ofstream(certificates_.Path("tokens"))
        << Token("root", "operator", "tenant=ops") << Token("sam", "operator", "")
        << Token("ann", "submitter", "tenant=search") << Token("vic", "viewer", "tenant=search")
        << Token("bob", "submitter", "tenant=vision") << Token("rack", "worker", "node=a");
    credentials_ = As("ann");
    CoordinatorTest::SetUp();
  }

  void Configure(CoordinatorConfig* config) override {
    config->tls = {certificates_.Cert("server"), certificates_.Key("server"), certificates_.Ca(), false};
    config->tokens_file = certificates_.Path("tokens");
    config->audit_log = folder_ / "audit";
    config->data_roots = {{"search/data", folder_.path()}};
  }

  // A token is its owner's name, which is long enough for a test.
  static std::string Token(const std::string& name, const std::string& role, const std::string& more) {
    return "name=" + name + " role=" + role + " " + more + " expires=2030-01-01 sha256=" + Sha256Hex(name) +
           "\n";
  }
  // Who shows a token, a certificate, both or neither.
  std::shared_ptr<grpc::ChannelCredentials> As(const std::string& token,
                                               const std::string& certificate = "") const {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ReadAll(certificates_.Ca());
    if (!certificate.empty()) {
      options.pem_cert_chain = ReadAll(certificates_.Cert(certificate));
      options.pem_private_key = ReadAll(certificates_.Key(certificate));
    }
    std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::SslCredentials(options);
    if (token.empty()) return credentials;
    return grpc::CompositeChannelCredentials(credentials, grpc::AccessTokenCredentials(token));
  }
  std::unique_ptr<v1::JobService::Stub> JobsAs(const std::string& token) const {
    return v1::JobService::NewStub(grpc::CreateChannel(server_->address(), As(token)));
  }
  std::unique_ptr<v1::ClusterService::Stub> ClusterAs(const std::string& token) const {
    return v1::ClusterService::NewStub(grpc::CreateChannel(server_->address(), As(token)));
  }

  TestCertificates certificates_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_API_SECURITY_FIXTURE_H_
