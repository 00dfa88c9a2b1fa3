// Network addresses as flags have them: "HOST:PORT".
#ifndef SEQPAR_COMMON_BASE_ADDRESS_H_
#define SEQPAR_COMMON_BASE_ADDRESS_H_

#include <string>

namespace seqpar {

// True where the host of "HOST:PORT" is this machine's loopback by name ("localhost", 127.0.0.0/8, ::1):
// nothing is looked up.
bool IsLoopback(const std::string& address);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_ADDRESS_H_
