// A device whose memory is the host's and whose kernels run on another device: every call copies its operands
// there, waits, and copies the results back. So tests that look into memory, guard its ends and watch its
// gaps run over any device as they are.
#ifndef SEQPAR_TESTS_DEVICES_MIRROR_DEVICE_H_
#define SEQPAR_TESTS_DEVICES_MIRROR_DEVICE_H_

#include <memory>
#include <string>

#include "common/device/device.h"

namespace seqpar {

// `kernel`: what it says in info(), by which tests choose it.
std::unique_ptr<Device> MakeMirrorDevice(std::shared_ptr<Device> device, const std::string& kernel);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_DEVICES_MIRROR_DEVICE_H_
