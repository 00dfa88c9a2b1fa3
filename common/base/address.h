// Network addresses as flags have them: "HOST:PORT".
#ifndef SEQPAR_COMMON_BASE_ADDRESS_H_
#define SEQPAR_COMMON_BASE_ADDRESS_H_

#include <string>

namespace seqpar {

// True where the host of "HOST:PORT" is this machine's loopback by name ("localhost", 127.0.0.0/8, ::1):
// nothing is looked up.
bool IsLoopback(const std::string& address);

// What is wrong with an address that somebody gave, and the nearest that can be one; "" where nothing is.
// With `port_needed` as one to listen on. `usual` is the address that is taken where none is given. Other
// forms that gRPC knows ("unix:/run/seqpar", "dns:///head:7700") are taken as they are.
std::string AddressFault(const std::string& address, const std::string& usual, bool port_needed);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_ADDRESS_H_
