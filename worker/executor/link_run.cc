#include "worker/executor/link_run.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/comm/measure_link.h"
#include "common/job/proto.h"
#include "worker/executor/bootstrap.h"

namespace seqpar {
namespace {

// Of the messages: small enough for links of a few Mbit/s, and for devices with little memory.
constexpr int64_t kFromBytes = 256 << 10;
constexpr int64_t kMemoryPart = 8;

LinkEffort EffortOf(const v1::MeasureLink& what, int64_t memory_bytes) {
  LinkEffort effort;
  effort.from_bytes = kFromBytes;
  if (memory_bytes > 0) {
    effort.to_bytes = std::clamp(memory_bytes / kMemoryPart, effort.from_bytes, effort.to_bytes);
  }
  effort.seconds = what.seconds();
  return effort;
}

}  // namespace

absl::StatusOr<v1::RankEvent> RunLinkRank(const RankContext& context) {
  const v1::Run& run = *context.run;
  const v1::MeasureLink& what = run.start().measure_link();
  const auto enter = [&context](JobPhase phase) {
    context.trace->EnterPhase(phase);
    context.progress->Enter(phase);
  };
  enter(JobPhase::kBootstrap);
  if (what.ranks() < 2 || context.rank < 0 || context.rank >= what.ranks()) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     "a link is measured by at least two ranks");
  }
  // The ranks before and after this one are on the other node.
  std::vector<Link> links;
  for (int rank = 0; rank < what.ranks(); ++rank) {
    links.push_back((rank - context.rank) % 2 == 0 ? Link::kLocal : Link::kNetwork);
  }
  SEQPAR_ASSIGN_OR_RETURN(RankRuntime runtime,
                          ConnectWorld(context, BackendConfigOf(run), std::move(links), nullptr));

  enter(JobPhase::kExecute);
  SEQPAR_ASSIGN_OR_RETURN(const MeasuredLink link,
                          MeasureLink(*runtime.device, *runtime.world, *runtime.compute, *runtime.comm,
                                      EffortOf(what, run.device().memory_bytes())));
  // No rank leaves while another may still wait for its messages.
  runtime.world->Barrier(*runtime.comm);
  SEQPAR_RETURN_IF_ERROR(runtime.Synchronize());

  v1::RankEvent event;
  event.set_kind(v1::RankEvent::FINISHED);
  event.set_phase(v1::JOB_PHASE_REPORT);
  *event.mutable_link() = LinkToProto({link.latency, link.bandwidth});
  return event;
}

}  // namespace seqpar
