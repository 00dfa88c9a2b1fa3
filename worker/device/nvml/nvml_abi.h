// The part of NVML's binary interface that is used here, so that it can be built where no CUDA toolkit is.
// Source: NVML API Reference Guide (docs.nvidia.com/deploy/nvml-api), structures and functions of these
// names.
#ifndef SEQPAR_WORKER_DEVICE_NVML_NVML_ABI_H_
#define SEQPAR_WORKER_DEVICE_NVML_NVML_ABI_H_

extern "C" {

// NOLINTBEGIN(modernize-use-using)
typedef struct nvmlDevice_st* nvmlDevice_t;
typedef int nvmlReturn_t;
// NOLINTEND(modernize-use-using)

constexpr nvmlReturn_t NVML_SUCCESS = 0;
constexpr nvmlReturn_t NVML_ERROR_NOT_SUPPORTED = 3;
constexpr nvmlReturn_t NVML_ERROR_NOT_FOUND = 6;
constexpr nvmlReturn_t NVML_ERROR_INSUFFICIENT_SIZE = 7;

struct nvmlMemory_t {
  unsigned long long total, free, used;
};

struct nvmlPciInfo_t {
  char busIdLegacy[16];
  unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
  char busId[32];
};

// nvmlProcessInfo_v2_t
struct nvmlProcessInfo_t {
  unsigned int pid;
  unsigned long long usedGpuMemory;  // all ones: not known
  unsigned int gpuInstanceId, computeInstanceId;
};

constexpr unsigned int NVML_NVLINK_MAX_LINKS = 18;
constexpr int NVML_NVLINK_DEVICE_TYPE_GPU = 0;
constexpr int NVML_NVLINK_DEVICE_TYPE_SWITCH = 2;

}  // extern "C"

#endif  // SEQPAR_WORKER_DEVICE_NVML_NVML_ABI_H_
