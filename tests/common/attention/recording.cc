#include "tests/common/attention/recording.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

class RecordedEvent : public Event::State {
 public:
  explicit RecordedEvent(StreamClock clock) : clock(std::move(clock)) {}
  const StreamClock clock;
};

class RecordingCommunicator : public Communicator {
 public:
  RecordingCommunicator(Recording* recording, int rank, int size)
      : recording_(recording), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& name() const override { return name_; }
  void SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends,
                std::vector<Transfer> recvs) override {
    recording_->Add(RecordedOperation::Kind::kExchange, s, Spans(sends), Spans(recvs));
  }

  void AllGather(Stream& s, TrafficKey key, const void* send, const std::vector<int64_t>& bytes,
                 void* recv) override {
    SEQPAR_CHECK(false);
  }
  void AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                std::vector<std::vector<Span>> recvs) override {
    recording_->Add(RecordedOperation::Kind::kExchange, s, Flat(sends), Flat(recvs));
  }
  void ReduceScatter(Stream& s, TrafficKey key, const Matrix& in, const std::vector<int64_t>& rows,
                     const Matrix& out) override {
    SEQPAR_CHECK(false);
  }
  void AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) override { SEQPAR_CHECK(false); }
  void Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) override {
    SEQPAR_CHECK(false);
  }
  void Barrier(Stream& s) override { SEQPAR_CHECK(false); }
  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override {
    return absl::UnimplementedError("a recording has one group");
  }
  void Abort(const absl::Status& why) override {}
  CommProgress progress() const override { return {}; }

 private:
  static std::vector<Span> Spans(const std::vector<Transfer>& transfers) {
    std::vector<std::vector<Span>> all;
    for (const Transfer& transfer : transfers) all.push_back(transfer.spans);
    return Flat(all);
  }
  static std::vector<Span> Flat(const std::vector<std::vector<Span>>& all) {
    std::vector<Span> spans;
    for (const std::vector<Span>& some : all) spans.insert(spans.end(), some.begin(), some.end());
    return spans;
  }

  Recording* const recording_;
  const int rank_, size_;
  const std::string name_ = "recorded";
};

}  // namespace

class RecordingStream : public Stream {
 public:
  explicit RecordingStream(Recording* recording) : clock_(recording->clocks_[this]) {}

  Event Record() override { return Event(std::make_shared<RecordedEvent>(clock_)); }
  void Wait(const Event& event) override {
    if (event.state() == nullptr) return;
    for (const auto& [stream, happened] : static_cast<RecordedEvent&>(*event.state()).clock) {
      clock_[stream] = std::max(clock_[stream], happened);
    }
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::Status status() const override { return absl::OkStatus(); }
  void Fail(const absl::Status& why) override { SEQPAR_CHECK(false); }
  StreamTimes times() const override { return {}; }

 private:
  void Host(std::function<absl::Status()>, WorkKind) override {}

  StreamClock& clock_;
};

std::unique_ptr<Stream> Recording::MakeStream() { return std::make_unique<RecordingStream>(this); }

std::unique_ptr<Communicator> Recording::MakeCommunicator(int rank, int size) {
  return std::make_unique<RecordingCommunicator>(this, rank, size);
}

void Recording::Add(RecordedOperation::Kind kind, const Stream& stream, std::vector<Span> reads,
                    std::vector<Span> writes) {
  StreamClock& clock = clocks_[&stream];
  const int64_t place = clock[&stream];
  operations_.push_back({kind, &stream, place, std::move(reads), std::move(writes), clock});
  clock[&stream] = place + 1;
}

bool Recording::Before(const RecordedOperation& a, const RecordedOperation& b) {
  const auto happened = b.before.find(a.stream);
  return happened != b.before.end() && happened->second > a.place;
}

bool Overlap(const std::vector<Span>& a, const std::vector<Span>& b) {
  for (const Span& x : a) {
    for (const Span& y : b) {
      const char* const x_begin = static_cast<const char*>(x.data);
      const char* const y_begin = static_cast<const char*>(y.data);
      if (x_begin < y_begin + y.bytes && y_begin < x_begin + x.bytes) return true;
    }
  }
  return false;
}

}  // namespace seqpar
