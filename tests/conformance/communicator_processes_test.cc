// Ranks as real processes, which can be killed and stopped. The binary starts itself again for every rank; a
// socket to each stands in for the bootstrap and for the daemon that aborts.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/comm/ucx/ucx_endpoint.h"
#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

constexpr int kControlFd = 100;  // in a rank's process
constexpr TrafficKey kKey{Operation::kRing, Pass::kForward};

// --- lines of text over the control socket: 4 bytes of length, then the text ---

bool Write(int fd, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  std::string frame(reinterpret_cast<const char*>(&size), sizeof(size));
  frame += text;
  for (size_t sent = 0; sent < frame.size();) {
    const ssize_t n = send(fd, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

// "" at the end of the stream.
std::string Read(int fd) {
  uint32_t size = 0;
  if (recv(fd, &size, sizeof(size), MSG_WAITALL) != sizeof(size)) return "";
  std::string text(size, '\0');
  if (recv(fd, text.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) return "";
  return text;
}

// --- a rank's process ---

// Goes around the ring until told to stop by failure.
absl::Status RunRing(Communicator& comm, Stream& stream, Device& device) {
  constexpr int64_t kBytes = 1 << 20;
  absl::StatusOr<Buffer> out = device.Allocate(kBytes, "out"), in = device.Allocate(kBytes, "in");
  SEQPAR_CHECK(out.ok() && in.ok());
  const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
  for (int round = 0;; ++round) {
    comm.SendRecv(stream, kKey, {{next, {Span{out->data(), kBytes}}}},
                  {{previous, {Span{in->data(), kBytes}}}});
    SEQPAR_RETURN_IF_ERROR(stream.Synchronize());
    if (round == 20) Write(kControlFd, "running");
  }
}

absl::Status RunSums(Communicator& comm, Stream& stream, Device& device) {
  constexpr int64_t kElements = 300'001;
  SEQPAR_ASSIGN_OR_RETURN(Buffer data, device.Allocate(4 * kElements, "data"));
  auto* const values = static_cast<float*>(data.data());
  for (int64_t i = 0; i < kElements; ++i) values[i] = static_cast<float>((comm.rank() + 1) * (i % 17));
  comm.AllReduce(stream, kKey, values, kElements);
  comm.Barrier(stream);
  SEQPAR_RETURN_IF_ERROR(stream.Synchronize());
  for (int64_t i = 0; i < kElements; ++i) {
    const float want = static_cast<float>(comm.size() * (comm.size() + 1) / 2 * (i % 17));
    if (values[i] != want)
      return absl::DataLossError(absl::StrCat("element ", i, ": ", values[i], " for ", want));
  }
  return absl::OkStatus();
}

int RankMain(int rank, int size, const std::string& transports, const std::string& task) {
  auto worker = UcxWorker::Create(UcxConfig{"lo", transports});
  if (!worker.ok()) return 2;
  Write(kControlFd, (*worker)->AddressBlob());
  std::vector<std::string> blobs;
  for (int i = 0; i < size; ++i) blobs.push_back(Read(kControlFd));
  auto endpoint = (*worker)->Connect(rank, blobs);
  auto device = MakeCpuDevice(CpuDeviceConfig{});
  if (!endpoint.ok() || !device.ok()) return 3;
  const auto comm = MakeExchangeCommunicator(*endpoint, device->get(), nullptr);
  const auto stream = (*device)->CreateStream("rank");
  // What the daemon says ends the rank, from another thread than the one that is blocked.
  std::thread control([&] {
    const std::string why = Read(kControlFd);
    if (!why.empty()) comm->Abort(absl::AbortedError(why));
  });
  const absl::Status status =
      task == "ring" ? RunRing(*comm, *stream, **device) : RunSums(*comm, *stream, **device);
  Write(kControlFd, status.ok() ? "OK" : absl::StrCat(ReasonOf(status), ": ", std::string(status.message())));
  control.join();  // stays until the parent is done, so that nobody takes the end of this rank for a death
  return 0;
}

// --- the parent ---

class Processes : public testing::TestWithParam<const char*> {
 protected:
  void Start(int size, const std::string& task) {
    for (int rank = 0; rank < size; ++rank) {
      int pair[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
      const std::vector<std::string> arguments = {"rank", std::to_string(rank), std::to_string(size),
                                                  GetParam(), task};
      std::vector<char*> argv;
      for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pair[1], kControlFd);
        execv("/proc/self/exe", argv.data());
        _exit(9);
      }
      close(pair[1]);
      pids_.push_back(child);
      sockets_.push_back(pair[0]);
    }
    std::vector<std::string> blobs;
    for (const int socket : sockets_) blobs.push_back(Read(socket));
    for (const int socket : sockets_) {
      for (const std::string& blob : blobs) Write(socket, blob);
    }
  }

  void TearDown() override {
    for (size_t rank = 0; rank < pids_.size(); ++rank) {
      if (static_cast<int>(rank) == victim_) kill(pids_[rank], SIGKILL);  // it may be stopped
      close(sockets_[rank]);
      int status = 0;
      waitpid(pids_[rank], &status, 0);
      if (static_cast<int>(rank) != victim_) {
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
            << "rank " << rank << ", status " << status;
      }
    }
  }

  void Strike(int rank, int signal) {
    victim_ = rank;
    kill(pids_[rank], signal);
  }

  int victim_ = -1;
  std::vector<pid_t> pids_;
  std::vector<int> sockets_;
};

TEST_P(Processes, SumOverRanks) {
  Start(4, "sums");
  for (const int socket : sockets_) EXPECT_EQ(Read(socket), "OK");
}

TEST_P(Processes, ThoseWhoNeedAKilledPeerNoticeByThemselves) {
  Start(3, "ring");
  for (const int socket : sockets_) ASSERT_EQ(Read(socket), "running");
  Strike(1, SIGKILL);
  // 0 sends to 1, and 2 receives from 1: both notice by themselves.
  for (const int rank : {0, 2}) {
    const std::string said = Read(sockets_[rank]);
    EXPECT_TRUE(absl::StartsWith(said, "PEER_LOST") && absl::StrContains(said, "rank 1"))
        << rank << ": " << said;
  }
}

TEST_P(Processes, AbortReleasesRanksThatWaitForOneThatHangs) {
  Start(3, "ring");
  for (const int socket : sockets_) ASSERT_EQ(Read(socket), "running");
  Strike(1, SIGSTOP);
  for (const int rank : {0, 2}) Write(sockets_[rank], "rank 1 hangs");
  for (const int rank : {0, 2}) EXPECT_EQ(Read(sockets_[rank]), ": rank 1 hangs");
}

INSTANTIATE_TEST_SUITE_P(Transports, Processes, testing::Values("posix,cma,self", "posix,self", "tcp,self"),
                         [](const testing::TestParamInfo<const char*>& info) {
                           std::string name(info.param);
                           for (char& c : name) c = c == ',' ? '_' : c;
                           return name;
                         });

}  // namespace

int RunRankProcess(char** argv) { return RankMain(std::atoi(argv[1]), std::atoi(argv[2]), argv[3], argv[4]); }

}  // namespace seqpar

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[0], "rank") == 0) return seqpar::RunRankProcess(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
