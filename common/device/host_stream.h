// A CPU stream: a FIFO queue on a thread of its own.
#ifndef SEQPAR_COMMON_DEVICE_HOST_STREAM_H_
#define SEQPAR_COMMON_DEVICE_HOST_STREAM_H_

#include <memory>
#include <string>

#include "common/device/stream.h"

namespace seqpar {

// `name` is the thread's name (15 characters). Used by the CPU device and by host communicators.
std::unique_ptr<Stream> MakeHostStream(const std::string& name);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_HOST_STREAM_H_
