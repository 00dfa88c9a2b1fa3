#include "worker/executor/executor.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "worker/config.h"
#include "worker/executor/blob_inbox.h"
#include "worker/executor/channel.h"
#include "worker/executor/deadline.h"
#include "worker/executor/die_with_parent.h"
#include "worker/executor/link_run.h"
#include "worker/executor/progress.h"
#include "worker/executor/rank_run.h"
#include "worker/executor/trace_recorder.h"

namespace seqpar {
namespace {

// Null: it has none.
const char* FailpointOf(const v1::FromExecutor& message) {
  if (message.has_blob()) return "executor.send.blob";
  if (message.has_progress()) return "executor.send.progress";
  if (!message.has_event()) return nullptr;
  switch (message.event().kind()) {
    case v1::RankEvent::CHECKPOINTED:
      return "executor.send.checkpoint";
    case v1::RankEvent::FINISHED:
      return "executor.send.finished";
    default:
      return "executor.send.failed";
  }
}

// Ends the process without destructors: streams and communicators may be stuck, and nothing of theirs is
// worth waiting for.
[[noreturn]] void ExitNow(int code, const std::string& why) {
  if (!why.empty()) std::fprintf(stderr, "executor ends: %s\n", why.c_str());
  _exit(code);
}

class Session {
 public:
  Session(UniqueFd channel, std::vector<ExecutorHold> holds, std::string failpoints)
      : channel_(std::move(channel)), holds_(std::move(holds)), failpoints_(std::move(failpoints)) {}

  int Run() {
    absl::StatusOr<v1::ToExecutor> first = channel_.Receive();
    if (!first.ok()) ExitNow(kExitOrphaned, std::string(first.status().message()));
    if (!first->has_run() || first->run().start().ranks_size() != 1)
      ExitNow(kExitUsage, "the first message is no Run");
    const v1::Run run = std::move(*first->mutable_run());
    gang_ = run.start().gang();
    rank_ = run.start().ranks(0).rank();
    // For whoever looks at a node's processes; 15 characters are shown.
    prctl(PR_SET_NAME, absl::StrCat("seqpar-rank-", rank_).c_str());
    device_ = absl::StrCat(run.node(), "/", run.start().ranks(0).device());
    const LogContext context(
        {{"job", gang_.job()}, {"attempt", absl::StrCat(gang_.attempt())}, {"rank", absl::StrCat(rank_)}});

    if (!failpoints_.empty()) {
      const absl::Status enabled = EnableFailpoints(
          failpoints_, {FailProcess::kExecutor, run.node(), gang_.job(), gang_.attempt(), rank_});
      if (!enabled.ok()) ExitNow(kExitUsage, std::string(enabled.message()));
    }
    deadline_ = std::make_unique<DeadlineWatch>(&Clock::System(), run.lease_deadline_us(),
                                                [] { ExitNow(kExitLeaseOver, ""); });
    progress_ = std::make_unique<Progress>(holds_, [this](v1::RankProgress sample) {
      v1::FromExecutor message;
      *message.mutable_progress() = std::move(sample);
      *message.mutable_progress()->mutable_gang() = gang_;
      message.mutable_progress()->set_rank(rank_);
      SendOrExit(message);
    });
    trace_ = std::make_unique<TraceRecorder>([this](v1::TraceChunk chunk) {
      chunk.set_attempt(gang_.attempt());
      chunk.set_rank(rank_);
      chunk.set_device(device_);
      v1::FromExecutor message;
      *message.mutable_trace() = std::move(chunk);
      SendOrExit(message);
    });
    std::thread([this] { ReadLoop(); }).detach();  // ends with the process

    const RankContext mine{&run,
                           rank_,
                           progress_.get(),
                           trace_.get(),
                           &blobs_,
                           [this](int layers) { SendCheckpointed(layers); },
                           [this](std::string blob) {
                             v1::FromExecutor message;
                             message.mutable_blob()->set_group("world");
                             message.mutable_blob()->set_data(std::move(blob));
                             SendOrExit(message);
                           }};
    absl::StatusOr<v1::RankEvent> done = run.start().has_measure_link() ? RunLinkRank(mine) : RunRank(mine);
    if (!done.ok()) Fail(done.status(), ReasonOf(done.status()) != reason::kPeerLost);
    ClaimTheEnd();
    SendLast(*std::move(done));
    progress_.reset();
    trace_.reset();
    return kExitFinished;
  }

