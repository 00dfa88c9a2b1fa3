#include "common/base/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <utility>
#include <vector>

#include "tests/support/test_certificates.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNowUs = int64_t{1'800'000'000} * 1'000'000;  // 2027

class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    certificates_ = new TestCertificates();
    certificates_->Issue("a", "DNS:a");
    certificates_->Issue("b", "DNS:b");
    certificates_->Issue("past", "DNS:a", "2020", "2021");
    certificates_->Issue("future", "DNS:a", "2048");
    certificates_->Run("ec -in a.key -aes128 -passout pass:x -out locked.key");
    std::ofstream(certificates_->Path("empty"));
    std::ofstream(certificates_->Path("text")) << "nothing of the kind\n";
    std::ofstream(certificates_->Path("token")) << "  a-token\n";
  }
  static void TearDownTestSuite() { delete certificates_; }
  static std::string Path(const std::string& name) { return name.empty() ? "" : certificates_->Path(name); }
  static ServerTls Server(const std::string& cert, const std::string& key, const std::string& ca = "") {
    return {Path(cert), Path(key), Path(ca), false};
  }
  static std::string Said(const ServerTls& tls) { return std::string(CheckTls(tls, kNowUs).message()); }
  static std::string Said(const ClientTls& tls) { return std::string(CheckTls(tls, kNowUs).message()); }

  static TestCertificates* certificates_;
};
TestCertificates* TlsTest::certificates_ = nullptr;

TEST_F(TlsTest, WhatIsRightPasses) {
  EXPECT_EQ(Said(ServerTls()), "");
  EXPECT_EQ(Said(Server("a.crt", "a.key")), "");
  EXPECT_EQ(Said(Server("a.crt", "a.key", "ca.crt")), "");
  ClientTls client;
  EXPECT_EQ(Said(client), "");
  client.ca_file = Path("ca.crt");
  client.token_file = Path("token");
  EXPECT_EQ(Said(client), "");
  EXPECT_EQ(*ReadToken(client), "a-token");
  client.cert_file = Path("a.crt");
  client.key_file = Path("a.key");
  EXPECT_EQ(Said(client), "");
}

TEST_F(TlsTest, WhatIsWrongIsSaidWithTheFileAndTheFlag) {
  ServerTls demanding;
  demanding.require_client_cert = true;
  const std::vector<std::pair<ServerTls, std::string>> wrong = {
      {Server("a.crt", ""), "a.crt needs its --tls-key"},
      {Server("", "a.key"), "a.key needs its --tls-cert"},
      {Server("absent", "a.key"), "absent cannot be read: No such file"},
      {Server("empty", "a.key"), "empty cannot be read: it is empty"},
      {Server("text", "a.key"), "text has no certificate in PEM"},
      {Server("a.crt", "text"), "text has no private key in PEM"},
      {Server("a.crt", "locked.key"), "locked.key has a passphrase"},
      {Server("a.crt", "b.key"), "b.key does not belong to the certificate in --tls-cert"},
      {Server("past.crt", "past.key"), "past.crt ended at 2021-01-01T00:00:00Z"},
      {Server("future.crt", "future.key"), "future.crt is valid only from 2048-01-01T00:00:00Z"},
      {Server("a.crt", "a.key", "a.key"), "--tls-client-ca"},
      {Server("", "", "ca.crt"), "--tls-client-ca needs --tls-cert"},
      {demanding, "--tls-require-client-cert needs --tls-client-ca"},
  };
  for (const auto& [tls, why] : wrong) {
    EXPECT_THAT(Said(tls), HasSubstr(why));
    EXPECT_EQ(CheckTls(tls, kNowUs).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(TlsTest, ATokenIsOneWordAndNeedsTls) {
  ClientTls tls;
  tls.token = "word";
  EXPECT_THAT(Said(tls), HasSubstr("never sent without TLS"));
  tls.wanted = true;
  EXPECT_EQ(Said(tls), "");
  EXPECT_EQ(*ReadToken(tls), "word");
  for (const char* bad : {"two words", "line\nline", "\x01", "\xc3\xa4"}) {
    tls.token = bad;
    EXPECT_THAT(Said(tls), HasSubstr("one word"));
  }
  tls.token_file = Path("absent");
  EXPECT_THAT(Said(tls), HasSubstr("--token-file"));
  ClientTls named;
  named.server_name = "a";
  EXPECT_THAT(Said(named), HasSubstr("--tls-server-name needs TLS"));
}

TEST_F(TlsTest, TheEndOfACertificateIsKnown) {
  const auto times = ReadCertificateTimes(Path("past.crt"));
  ASSERT_TRUE(times.ok());
  EXPECT_EQ(times->begin_us, int64_t{1'577'836'800} * 1'000'000);
  EXPECT_EQ(times->end_us, int64_t{1'609'459'200} * 1'000'000);
  EXPECT_FALSE(ReadCertificateTimes(Path("text")).ok());
  EXPECT_EQ(CertificateTimesOf("no certificate").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Sha256, IsThatOfTheStandard) {
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace seqpar
