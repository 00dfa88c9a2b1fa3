// What one core can do at best.
#ifndef SEQPAR_WORKER_DEVICE_CPU_PEAK_H_
#define SEQPAR_WORKER_DEVICE_CPU_PEAK_H_

namespace seqpar {

// float32 flops per second of one thread, by its CPU time: fused multiply-adds on registers, with the widest
// vectors that the processor has (a multiplication and an addition where it cannot fuse them). The best of
// several runs that together take `seconds`.
double MeasureFmaPeak(double seconds);

// CPU time of the calling thread, in seconds.
double ThreadCpuSeconds();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_PEAK_H_
