// The collectives as grouped sends and receives of NCCL; common/comm/collective_layout.h says what each
// sends, nccl_transfers.h how.
#include "worker/comm/nccl/nccl_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/comm/collective_layout.h"
#include "worker/comm/nccl/nccl_family.h"
#include "worker/comm/nccl/nccl_transfers.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/cuda_stream.h"

namespace seqpar {
namespace {

using cuda::CudaStream;

constexpr int64_t kScratchAlignment = 256;
// Larger groups connect as they need it: nobody talks to everybody there.
constexpr int kConnectedGroupMax = 64;

// Whether an exchange is the first, the last or the only one of an operation.
struct Part {
  bool first = true, last = true;
};

class NcclCommunicator : public Communicator {
 public:
  // `world_ranks`: by rank of this group; -1: not known yet.
  NcclCommunicator(NcclGroup group, std::vector<int> world_ranks)
      : group_(std::move(group)),
        world_ranks_(std::move(world_ranks)),
        events_(std::make_shared<cuda::EventPool>(family().ordinal())) {}
  ~NcclCommunicator() override { family().Destroy(group_.comm); }

  int rank() const override { return group_.rank; }
  int size() const override { return group_.size; }
  const std::string& name() const override { return group_.name; }

  void SendRecv(Stream& s, TrafficKey key, std::vector<Transfer> sends,
                std::vector<Transfer> recvs) override {
    Exchange(s, "send_recv", key, {std::move(sends), std::move(recvs)}, {});
  }

  void AllGather(Stream& s, TrafficKey key, const void* send, const std::vector<int64_t>& bytes,
                 void* recv) override {
    SEQPAR_CHECK(static_cast<int>(bytes.size()) == size());
    char* own = static_cast<char*>(recv);
    for (int i = 0; i < rank(); ++i) own += bytes[i];
    if (bytes[rank()] > 0 && send != own) {
      Cuda(s).Enqueue("copy the own block", [&](cudaStream_t stream) {
        return cudaMemcpyAsync(own, send, bytes[rank()], cudaMemcpyDeviceToDevice, stream);
      });
    }
    Exchange(s, "all_gather", key, GatherMessages(rank(), bytes, static_cast<char*>(recv)), {});
  }

  void AllToAll(Stream& s, TrafficKey key, std::vector<std::vector<Span>> sends,
                std::vector<std::vector<Span>> recvs) override {
    SEQPAR_CHECK(static_cast<int>(sends.size()) == size() && static_cast<int>(recvs.size()) == size());
    Cuda(s).EnqueueStatus(
        [&](cudaStream_t stream) { return EnqueueCopy(stream, sends[rank()], recvs[rank()]); });
    Messages messages;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      messages.sends.push_back(Transfer{peer, std::move(sends[peer])});
      messages.recvs.push_back(Transfer{peer, std::move(recvs[peer])});
    }
    Exchange(s, "all_to_all", key, messages, {});
  }

  void ReduceScatter(Stream& s, TrafficKey key, const Matrix& in, const std::vector<int64_t>& rows,
                     const Matrix& out) override {
    SumOwnBlock(s, "reduce_scatter", key, in, rows, out, {});
  }

  void AllReduce(Stream& s, TrafficKey key, float* data, int64_t count) override {
    const std::vector<int64_t> elements = EvenBlocks(count, size());
    std::vector<int64_t> bytes;
    for (int64_t block : elements) bytes.push_back(block * SizeOf(DType::kF32));
    float* own = data;
    for (int i = 0; i < rank(); ++i) own += elements[i];
    SumOwnBlock(s, "all_reduce", key, Matrix(data, DType::kF32, count, 1), elements,
                Matrix(own, DType::kF32, elements[rank()], 1), {true, false});
    Exchange(s, "all_reduce", key, GatherMessages(rank(), bytes, reinterpret_cast<char*>(data)),
             {false, true});
  }

  void Broadcast(Stream& s, TrafficKey key, int root, void* data, int64_t bytes) override {
    Exchange(s, "broadcast", key, BroadcastMessages(rank(), size(), root, data, bytes), {});
  }

  void Barrier(Stream& s) override {
    if (!GrowScratch(s, 2)) return;
    char* tokens = static_cast<char*>(scratch_.data());
    const std::vector<Messages> rounds = BarrierRounds(rank(), size(), tokens, tokens + 1);
    for (const Messages& round : rounds) {
      Exchange(s, "barrier", TrafficKey{}, round, {&round == &rounds.front(), &round == &rounds.back()});
    }
  }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key, const std::string& name) override;

