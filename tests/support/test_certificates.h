// Certificates made by openssl for a test: an authority of its own, and leaves with any names and any time.
#ifndef SEQPAR_TESTS_SUPPORT_TEST_CERTIFICATES_H_
#define SEQPAR_TESTS_SUPPORT_TEST_CERTIFICATES_H_

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "tests/support/temp_folder.h"

namespace seqpar {

class TestCertificates {
 public:
  TestCertificates() {
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=test authority' "
        "-keyout ca.key "
        "-out ca.crt");
    std::ofstream(folder_ / "config") << "[ca]\ndefault_ca=it\n[it]\nnew_certs_dir=.\ndatabase=index\nrand_"
                                         "serial=yes\ndefault_md=sha256\npolicy=any\n"
                                         "unique_subject=no\n[any]\ncommonName=supplied\n";
  }

  std::string Ca() const { return folder_ / "ca.crt"; }
  std::string Cert(const std::string& name) const { return folder_ / (name + ".crt"); }
  std::string Key(const std::string& name) const { return folder_ / (name + ".key"); }
  std::string Path(const std::string& name) const { return folder_ / name; }

  // Makes NAME.crt and NAME.key; `names` as in subjectAltName; years as "1970", each from its first day.
  void Issue(const std::string& name, const std::string& names, const std::string& from = "1970",
             const std::string& to = "2049") {
    std::ofstream(folder_ / "extensions") << "subjectAltName=" << names << "\n";
    std::ofstream(folder_ / "index");
    Run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " + name +
        ".key -out " + name + ".csr");
    Run("ca -batch -notext -config config -cert ca.crt -keyfile ca.key -in " + name + ".csr -out " + name +
        ".crt -extfile extensions -startdate " + from + "0101000000Z -enddate " + to + "0101000000Z");
  }
  // Any other command of openssl, in the folder.
  void Run(const std::string& arguments) const {
    const std::string command = "cd " + folder_.path() + " && openssl " + arguments + " >>log 2>&1";
    if (std::system(command.c_str()) == 0) return;
    std::ostringstream log;
    log << std::ifstream(folder_ / "log").rdbuf();
    throw std::runtime_error("openssl " + arguments + ": " + log.str());
  }

 private:
  TempFolder folder_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_TEST_CERTIFICATES_H_
