#include "coordinator/fleet/fleet_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "coordinator/api/stream_writer.h"
#include "coordinator/fleet/faulty_link.h"
#include "coordinator/fleet/hello.h"
#include "coordinator/fleet/incarnations.h"
#include "coordinator/fleet/version_rule.h"
#include "seqpar/v1/fleet.grpc.pb.h"

namespace seqpar {
namespace {

// One call of Attach. Reads go straight to the engine; writes queue up.
class AttachStream : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
 public:
  class Link : public NodeLink {
   public:
    explicit Link(AttachStream* stream) : writer(stream) {}

    void Send(v1::CoordinatorMessage message) override { writer.Write(std::move(message)); }
    void Close(const absl::Status& why) override { writer.Finish(why); }

    StreamWriter<AttachStream, v1::CoordinatorMessage> writer;
  };

  // `context` is that of the call: it lives as long as the stream.
  AttachStream(grpc::CallbackServerContext* context, Engine* engine, const CallGate* gate, int64_t number)
      : context_(context),
        engine_(engine),
        gate_(gate),
        number_(number),
        link_(std::make_shared<Link>(this)) {}
  Link* link() const { return link_.get(); }
  void Begin(Caller caller, Standing standing) {
    caller_ = std::move(caller);
    standing_ = std::move(standing);
    StartRead(&message_);
  }

  // For its writer. A status would wait behind what is not read; so all that is under way fails, and
  // OnReadDone says so.
  void Break(const absl::Status& why) {
    LogWarning("a worker does not read what it is sent: its stream is broken",
               {{"from", context_->peer()}, {"error", why.message()}});
    context_->TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (!node_.empty()) engine_->OnBroken(node_, number_);
      return link_->Close(absl::OkStatus());
    }
    lost_ = lost_ || IsLost(message_);
    if (lost_) {
      link_->Close(absl::UnavailableError("a message was lost (failpoint)"));
    } else if (!node_.empty()) {
      // Each heartbeat is asked for, so that a token which ends takes its worker with it within one.
      absl::Status taken = message_.has_heartbeat() ? standing_() : absl::OkStatus();
      if (taken.ok()) taken = engine_->OnMessage(node_, number_, std::move(message_));
      if (!taken.ok()) {
        engine_->OnBroken(node_, number_);
        return link_->Close(taken);
      }
    } else if (message_.has_hello() && IsNodeName(message_.hello().node())) {
      const absl::Status admitted = Admit(message_.hello());
      if (!admitted.ok()) return link_->Close(admitted);
      const absl::Status taken =
          engine_->OnHello(message_.hello(), number_, FailpointsOn() ? MakeFaultyLink(link_) : link_);
      if (!taken.ok()) return link_->Close(taken);
      node_ = message_.hello().node();
    } else {
      return link_->Close(InvalidInput(
          reason::kInvalidArgument,
          {{"hello.node",
            "a worker's first message is a Hello with a name of letters, digits, '-', '_' and '.'", ""}}));
    }
    message_.Clear();
    StartRead(&message_);
  }
  void OnWriteDone(bool ok) override { link_->writer.OnWriteDone(ok); }
  void OnCancel() override { link_->Close(absl::CancelledError("the stream broke")); }
  void OnDone() override {
    link_->writer.OnDone();
    delete this;
  }

  // Of all streams: which daemons have attached. Before it begins.
  void Judge(Incarnations* by) { incarnations_ = by; }

 private:
  // Whoever may attach may not attach as anybody, with any version, nor where another has taken its place. A
  // worker that is refused for one of the last two asks again and again: that is no line of the audit log.
  absl::Status Admit(const v1::Hello& hello) const {
    const std::string& node = hello.node();
    absl::Status admitted;
    if (!caller_.MayAttachAs(node)) {
      admitted =
          MakeError(absl::StatusCode::kPermissionDenied, reason::kPermissionDenied,
                    absl::StrCat(caller_.name, " may attach as node ", caller_.node, ", not as ", node));
    } else {
      SEQPAR_RETURN_IF_ERROR(ServesWorker(VersionRule(), node, hello.version()));
      SEQPAR_RETURN_IF_ERROR(CheckHello(hello));
      SEQPAR_RETURN_IF_ERROR(incarnations_->Admit(node, hello.incarnation(), [this](const std::string& name) {
        return engine_->LeasesLeft().count(name) != 0;
      }));
    }
    gate_->audit()->Changed(caller_, "/seqpar.v1.FleetService/Attach", node, "", admitted);
    return admitted;
  }

  grpc::CallbackServerContext* const context_;
  Engine* const engine_;
  const CallGate* const gate_;
  Incarnations* incarnations_ = nullptr;
  const int64_t number_;
  const std::shared_ptr<Link> link_;
  Caller caller_;
  Standing standing_;
  std::string node_;   // from its Hello
  bool lost_ = false;  // a message was, so nothing that follows it counts (failpoints)
  v1::WorkerMessage message_;
};

}  // namespace

class FleetServiceEdge::Impl : public v1::FleetService::CallbackService {
 public:
  Impl(Engine* engine, const CallGate* gate) : engine_(engine), gate_(gate) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Attach(
      grpc::CallbackServerContext* context) override {
    auto* stream = new AttachStream(context, engine_, gate_, next_stream_++);
    absl::StatusOr<Caller> caller = gate_->CallerOf(*context);
    stream->Judge(&incarnations_);
    if (refuse_) {
      stream->link()->Close(absl::UnavailableError("the coordinator is shutting down"));
    } else if (!caller.ok()) {
      stream->link()->Close(caller.status());
    } else {
      Standing standing = gate_->StandingOf(*context, *caller);
      stream->Begin(*std::move(caller), std::move(standing));
    }
    return stream;
  }

  void Refuse() { refuse_ = true; }

 private:
  Engine* const engine_;
  const CallGate* const gate_;
  Incarnations incarnations_;
  std::atomic<int64_t> next_stream_{1};
  std::atomic<bool> refuse_{false};
};

FleetServiceEdge::FleetServiceEdge(Engine* engine, const CallGate* gate)
    : impl_(std::make_unique<Impl>(engine, gate)) {}
FleetServiceEdge::~FleetServiceEdge() = default;
grpc::Service* FleetServiceEdge::service() const { return impl_.get(); }
void FleetServiceEdge::RefuseStreams() { impl_->Refuse(); }

}  // namespace seqpar