  // NCCL connects two ranks at their first message, and until then a call waits for both: done here, at the
  // bootstrap, where everybody waits anyway and memory that is missing is missed early. What is sent is the
  // rank in the world. Called by every rank of the group.
  absl::Status ConnectPeers() {
    if (size() == 1 || size() > kConnectedGroupMax) return absl::OkStatus();
    const std::unique_ptr<Stream> stream = family().device()->CreateStream("connect");
    const int64_t bytes = size() * static_cast<int64_t>(sizeof(int));
    SEQPAR_ASSIGN_OR_RETURN(const Buffer ranks, family().device()->Allocate(bytes, "connect to peers"));
    int* const data = static_cast<int*>(ranks.data());
    Messages messages;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      messages.sends.push_back(Transfer{peer, {Span{data + rank(), sizeof(int)}}});
      messages.recvs.push_back(Transfer{peer, {Span{data + peer, sizeof(int)}}});
    }
    family().device()->CopyFromHost(*stream, world_ranks_.data(), data, bytes);
    static_cast<CudaStream&>(*stream).EnqueueStatus(
        [&](cudaStream_t handle) { return EnqueueTransfers(group_, handle, "connect", messages); });
    family().device()->CopyToHost(*stream, data, world_ranks_.data(), bytes);
    return stream->Synchronize();
  }

  void Abort(const absl::Status& why) override { family().Abort(why); }

  // After an abort the counts stay as they were last seen before it: kernels that were cut off also "happen".
  CommProgress progress() const override {
    MutexLock lock(progress_mutex_);
    if (!family().over()) {
      const int64_t finished = finished_.done();  // in this order never more finished than entered
      for (; progress_.finished < finished; ++progress_.finished) peers_.pop_front();
      progress_.entered = entered_.done();
      progress_.waiting_for_peer = progress_.entered > finished ? peers_.front() : -1;
    }
    CommProgress progress = progress_;
    progress.group = group_.name;
    return progress;
  }

 private:
  static CudaStream& Cuda(Stream& s) { return static_cast<CudaStream&>(s); }
  NcclFamily& family() const { return *group_.family; }

  // Enqueues all transfers at once. Those of no bytes are not sent.
  void Exchange(Stream& s, const char* verb, TrafficKey key, const Messages& messages, Part part) {
    CudaStream& stream = Cuda(s);
    stream.SetWatch([family = group_.family] { return family->Check(); });
    const absl::Status status = family().Check();
    if (!status.ok()) return stream.Fail(status);
    if (part.first) {
      // Who is waited for cannot be told from outside a kernel: the first that this rank receives from, else
      // sends to.
      const std::vector<Transfer>& first = messages.recvs.empty() ? messages.sends : messages.recvs;
      MutexLock lock(progress_mutex_);
      peers_.push_back(first.empty() ? -1 : first[0].peer);
    }
    if (part.first) Mark(stream, &entered_);
    stream.EnqueueStatus(
        [&](cudaStream_t handle) { return EnqueueTransfers(group_, handle, verb, messages); });
    if (part.last) Mark(stream, &finished_);
    if (family().traffic() == nullptr) return;
    for (const Transfer& send : messages.sends) {
      if (send.bytes() > 0) family().traffic()->Add(key, world_ranks_[send.peer], send.bytes(), 1);
    }
  }

  void Mark(CudaStream& s, cuda::WorkCounter* counter) {
    s.Enqueue("record an event", [&](cudaStream_t stream) {
      std::shared_ptr<CUevent_st> event = events_->Take();
      if (event == nullptr) return cudaErrorMemoryAllocation;
      const cudaError_t error = cudaEventRecord(event.get(), stream);
      if (error == cudaSuccess) counter->Begun(std::move(event));
      return error;
    });
  }

  void SumOwnBlock(Stream& s, const char* verb, TrafficKey key, const Matrix& in,
                   const std::vector<int64_t>& rows, const Matrix& out, Part part) {
    SEQPAR_CHECK(static_cast<int>(rows.size()) == size());
    SEQPAR_CHECK(out.rows == rows[rank()] && out.cols == in.cols);
    if (!GrowScratch(s, SumScratchBytes(rank(), in, rows, kScratchAlignment))) return;
    OwnBlockSum sum = LayOutSum(rank(), in, rows, static_cast<char*>(scratch_.data()), kScratchAlignment);
    Exchange(s, verb, key, sum.messages, {part.first, false});
    EnqueueSum(*family().device(), s, std::move(sum.terms), out);
    if (part.last) Mark(Cuda(s), &finished_);
  }

  // Makes the scratch at least `bytes` long; false where that failed, and with it the stream.
  bool GrowScratch(Stream& s, int64_t bytes) {
    if (bytes <= scratch_.bytes()) return true;
    // What is enqueued may still use the old one.
    absl::Status status = scratch_.bytes() > 0 ? s.Synchronize() : absl::OkStatus();
    if (status.ok()) {
      scratch_ = Buffer();
      absl::StatusOr<Buffer> larger = family().device()->Allocate(std::max<int64_t>(bytes, kScratchAlignment),
                                                                  "contributions to a sum over ranks");
      if (larger.ok()) {
        scratch_ = std::move(larger).value();
        return true;
      }
      status = larger.status();
    }
    s.Fail(status);
    return false;
  }

  const NcclGroup group_;
  std::vector<int> world_ranks_;  // -1: not known
  const std::shared_ptr<cuda::EventPool> events_;
  mutable cuda::WorkCounter entered_, finished_;
  mutable Mutex progress_mutex_;
  mutable CommProgress progress_ ABSL_GUARDED_BY(progress_mutex_);
  mutable std::deque<int> peers_ ABSL_GUARDED_BY(progress_mutex_);  // of each operation that has not finished
  Buffer scratch_;
};

