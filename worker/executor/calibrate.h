// The measuring process of one slot.
#ifndef SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_
#define SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_

namespace seqpar {

// `seqpar-worker calibrate --threads N`: measures a CPU device of N threads and prints its rates as one JSON
// object, in the words of DeviceRates. Returns the exit code.
int CalibrateMain(int argc, char** argv);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_CALIBRATE_H_
