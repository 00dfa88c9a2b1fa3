#include "common/comm/named_communicator.h"

#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace seqpar {
namespace {

// Names what is enqueued on a stream while it lives.
class Naming {
 public:
  Naming(Stream& s, const char* name) : stream_(s) { stream_.Name(name); }
  Naming(Stream& s, const TrafficKey& key) : Naming(s, OperationName(key.operation)) {}
  ~Naming() { stream_.Name(nullptr); }
  Naming(const Naming&) = delete;
  Naming& operator=(const Naming&) = delete;

 private:
  Stream& stream_;
};

class NamedCommunicator : public Communicator {
 public:
  explicit NamedCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }

  void SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends,
                std::vector<Transfer> recvs) override {
    const Naming naming(s, key);
    inner_->SendRecv(s, key, std::move(sends), std::move(recvs));
  }
  void AllGather(Stream& s, TrafficKey key, const void* send, const std::vector<int64_t>& bytes,
                 void* recv) override {
    const Naming naming(s, key);
    inner_->AllGather(s, key, send, bytes, recv);
  }
  void AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                std::vector<std::vector<Span>> recvs) override {
    const Naming naming(s, key);
    inner_->AllToAll(s, key, std::move(sends), std::move(recvs));
  }
  void ReduceScatter(Stream& s, TrafficKey key, const Matrix& in, const std::vector<int64_t>& rows,
                     const Matrix& out) override {
    const Naming naming(s, key);
    inner_->ReduceScatter(s, key, in, rows, out);
  }
  void AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) override {
    const Naming naming(s, key);
    inner_->AllReduce(s, key, data, count);
  }
  void Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) override {
    const Naming naming(s, key);
    inner_->Broadcast(s, key, root, data, bytes);
  }
  void Barrier(Stream& s) override {
    const Naming naming(s, "barrier");
    inner_->Barrier(s);
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override {
    SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> group, inner_->Split(color, key, name));
    if (group == nullptr) return group;
    return MakeNamedCommunicator(std::move(group));
  }
  void Abort(const absl::Status& why) override { inner_->Abort(why); }
  CommProgress progress() const override { return inner_->progress(); }

 private:
  const std::unique_ptr<Communicator> inner_;
};

}  // namespace

std::unique_ptr<Communicator> MakeNamedCommunicator(std::unique_ptr<Communicator> inner) {
  return std::make_unique<NamedCommunicator>(std::move(inner));
}

}  // namespace seqpar
