// A channel to the coordinator: in the clear, or over TLS with a certificate and a token.
#ifndef SEQPAR_COMMON_RPC_CHANNEL_H_
#define SEQPAR_COMMON_RPC_CHANNEL_H_

#include <chrono>
#include <functional>
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

// For before a call on a channel that may have failed to connect: where it has, waits until it is connected,
// for `limit` at most; else returns at once. gRPC goes on with a connection only while somebody waits for
// something, and a call on a channel that has failed to connect fails at once: left to such calls a
// connection over TLS, which takes several round trips, would never be made again. Without one the call then
// says why. `stop`, asked every tenth of a second: true to wait no longer.
void WaitOutFailure(grpc::Channel& channel, std::chrono::duration<double> limit,
                    const std::function<bool()>& stop = nullptr);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_RPC_CHANNEL_H_
