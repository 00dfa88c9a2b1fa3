#include "common/comm/communicator.h"

#include "common/base/check.h"
#include "common/comm/spans.h"

namespace seqpar {
namespace {

void Accumulate(const Traffic& traffic, Traffic* sum) {
  sum->bytes += traffic.bytes;
  sum->messages += traffic.messages;
}

}  // namespace

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

const char* LinkName(Link link) { return link == Link::kLocal ? "local" : "network"; }

void TrafficCounter::Add(const TrafficKey& key, int peer, int64_t bytes, int64_t messages) {
  const Link link = peer < 0 ? Link::kNetwork : links_.empty() ? Link::kLocal : links_.at(peer);
  MutexLock lock(mutex_);
  Accumulate({bytes, messages}, &counts_[{key, link}]);
}

std::map<TrafficKey, Traffic> TrafficCounter::Snapshot() const {
  MutexLock lock(mutex_);
  std::map<TrafficKey, Traffic> sums;
  for (const auto& [key, traffic] : counts_) Accumulate(traffic, &sums[key.first]);
  return sums;
}

std::map<std::pair<Operation, Link>, Traffic> TrafficCounter::ByLink() const {
  MutexLock lock(mutex_);
  std::map<std::pair<Operation, Link>, Traffic> sums;
  for (const auto& [key, traffic] : counts_) Accumulate(traffic, &sums[{key.first.operation, key.second}]);
  return sums;
}

int64_t Transfer::bytes() const { return TotalBytes(spans); }

}  // namespace seqpar
