// The process that looks at a node's GPUs: the daemon itself touches no device.
#ifndef SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_
#define SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_

namespace seqpar {

// `seqpar-worker probe-gpus`: one line on stdout, a v1.NodeSpec as JSON with every GPU, what of its memory is
// free and what it can do, in the order of CUDA's ordinals; or, with exit code 1, one line on stderr that
// says what is missing.
int ProbeGpusMain();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_
