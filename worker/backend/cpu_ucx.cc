#include "worker/backend/cpu_ucx.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/comm/exchange_communicator.h"
#include "worker/comm/ucx/ucx_endpoint.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

class CpuUcxBackend : public RankBackend {
 public:
  CpuUcxBackend(std::unique_ptr<Device> device, std::unique_ptr<UcxWorker> worker)
      : device_(std::move(device)), worker_(std::move(worker)) {}

  Device* device() override { return device_.get(); }
  absl::StatusOr<std::string> Blob(int) override { return worker_->AddressBlob(); }
  // UCX connects with the first messages: nothing to wait for.
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(int rank, const std::vector<std::string>& blobs,
                                                        std::chrono::milliseconds,
                                                        TrafficCounter* traffic) override {
    SEQPAR_ASSIGN_OR_RETURN(std::shared_ptr<Endpoint> endpoint, worker_->Connect(rank, blobs));
    return MakeExchangeCommunicator(std::move(endpoint), device_.get(), traffic);
  }
  std::string Describe() const override { return worker_->Describe(); }

 private:
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<UcxWorker> worker_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCpuUcxBackend(const BackendConfig& config) {
  CpuDeviceConfig device_config;
  device_config.threads = std::max(1, config.threads);
  device_config.memory_bytes = config.memory_bytes;
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, MakeCpuDevice(device_config));
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<UcxWorker> worker, UcxWorker::Create({}));
  return std::unique_ptr<RankBackend>(std::make_unique<CpuUcxBackend>(std::move(device), std::move(worker)));
}

}  // namespace seqpar
