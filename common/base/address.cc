#include "common/base/address.h"

#include <arpa/inet.h>

#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace seqpar {

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]" || host == "::1") return true;
  in_addr v4;
  return inet_pton(AF_INET, host.c_str(), &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

std::string AddressFault(const std::string& address, const std::string& usual, bool port_needed) {
  if (address.empty()) return absl::StrCat("is empty; must be HOST:PORT; nearest: ", usual);
  for (const char* scheme : {"unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::StartsWith(address, scheme)) return "";
  }
  const size_t colon = address.rfind(':');
  const std::string usual_port = usual.substr(usual.rfind(':'));
  if (colon == std::string::npos || absl::EndsWith(address, "]")) {
    if (!port_needed) return "";
    return absl::StrCat("is '", address, "'; must be HOST:PORT; nearest: ", address, usual_port);
  }
  // Without brackets it may be that of IPv6, without a port.
  const bool bare = address.find(':') != colon && address[colon - 1] != ']';
  uint32_t port = 0;
  if (bare || (absl::SimpleAtoi(address.substr(colon + 1), &port) && port <= UINT16_MAX)) return "";
  return absl::StrCat("is '", address, "'; the port must be 0 to 65535; nearest: ", address.substr(0, colon),
                      usual_port);
}

}  // namespace seqpar
