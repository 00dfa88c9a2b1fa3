#include "common/comm/communicator.h"

#include "common/base/check.h"
#include "common/comm/spans.h"

namespace seqpar {

const char* OperationName(Operation op) {
  switch (op) {
    case Operation::kTensorAttention:
      return "tensor_attention";
    case Operation::kTensorMlp:
      return "tensor_mlp";
    case Operation::kUlysses:
      return "ulysses";
    case Operation::kRing:
      return "ring";
    case Operation::kGather:
      return "gather";
    case Operation::kWeightGradients:
      return "weight_gradients";
    case Operation::kVerify:
      return "verify";
    case Operation::kControl:
      return "control";
  }
  SEQPAR_CHECK(false);
}

const char* PassName(Pass pass) { return pass == Pass::kForward ? "forward" : "backward"; }

void TrafficCounter::Add(const TrafficKey& key, int64_t bytes, int64_t messages) {
  MutexLock lock(mutex_);
  Traffic& traffic = counts_[key];
  traffic.bytes += bytes;
  traffic.messages += messages;
}

std::map<TrafficKey, Traffic> TrafficCounter::Snapshot() const {
  MutexLock lock(mutex_);
  return counts_;
}

int64_t Transfer::bytes() const { return TotalBytes(spans); }

}  // namespace seqpar
