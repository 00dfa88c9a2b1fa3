#include "common/base/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;
using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free)>;

absl::Status Refuse(const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument, message);
}

absl::StatusOr<std::string> ReadFile(const char* flag, const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  if (!in || text.str().empty()) {
    const std::string why = errno != 0 ? std::generic_category().message(errno) : "it is empty";
    return Refuse(absl::StrCat(flag, " ", path, " cannot be read: ", why));
  }
  return text.str();
}

BioPtr Memory(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
}

// Null where there is none.
CertificatePtr ParseCertificate(const std::string& pem) {
  CertificatePtr certificate(PEM_read_bio_X509(Memory(pem).get(), nullptr, nullptr, nullptr), X509_free);
  ERR_clear_error();
  return certificate;
}

absl::StatusOr<CertificatePtr> ReadCertificate(const char* flag, const std::string& path) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string text, ReadFile(flag, path));
  CertificatePtr certificate = ParseCertificate(text);
  if (certificate == nullptr) return Refuse(absl::StrCat(flag, " ", path, " has no certificate in PEM"));
  return certificate;
}

// OpenSSL's own would ask at the terminal.
int NoPassphrase(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<KeyPtr> ReadKey(const char* flag, const std::string& path) {
  SEQPAR_ASSIGN_OR_RETURN(const std::string text, ReadFile(flag, path));
  bool encrypted = false;
  KeyPtr key(PEM_read_bio_PrivateKey(Memory(text).get(), nullptr, NoPassphrase, &encrypted), EVP_PKEY_free);
  ERR_clear_error();
  if (encrypted) return Refuse(absl::StrCat(flag, " ", path, " has a passphrase; it must be one without"));
  if (key == nullptr) return Refuse(absl::StrCat(flag, " ", path, " has no private key in PEM"));
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0) {
    LogWarning("other users can read this private key", {{"file", path}});
  }
  return key;
}

int64_t ToUs(const ASN1_TIME* time) {
  std::tm tm = {};
  SEQPAR_CHECK(ASN1_TIME_to_tm(time, &tm) == 1);  // of a certificate that was parsed
  return static_cast<int64_t>(timegm(&tm)) * 1'000'000;
}

CertificateTimes TimesOf(const X509* certificate) {
  return {ToUs(X509_get0_notBefore(certificate)), ToUs(X509_get0_notAfter(certificate))};
}

std::string TimeText(int64_t us) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixMicros(us), absl::UTCTimeZone());
}

// A certificate and its key: both or neither.
absl::Status CheckPair(const std::string& cert_file, const std::string& key_file, int64_t wall_us) {
  if (cert_file.empty() && key_file.empty()) return absl::OkStatus();
  if (key_file.empty()) return Refuse(absl::StrCat("--tls-cert ", cert_file, " needs its --tls-key"));
  if (cert_file.empty()) return Refuse(absl::StrCat("--tls-key ", key_file, " needs its --tls-cert"));
  SEQPAR_ASSIGN_OR_RETURN(const CertificatePtr certificate, ReadCertificate("--tls-cert", cert_file));
  SEQPAR_ASSIGN_OR_RETURN(const KeyPtr key, ReadKey("--tls-key", key_file));
  const bool matches = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!matches) {
    return Refuse(absl::StrCat("--tls-key ", key_file, " does not belong to the certificate in --tls-cert ",
                               cert_file));
  }
  const CertificateTimes times = TimesOf(certificate.get());
  if (wall_us < times.begin_us) {
    return Refuse(absl::StrCat("--tls-cert ", cert_file, " is valid only from ", TimeText(times.begin_us)));
  }
  if (wall_us >= times.end_us)
    return Refuse(absl::StrCat("--tls-cert ", cert_file, " ended at ", TimeText(times.end_us)));
  return absl::OkStatus();
}

absl::Status CheckAuthority(const char* flag, const std::string& ca_file) {
  if (ca_file.empty()) return absl::OkStatus();
  return ReadCertificate(flag, ca_file).status();
}

}  // namespace

absl::Status CheckTls(const ServerTls& tls, int64_t wall_us) {
  SEQPAR_RETURN_IF_ERROR(CheckPair(tls.cert_file, tls.key_file, wall_us));
  if (!tls.enabled() && !tls.client_ca_file.empty()) {
    return Refuse("--tls-client-ca needs --tls-cert and --tls-key: without TLS nobody shows a certificate");
  }
  if (tls.require_client_cert && tls.client_ca_file.empty()) {
    return Refuse("--tls-require-client-cert needs --tls-client-ca: who signs the certificates of clients");
  }
  return CheckAuthority("--tls-client-ca", tls.client_ca_file);
}

absl::Status CheckTls(const ClientTls& tls, int64_t wall_us) {
  SEQPAR_RETURN_IF_ERROR(CheckPair(tls.cert_file, tls.key_file, wall_us));
  SEQPAR_RETURN_IF_ERROR(CheckAuthority("--tls-ca", tls.ca_file));
  if (!tls.enabled() && tls.has_token()) {
    return Refuse(
        "a token is never sent without TLS: give --tls-ca FILE, or --tls for the system's authorities");
  }
  if (!tls.enabled() && !tls.server_name.empty()) {
    return Refuse("--tls-server-name needs TLS: give --tls-ca FILE, or --tls for the system's authorities");
  }
  return tls.has_token() ? ReadToken(tls).status() : absl::OkStatus();
}

absl::StatusOr<CertificateTimes> ReadCertificateTimes(const std::string& cert_file) {
  SEQPAR_ASSIGN_OR_RETURN(const CertificatePtr certificate, ReadCertificate("certificate", cert_file));
  return TimesOf(certificate.get());
}

absl::StatusOr<CertificateTimes> CertificateTimesOf(const std::string& pem) {
  const CertificatePtr certificate = ParseCertificate(pem);
  if (certificate == nullptr) return Refuse("no certificate in PEM");
  return TimesOf(certificate.get());
}

absl::StatusOr<std::string> ReadToken(const ClientTls& tls) {
  std::string token = tls.token;
  if (!tls.token_file.empty()) {
    SEQPAR_ASSIGN_OR_RETURN(token, ReadFile("--token-file", tls.token_file));
  }
  absl::StripAsciiWhitespace(&token);
  const bool visible =
      std::all_of(token.begin(), token.end(), [](unsigned char c) { return absl::ascii_isgraph(c); });
  if (token.empty() || !visible) {
    return Refuse(absl::StrCat(tls.token_file.empty() ? "the token of the environment" : tls.token_file,
                               " must be one word of visible ASCII characters"));
  }
  return token;
}

std::string Sha256Hex(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  SEQPAR_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text.push_back("0123456789abcdef"[digest[i] >> 4]);
    text.push_back("0123456789abcdef"[digest[i] & 0xf]);
  }
  return text;
}

}  // namespace seqpar
