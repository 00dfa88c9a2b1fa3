// Reads what processes of a release said to each other: tests/skew/exchanges.py says how the files look.
#ifndef SEQPAR_TESTS_SKEW_EXCHANGE_FILE_H_
#define SEQPAR_TESTS_SKEW_EXCHANGE_FILE_H_

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace seqpar {

struct Exchanged {
  std::string type;   // full name of the message
  std::string text;   // what it means, in protobuf's text format
  std::string bytes;  // as the release sent it
  int line = 0;       // where it begins in its file
};

inline std::vector<Exchanged> ReadExchanges(const std::string& path) {
  std::vector<Exchanged> messages;
  std::ifstream file(path);
  std::string line;
  bool bytes = false;
  for (int number = 1; std::getline(file, line); ++number) {
    if (absl::StartsWith(line, "message ")) {
      messages.push_back({line.substr(8), "", "", number});
      bytes = false;
    } else if (line == "bytes") {
      bytes = true;
    } else if (line.empty() || line[0] == '#' || messages.empty()) {
      continue;
    } else if (bytes) {
      messages.back().bytes += absl::HexStringToBytes(std::string(absl::StripAsciiWhitespace(line)));
    } else {
      absl::StrAppend(&messages.back().text, line, "\n");
    }
  }
  return messages;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SKEW_EXCHANGE_FILE_H_
