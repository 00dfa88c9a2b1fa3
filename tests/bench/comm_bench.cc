// Exchange between two processes beside memcpy on the same machine in the same minute: payload of both
// directions summed, as ratios to two threads that copy; and the time of a small message. CPU time shows what
// waiting costs. All memory is a device's, in huge pages as a job's buffers are.
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/base/check.h"
#include "tests/bench/usage.h"
#include "worker/comm/ucx/ucx_endpoint.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kUsage[] = R"(usage: comm_bench [TRANSPORTS] [REPETITIONS]

Messages between two processes over UCX beside two threads that copy, and the time of a small message.

  TRANSPORTS    UCX_TLS of both [posix,cma,self]
  REPETITIONS   of every size [7]

Example: comm_bench tcp,self 5
)";

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

double CpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// How two processes find each other without a coordinator.
struct Shared {
  char blob[2][8192];
  std::atomic<int> bytes[2];
};

std::shared_ptr<Endpoint> Connect(UcxWorker& worker, Shared* shared, int rank) {
  const std::string own = worker.AddressBlob();
  SEQPAR_CHECK(own.size() <= sizeof(shared->blob[0]));
  std::memcpy(shared->blob[rank], own.data(), own.size());
  shared->bytes[rank] = static_cast<int>(own.size());
  while (shared->bytes[1 - rank] == 0) std::this_thread::yield();
  std::vector<std::string> blobs;
  for (int i = 0; i < 2; ++i) blobs.emplace_back(shared->blob[i], shared->bytes[i]);
  auto endpoint = worker.Connect(rank, blobs);
  SEQPAR_CHECK(endpoint.ok());
  return *endpoint;
}

Buffer NewBuffer(Device& device, int64_t bytes) {
  Buffer buffer = device.Allocate(bytes, "bench").value();
  std::memset(buffer.data(), 1, bytes);
  return buffer;
}

// Two threads that copy `bytes` each, at once.
class Copies {
 public:
  Copies(Device& device, int64_t bytes) : bytes_(bytes) {
    for (Buffer* buffer : {&from_[0], &from_[1], &to_[0], &to_[1]}) *buffer = NewBuffer(device, bytes);
  }
  // Seconds of one copy: of the slower thread, each of `times` in a row.
  double Run(int times) {
    double seconds[2];
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&, t] {
        const Clock::time_point begin = Clock::now();
        char *const from = static_cast<char*>(from_[t].data()), *const to = static_cast<char*>(to_[t].data());
        for (int i = 0; i < times; ++i) {
          std::memcpy(to, from, bytes_);
          from[i % bytes_] = to[0];  // no copy may be left out
        }
        seconds[t] = Seconds(begin) / times;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return std::max(seconds[0], seconds[1]);
  }

 private:
  const int64_t bytes_;
  Buffer from_[2], to_[2];
};

// `spans` pieces of memory with gaps between them, `bytes` in total.
class Pieces {
 public:
  Pieces(Device& device, int peer, int64_t bytes, int spans) {
    const int64_t piece = bytes / spans, stride = piece + (spans > 1 ? 64 : 0);
    memory_ = NewBuffer(device, stride * spans);
    transfer_.peer = peer;
    for (int i = 0; i < spans; ++i) {
      transfer_.spans.push_back(Span{static_cast<char*>(memory_.data()) + i * stride, piece});
    }
  }
  const Transfer& transfer() const { return transfer_; }

 private:
  Buffer memory_;
  Transfer transfer_;
};

void Exchange(Endpoint& endpoint, const std::vector<Transfer>& sends, const std::vector<Transfer>& recvs) {
  std::atomic<int> waiting{-1};
  SEQPAR_CHECK(endpoint.Exchange(0, sends, recvs, &waiting).ok());
}

// Both ranks send and receive at once; rank 0 copies in between, while the other waits.
void MeasureRates(Device& device, Endpoint& endpoint, int64_t bytes, int spans, int repetitions) {
  const int rank = endpoint.world_rank();
  const Pieces out(device, 1 - rank, bytes, spans), in(device, 1 - rank, bytes, spans);
  Copies copies(device, rank == 0 ? bytes : 1);
  const int inner = static_cast<int>(std::clamp<int64_t>((8 << 20) / bytes, 1, 2000));
  std::vector<double> seconds, cpu, of_copies;
  for (int r = 0; r <= repetitions; ++r) {
    Exchange(endpoint, {out.transfer()}, {in.transfer()});
    const Clock::time_point begin = Clock::now();
    const double cpu_begin = CpuSeconds();
    for (int i = 0; i < inner; ++i) Exchange(endpoint, {out.transfer()}, {in.transfer()});
    const double elapsed = Seconds(begin) / inner, cpu_elapsed = (CpuSeconds() - cpu_begin) / inner;
    const double copied = rank == 0 ? copies.Run(inner) : 0;
    if (r == 0) continue;  // connects and touches the memory
    seconds.push_back(elapsed);
    cpu.push_back(cpu_elapsed / elapsed);
    of_copies.push_back(copied / elapsed);
  }
  if (rank != 0) return;
  const double median = Median(seconds);
  std::printf("%10lld %6d %12.2f %10.2f %11.2f %11.2f %11.2f\n", static_cast<long long>(bytes), spans,
              median * 1e6, 2 * static_cast<double>(bytes) / median / 1e9, Median(of_copies),
              *std::max_element(of_copies.begin(), of_copies.end()), Median(cpu));
}

