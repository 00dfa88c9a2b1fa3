// Exchange between two processes beside memcpy on the same machine in the same minute: payload of both
// directions summed, as ratios to two threads that copy; and the time of a small message. CPU time shows what
// waiting costs.
//
//   comm_bench [transports] [repetitions]
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
#include "worker/comm/ucx/ucx_endpoint.h"

namespace seqpar {
namespace {

using Clock = std::chrono::steady_clock;

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

struct Rates {
  double seconds;      // of one exchange
  double cpu_seconds;  // of this process, for one exchange
};

// Both ranks send and receive `spans` pieces of `bytes` in total, at once.
Rates Measure(Endpoint& endpoint, int64_t bytes, int spans, int repetitions) {
  const int peer = 1 - endpoint.world_rank();
  // A gap between the pieces, so that they are not one.
  const int64_t piece = bytes / spans, stride = piece + (spans > 1 ? 64 : 0);
  std::vector<char> out(stride * spans, 1), in(stride * spans);
  Transfer send{peer, {}}, recv{peer, {}};
  for (int i = 0; i < spans; ++i) {
    send.spans.push_back(Span{out.data() + i * stride, piece});
    recv.spans.push_back(Span{in.data() + i * stride, piece});
  }
  std::atomic<int> waiting{-1};
  const int inner = static_cast<int>(std::clamp<int64_t>((8 << 20) / bytes, 1, 500));
  std::vector<double> seconds, cpu;
  for (int r = 0; r <= repetitions; ++r) {
    const Clock::time_point begin = Clock::now();
    const double cpu_begin = CpuSeconds();
    for (int i = 0; i < inner; ++i) SEQPAR_CHECK(endpoint.Exchange(0, {send}, {recv}, &waiting).ok());
    if (r == 0) continue;  // connects and touches the memory
    seconds.push_back(Seconds(begin) / inner);
    cpu.push_back((CpuSeconds() - cpu_begin) / inner);
  }
  return {Median(seconds), Median(cpu)};
}

// Seconds in which two threads at once copy `bytes` each.
double MeasureCopies(int64_t bytes, int repetitions) {
  const int inner = static_cast<int>(std::clamp<int64_t>((8 << 20) / bytes, 1, 500));
  std::vector<double> medians(2);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::vector<char> from(bytes, 1), to(bytes);
      std::vector<double> seconds;
      for (int r = 0; r <= repetitions; ++r) {
        const Clock::time_point begin = Clock::now();
        for (int i = 0; i < inner; ++i) {
          std::memcpy(to.data(), from.data(), bytes);
          from[static_cast<size_t>(i) % from.size()] = to[0];  // no copy may be left out
        }
        if (r > 0) seconds.push_back(Seconds(begin) / inner);
      }
      medians[t] = Median(seconds);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::max(medians[0], medians[1]);
}

void Run(int rank, Shared* shared, const std::string& transports, int repetitions) {
  auto worker = UcxWorker::Create(UcxConfig{"lo", transports});
  SEQPAR_CHECK(worker.ok());
  const std::shared_ptr<Endpoint> endpoint = Connect(**worker, shared, rank);
  if (rank == 0) {
    std::printf("%s\n%10s %6s %12s %10s %14s %14s\n", (*worker)->Describe().c_str(), "bytes", "spans", "us",
                "GB/s", "of two copies", "CPU / wall");
  }
  for (const int64_t bytes : {int64_t{8}, int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20}) {
    for (const int spans : {1, 4}) {
      if (spans > 1 && bytes < 1024) continue;
      const Rates rates = Measure(*endpoint, bytes, spans, repetitions);
      if (rank != 0) continue;
      const double copies = MeasureCopies(bytes, repetitions);
      std::printf("%10lld %6d %12.2f %10.2f %14.2f %14.2f\n", static_cast<long long>(bytes), spans,
                  rates.seconds * 1e6, 2 * static_cast<double>(bytes) / rates.seconds / 1e9,
                  copies / rates.seconds, rates.cpu_seconds / rates.seconds);
    }
  }
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) {
  const std::string transports = argc > 1 ? argv[1] : "posix,cma,self";
  const int repetitions = argc > 2 ? std::max(1, std::atoi(argv[2])) : 7;
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
