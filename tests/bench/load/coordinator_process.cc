#include "tests/bench/load/coordinator_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar::load {
namespace {

constexpr auto kStartTime = std::chrono::seconds(60);
constexpr auto kLook = std::chrono::milliseconds(5);

// In the child. Only what may be called between fork and exec.
[[noreturn]] void Execute(const std::vector<char*>& argv, int log, int core) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (core >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof(cores), &cores);
  }
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorProcess>> CoordinatorProcess::Start(const Options& options) {
  std::unique_ptr<CoordinatorProcess> process(new CoordinatorProcess(options));
  SEQPAR_RETURN_IF_ERROR(process->Launch("127.0.0.1:0"));
  return process;
}

CoordinatorProcess::~CoordinatorProcess() { Kill(); }

absl::Status CoordinatorProcess::Launch(const std::string& listen) {
  const std::string port_file = options_.folder + "/port";
  unlink(port_file.c_str());
  std::vector<std::string> words = {options_.binary,
                                    "--listen",
                                    listen,
                                    "--port-file",
                                    port_file,
                                    "--state-dir",
                                    options_.folder + "/state",
                                    "--metrics-listen",
                                    "127.0.0.1:0"};
  words.insert(words.end(), options_.flags.begin(), options_.flags.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int log_file = open(log().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  pid_ = fork();
  if (pid_ == 0) Execute(argv, log_file, options_.core);
  close(log_file);
  const auto end = std::chrono::steady_clock::now() + kStartTime;
  while (std::chrono::steady_clock::now() < end) {
    std::ifstream in(port_file);
    if (std::getline(in, address_) && !address_.empty()) return absl::OkStatus();
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      return absl::InternalError(absl::StrCat(options_.binary, " has ended: ", log()));
    }
    std::this_thread::sleep_for(kLook);
  }
  return absl::DeadlineExceededError(absl::StrCat(options_.binary, " does not serve: ", log()));
}

void CoordinatorProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

absl::Status CoordinatorProcess::Restart() {
  Kill();
  return Launch(address_);
}

int64_t CoordinatorProcess::ResidentBytes() const {
  std::ifstream in(absl::StrCat("/proc/", pid_, "/statm"));
  int64_t size = 0, resident = 0;
  in >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

double CoordinatorProcess::CpuSeconds() const {
  std::ifstream in(absl::StrCat("/proc/", pid_, "/stat"));
  std::ostringstream text;
  text << in.rdbuf();
  // After the name, which is in brackets: the 12th and 13th words are user's and system's ticks.
  std::istringstream words(text.str().substr(text.str().rfind(')') + 1));
  std::string word;
  double ticks = 0;
  for (int i = 1; i <= 13 && words >> word; ++i) {
    if (i >= 12) ticks += std::stod(word);
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace seqpar::load