// Communicators of ours, in plan order: never blocking, resources shared within the family.
ncclConfig_t CommConfig() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.splitShare = 1;
  return config;
}

absl::StatusOr<std::unique_ptr<Communicator>> NcclCommunicator::Split(int color, int key,
                                                                      const std::string& name) {
  SEQPAR_RETURN_IF_ERROR(family().Check());
  const NcclLibrary& nccl = family().nccl();
  ncclConfig_t config = CommConfig();
  ncclComm_t child = nullptr;
  const std::string what = absl::StrCat("split group ", name, " from ", group_.name);
  const ncclResult_t result =
      nccl.comm_split(group_.comm, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &child, &config);
  SEQPAR_RETURN_IF_ERROR(family().Settle(group_.comm, result, what.c_str()));
  if (child == nullptr) return std::unique_ptr<Communicator>();
  family().Add(child);
  SEQPAR_RETURN_IF_ERROR(family().Settle(child, ncclInProgress, what.c_str()));
  NcclGroup group{group_.family, child, 0, 0, name};
  SEQPAR_RETURN_IF_ERROR(nccl.ToStatus(nccl.comm_user_rank(child, &group.rank), what.c_str()));
  SEQPAR_RETURN_IF_ERROR(nccl.ToStatus(nccl.comm_count(child, &group.size), what.c_str()));
  std::vector<int> world_ranks(group.size, -1);
  world_ranks[group.rank] = world_ranks_[rank()];
  auto communicator = std::make_unique<NcclCommunicator>(std::move(group), std::move(world_ranks));
  SEQPAR_RETURN_IF_ERROR(communicator->ConnectPeers());
  return std::unique_ptr<Communicator>(std::move(communicator));
}

// --- bootstrap ---

struct BlobHeader {
  char magic[8];
  int32_t version;
  char host[64];
  ncclUniqueId id;  // zeros but for rank 0
};
constexpr char kMagic[8] = {'s', 'p', 'n', 'c', 'c', 'l', '1', 0};

absl::Status Mismatch(int rank, const std::string& what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kBootstrapMismatch,
                   absl::StrCat("the NCCL blob of rank ", rank, " ", what));
}

}  // namespace

absl::StatusOr<std::string> NcclBlob(const NcclLibrary& nccl, int rank) {
  BlobHeader blob{};
  std::memcpy(blob.magic, kMagic, sizeof(kMagic));
  blob.version = nccl.version;
  gethostname(blob.host, sizeof(blob.host) - 1);
  if (rank == 0) SEQPAR_RETURN_IF_ERROR(nccl.ToStatus(nccl.get_unique_id(&blob.id), "make a unique id"));
  return std::string(reinterpret_cast<const char*>(&blob), sizeof(blob));
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclWorld(const NcclLibrary* nccl, const NcclConfig& config,
                                                            Device* device, TrafficCounter* traffic) {
  const int size = static_cast<int>(config.blobs.size());
  SEQPAR_CHECK(config.rank >= 0 && config.rank < size);
  BlobHeader first{};
  for (int rank = 0; rank < size; ++rank) {
    BlobHeader blob;
    if (config.blobs[rank].size() != sizeof(blob)) return Mismatch(rank, "is malformed");
    std::memcpy(&blob, config.blobs[rank].data(), sizeof(blob));
    if (std::memcmp(blob.magic, kMagic, sizeof(kMagic)) != 0) return Mismatch(rank, "is malformed");
    if (blob.version != nccl->version) {
      return Mismatch(rank, absl::StrCat("comes from NCCL ", blob.version, " on ",
                                         std::string(blob.host, strnlen(blob.host, sizeof(blob.host))),
                                         ", this rank has ", nccl->version));
    }
    if (rank == 0) first = blob;
  }
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaSetDevice(config.ordinal), "join the world");
  auto family = std::make_shared<NcclFamily>(nccl, config.ordinal, device, traffic, config.deadline);
  ncclConfig_t comm_config = CommConfig();
  ncclComm_t comm = nullptr;
  const ncclResult_t result = nccl->comm_init_rank_config(&comm, size, first.id, config.rank, &comm_config);
  if (comm != nullptr) family->Add(comm);
  SEQPAR_RETURN_IF_ERROR(family->Settle(comm, result, "join the world"));
  std::vector<int> world_ranks(size);
  std::iota(world_ranks.begin(), world_ranks.end(), 0);
  auto communicator = std::make_unique<NcclCommunicator>(
      NcclGroup{std::move(family), comm, config.rank, size, "world"}, std::move(world_ranks));
  SEQPAR_RETURN_IF_ERROR(communicator->ConnectPeers());
  return std::unique_ptr<Communicator>(std::move(communicator));
}

}  // namespace seqpar