 private:
  void ReadLoop() {
    while (true) {
      absl::StatusOr<v1::ToExecutor> message = channel_.Receive();
      if (!message.ok()) ExitNow(kExitOrphaned, std::string(message.status().message()));
      if (message->has_lease()) {
        if (HandOverFailpoint("executor.receive.lease").drops_request()) continue;
        deadline_->Extend(message->lease().deadline_us());
      } else if (message->has_blobs()) {
        if (HandOverFailpoint("executor.receive.table").drops_request()) continue;
        blobs_.Put(message->blobs().group(),
                   {message->blobs().blobs().begin(), message->blobs().blobs().end()});
      } else if (message->has_abort()) {
        if (HandOverFailpoint("executor.receive.abort").drops_request()) continue;
        // At once, whatever the other threads are stuck in. The cause is known to whoever sent it.
        const absl::Status why = StatusFromProto(message->abort().reason());
        Fail(MakeError(why.ok() ? absl::StatusCode::kCancelled : why.code(), ReasonOf(why).c_str(),
                       "stopped with its gang"),
             false);
      }
    }
  }

  void SendCheckpointed(int layers) {
    v1::FromExecutor message;
    message.mutable_event()->set_kind(v1::RankEvent::CHECKPOINTED);
    message.mutable_event()->set_layers(layers);
    *message.mutable_event()->mutable_gang() = gang_;
    message.mutable_event()->set_rank(rank_);
    SendOrExit(message);
  }

  void SendOrExit(const v1::FromExecutor& message) {
    std::optional<HandOverFailpoint> point;
    if (const char* name = FailpointOf(message); name != nullptr) point.emplace(name);
    if (point && point->drops_request()) return;
    const absl::Status sent = channel_.Send(message);
    if (!sent.ok()) ExitNow(kExitOrphaned, std::string(sent.message()));
  }

  // Exactly one last event is sent, by whoever comes first. Who comes second waits here for the process to
  // end, and touches nothing that the first may be taking down.
  void ClaimTheEnd() {
    if (!ended_.exchange(true)) return;
    while (true) pause();
  }

  void SendLast(v1::RankEvent event) {
    trace_->Flush();
    v1::FromExecutor message;
    *message.mutable_event() = std::move(event);
    *message.mutable_event()->mutable_gang() = gang_;
    message.mutable_event()->set_rank(rank_);
    SendOrExit(message);
  }

  [[noreturn]] void Fail(const absl::Status& error, bool root_cause) {
    ClaimTheEnd();
    v1::RankEvent event;
    event.set_kind(v1::RankEvent::FAILED);
    *event.mutable_error() = StatusToProto(error);
    event.set_root_cause(root_cause);
    event.set_phase(PhaseToProto(progress_->phase()));
    SendLast(std::move(event));
    ExitNow(kExitFailed, absl::StrCat("in phase ", PhaseName(progress_->phase()), ": ", error.message()));
  }

  ExecutorChannel channel_;
  const std::vector<ExecutorHold> holds_;
  const std::string failpoints_;  // folder; empty: off
  v1::GangId gang_;
  int32_t rank_ = 0;
  std::string device_;
  BlobInbox blobs_;
  std::atomic<bool> ended_{false};
  std::unique_ptr<DeadlineWatch> deadline_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<TraceRecorder> trace_;
};

// Dies with the daemon (by the signal, and by the end of the channel that ReadLoop sees), and lets the
// daemon's other executors read its memory (UCX's CMA) where Yama restricts that.
void TieToDaemon() {
  DieWithParent();
  prctl(PR_SET_PTRACER, getppid());
}

}  // namespace

int ExecutorMain(int argc, char** argv) {
  int channel_fd = -1;
  std::vector<ExecutorHold> holds;
  std::string failpoints;
  for (int i = 0; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    ExecutorHold hold;
    if (flag == "--channel-fd" && absl::SimpleAtoi(value, &channel_fd)) continue;
    if (flag == "--test-failpoints") {
      failpoints = value;
      continue;
    }
    if (flag != "--test-hold" || !ParseExecutorHold(value, &hold))
      ExitNow(kExitUsage, absl::StrCat("flag ", flag));
    holds.push_back(hold);
  }
  if (channel_fd < 0) ExitNow(kExitUsage, "executors are started by the daemon, with --channel-fd");
  TieToDaemon();
  SetupLogging({.component = "executor"});
  // Outlives every thread that may still hold it: the process ends with _exit.
  auto* session = new Session(UniqueFd(channel_fd), std::move(holds), std::move(failpoints));
  const int code = session->Run();
  _exit(code);
}

}  // namespace seqpar
