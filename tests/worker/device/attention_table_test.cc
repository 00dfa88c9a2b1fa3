// Each kernel that attention_table.h names, by itself, where this machine has a card and the build the kernel
// for it; what is skipped says why.
#include "worker/device/cuda/attention_table.h"

#include <cstdlib>

#include "tests/devices/mirror_device.h"
#include "tests/worker/device/attention_fixture.h"
#include "worker/backend/cuda_plugin.h"
#include "worker/device/cuda/cuda_device.h"

namespace seqpar {
namespace {

using cuda::AttentionKernel;

class AttentionTableTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    const auto plugin = OpenCudaPlugin();
    if (!plugin.ok()) GTEST_SKIP() << name_ << ": " << plugin.status().message();
    const auto gpus = (*plugin)->list();
    if (!gpus.ok() || gpus->empty()) GTEST_SKIP() << name_ << ": no GPU on this machine";
    const int capability = gpus->front().compute_capability;
    if (!cuda::IsForCapability(kernel_, capability)) {
      GTEST_SKIP() << name_ << ": not for this GPU, of compute capability " << capability / 10.0;
    }
    BackendConfig config;
    config.kind = "cuda";
    setenv(kCudaAttentionVariable, name_.c_str(), 1);
    auto made = MakeCudaBackend(config);
    unsetenv(kCudaAttentionVariable);
    ASSERT_TRUE(made.ok()) << made.status();
    backend_ = std::move(made).value();
    device_ = MakeMirrorDevice(std::shared_ptr<Device>(backend_->device(), [](Device*) {}), "cuda");
  }

  void Check(const AttentionCase& c, const std::vector<int64_t>& cuts) {
    SCOPED_TRACE(c.ToString());
    const AttentionInputs in(c);
    const AttentionResult oracle = Oracle(c, in);
    const AttentionResult result = RunOn(*device_, c, in, oracle, cuts);
    ExpectClose(result, RunOn(*MakeDevice("scalar"), c, in, oracle, cuts), oracle, RoundingOf(*device_, c),
                3);
  }

  const AttentionKernel kernel_ = static_cast<AttentionKernel>(GetParam());
  const std::string name_ = cuda::AttentionKernelName(kernel_);
  std::unique_ptr<RankBackend> backend_;
  std::unique_ptr<Device> device_;
};

TEST_P(AttentionTableTest, IsAttention) {
  for (const int head_dim : {64, 96, 128}) {
    AttentionCase c;
    c.dtype = DType::kBF16;
    c.head_dim = head_dim;
    c.queries = c.keys = 419;
    c.batch = 2;
    c.group = 2;
    c.heads = MakeHeadRange(0, 4, 2);
    SetFull(&c);
    Check(c, {130, 300});
    if (device_->attention_use().kernel.find(name_) == std::string::npos) {
      GTEST_SKIP() << name_ << ": not in this build, or its library not on this machine";
    }
    SetCausal(&c);
    Check(c, {130, 300});
    SetWindow(&c, 150, 60);
    Check(c, {130, 300});
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionTableTest, testing::Range(0, cuda::kAttentionKernels),
                         [](const auto& info) {
                           return std::string(
                               cuda::AttentionKernelName(static_cast<AttentionKernel>(info.param)));
                         });

}  // namespace
}  // namespace seqpar