// 8 bytes, both ranks on core 0: whoever waits must let the other run.
void MeasureSharedCore(Device& device, Endpoint& endpoint, int repetitions) {
  cpu_set_t all, core;
  sched_getaffinity(0, sizeof(all), &all);
  CPU_ZERO(&core);
  CPU_SET(0, &core);
  sched_setaffinity(0, sizeof(core), &core);
  const int rank = endpoint.world_rank();
  const Pieces out(device, 1 - rank, 8, 1), in(device, 1 - rank, 8, 1);
  std::vector<double> seconds;
  for (int r = 0; r < repetitions; ++r) {
    constexpr int kInner = 2000;
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < kInner; ++i) Exchange(endpoint, {out.transfer()}, {in.transfer()});
    seconds.push_back(Seconds(begin) / kInner);
  }
  sched_setaffinity(0, sizeof(all), &all);
  if (rank == 0) std::printf("8 bytes, both ranks on one core: %.2f us\n", Median(seconds) * 1e6);
}

// What rank 0's process burns while it waits for a rank that comes later.
void MeasureWaiting(Device& device, Endpoint& endpoint, int64_t bytes, bool sends, int repetitions) {
  const int rank = endpoint.world_rank();
  const Pieces memory(device, 1 - rank, bytes, 1);
  std::vector<double> cpu;
  for (int r = 0; r < repetitions; ++r) {
    const Pieces token(device, 1 - rank, 1, 1);
    Exchange(endpoint, {token.transfer()}, {token.transfer()});
    if (rank != 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const Clock::time_point begin = Clock::now();
    const double cpu_begin = CpuSeconds();
    if ((rank == 0) == sends) {
      Exchange(endpoint, {memory.transfer()}, {});
    } else {
      Exchange(endpoint, {}, {memory.transfer()});
    }
    cpu.push_back((CpuSeconds() - cpu_begin) / Seconds(begin));
  }
  if (rank != 0) return;
  std::printf("waiting half a second to %s %lld bytes: %.2f %% of a core\n", sends ? "send" : "receive",
              static_cast<long long>(bytes), 100 * Median(cpu));
}

void Run(int rank, Shared* shared, const std::string& transports, int repetitions) {
  const std::unique_ptr<Device> device = MakeCpuDevice({1, 0, "auto"}).value();
  auto worker = UcxWorker::Create(UcxConfig{"lo", transports});
  SEQPAR_CHECK(worker.ok());
  const std::shared_ptr<Endpoint> endpoint = Connect(**worker, shared, rank);
  if (rank == 0) {
    std::printf("%s\n%10s %6s %12s %10s %23s %11s\n", (*worker)->Describe().c_str(), "bytes", "spans", "us",
                "GB/s", "of two copies: med, best", "CPU / wall");
  }
  for (const int64_t bytes :
       {int64_t{8}, int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20, int64_t{64} << 20}) {
    for (const int spans : {1, 4}) {
      if (spans > 1 && bytes < 1024) continue;
      MeasureRates(*device, *endpoint, bytes, spans, repetitions);
    }
  }
  MeasureSharedCore(*device, *endpoint, repetitions);
  MeasureWaiting(*device, *endpoint, 8, false, repetitions);
  MeasureWaiting(*device, *endpoint, 16 << 20, true, repetitions);
  if (rank == 0) std::printf("after the run: %s\n", (*worker)->Describe().c_str());
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::vector<std::string> words = seqpar::BenchWords(argc, argv, seqpar::kUsage);
  const std::string transports = words.empty() ? "posix,cma,self" : words[0];
  const int repetitions = static_cast<int>(seqpar::BenchNumber(words, 1, "REPETITIONS", 7));
  void* const memory =
      mmap(nullptr, sizeof(seqpar::Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  SEQPAR_CHECK(memory != MAP_FAILED);
  auto* const shared = new (memory) seqpar::Shared();
  const pid_t child = fork();
  seqpar::Run(child == 0 ? 1 : 0, shared, transports, repetitions);
  if (child == 0) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? 0 : 1;
}
