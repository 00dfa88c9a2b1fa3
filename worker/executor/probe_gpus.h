// The process that looks at a node's GPUs: the daemon itself touches no device, and a card that hangs whoever
// asks it hangs a process that can be killed.
#ifndef SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_
#define SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_

namespace seqpar {

// `seqpar-worker probe-gpus`: one line on stdout, a v1.NodeSpec as JSON with every GPU in the order of CUDA's
// ordinals: its kind and name, what of its memory a rank may use, and what NVML says of it. Without NVML what
// only it knows is left out, and a line on stderr says why.
// `seqpar-worker probe-gpus --memory`: one line on stdout, a v1.GpuMemoryReport as JSON; CUDA is not touched.
// Exit code 1, with one line on stderr that says what is missing; 2 for anything else.
int ProbeGpusMain(int argc, char** argv);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_PROBE_GPUS_H_
