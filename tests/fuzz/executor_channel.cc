// The bytes on the channel between a daemon and an executor, and what the executor makes of the messages in
// them.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "common/job/proto.h"
#include "seqpar/v1/executor.pb.h"
#include "tests/fuzz/message_target.h"
#include "worker/executor/channel.h"

namespace seqpar {
namespace {

constexpr int64_t kTokensMax = 1 << 20;  // a plan's tokens are counted one by one

bool IsSmall(const v1::Plan& plan) {
  int64_t end = 0;
  for (const v1::RankPlan& rank : plan.ranks()) {
    for (const v1::Segment& segment : rank.segments()) end = std::max(end, segment.end());
  }
  return end <= kTokensMax;
}

void Receive(const v1::ToExecutor& message) {
  const absl::StatusOr<std::string> frame = EncodeFrame(message);
  if (!frame.ok()) return;
  // Cut where it is easy to get wrong, and with a second one behind it that is damaged in its length.
  FrameDecoder decoder;
  std::string bytes = *frame + *frame;
  bytes[frame->size()] = static_cast<char>(bytes[frame->size()] ^ 0x15);
  const size_t cut = frame->size() % 7;
  decoder.Feed(bytes.data(), cut);
  decoder.Next().status().IgnoreError();
  decoder.Feed(bytes.data() + cut, bytes.size() - cut);
  v1::ToExecutor read;
  for (absl::StatusOr<std::optional<std::string>> next = decoder.Next(); next.ok() && next->has_value();
       next = decoder.Next()) {
    if (!read.ParseFromString(**next)) continue;
    StatusFromProto(read.abort().reason()).IgnoreError();
    if (!read.has_run() || !IsSmall(read.run().start().plan())) continue;
    JobFromProto(read.run().start().job());
    DeviceFromProto(read.run().device());
    PlanFromProto(read.run().start().plan()).status().IgnoreError();
  }
}

}  // namespace
}  // namespace seqpar

SEQPAR_FUZZ_MESSAGE(seqpar::v1::ToExecutor, seqpar::Receive)
