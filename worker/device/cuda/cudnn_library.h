// cuDNN, opened at run time: no program of ours links it, so that a Python wheel's library serves as well.
// Its functions are called by their own names (cudnn.h): cudnn_library.cc defines them and hands each call
// on.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_LIBRARY_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_LIBRARY_H_

#include "absl/status/status.h"

namespace seqpar::cuda {

// Opens SEQPAR_CUDNN_LIBRARY where that is set, else libcudnn.so.9; once a process. UNAVAILABLE where it is
// missing or older than 9.19, with the version that is needed. Thread-safe. None of its functions may be
// called before this was OK.
absl::Status OpenCudnn();

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_LIBRARY_H_
