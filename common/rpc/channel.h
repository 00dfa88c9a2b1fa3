// A channel to the coordinator: in the clear, or over TLS with a certificate and a token.
#ifndef SEQPAR_COMMON_RPC_CHANNEL_H_
#define SEQPAR_COMMON_RPC_CHANNEL_H_

#include <memory>
#include <string>

#include "common/base/tls.h"

namespace grpc {
class Channel;
class ChannelArguments;
}  // namespace grpc

namespace seqpar {

// Connects at the first call. Certificates are read again while the channel lives, the token at each call; a
// token leaves only over TLS, on which gRPC insists too. `arguments` are the caller's own (sizes, back-off).
// REQUIRES: CheckTls(tls) was OK.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& server, const ClientTls& tls,
                                           grpc::ChannelArguments arguments);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_RPC_CHANNEL_H_
