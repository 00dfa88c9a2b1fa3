// The measuring process of one device.
#ifndef SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_
#define SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_

namespace seqpar {

// `seqpar-worker calibrate --threads N --slot I --slots S [--by-cpu-time 1] [--gpu ORDINAL]`: measures a CPU
// device of N threads, or a GPU, as device I of S that measure at the same time, and the links between them.
// Lines on stdout: first "blob HEX", this device's part of a bootstrap ("blob -" where it has no transport);
// "connected" when all are; last a v1.NodeSpec as JSON with the device's rates and, where devices are
// connected, the link between them; or, with exit code 1, "error TEXT".
// Reads after the blob, where S > 1, the S blobs by slot from stdin, one a line, or "alone": the rest is not
// connected then. Returns the exit code.
int CalibrateMain(int argc, char** argv);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_
