// How long a submit takes on a running coordinator, and whether the jobs that already wait slow it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "client/lib/client.h"
#include "tests/bench/usage.h"

namespace seqpar {
namespace {

constexpr char kUsage[] = R"(usage: submit_bench SERVER JOBS

Submits JOBS jobs that no cluster fits (they wait for 60,000 devices), one after the other, and prints as JSON the median
milliseconds of the first and of the last hundred, and the worst.

Example: submit_bench 127.0.0.1:7700 1000
)";

v1::Job WaitingJob() {
  v1::Job job;
  job.set_name("waits");
  v1::ModelConfig* config = job.mutable_config();
  config->set_hidden_size(64);
  config->set_num_attention_heads(4);
  config->set_intermediate_size(128);
  config->set_num_hidden_layers(1);
  job.mutable_weights()->set_seed(1);
  job.mutable_input()->set_seed(2);
  job.mutable_input()->set_tokens(100'000);
  job.mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
  job.mutable_workers()->set_min(60'000);
  return job;
}

double MedianMs(std::vector<double> seconds) {
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size()) / 2,
                   seconds.end());
  return 1e3 * seconds[seconds.size() / 2];
}

int Main(int argc, char** argv) {
  const std::vector<std::string> words = BenchWords(argc, argv, kUsage);
  if (words.size() != 2) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const auto jobs = static_cast<int>(BenchNumber(words, 1, "JOBS", 1));
  const auto service = ConnectService({.server = words[0]});
  v1::CreateJobRequest request;
  *request.mutable_job() = WaitingJob();
  std::vector<double> seconds;
  for (int i = 0; i < jobs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto job = service->CreateJob(request);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (!job.ok()) {
      std::fprintf(stderr, "%s\n", job.status().ToString().c_str());
      return 1;
    }
  }
  const int64_t part = std::min(jobs, 100);
  const double first = MedianMs({seconds.begin(), seconds.begin() + part});
  const double last = MedianMs({seconds.end() - part, seconds.end()});
  std::printf("{\"jobs\": %d, \"first_ms\": %.3f, \"last_ms\": %.3f, \"worst_ms\": %.3f}\n", jobs, first,
              last, 1e3 * *std::max_element(seconds.begin(), seconds.end()));
  return 0;
}

}  // namespace
}  // namespace seqpar

int main(int argc, char** argv) { return seqpar::Main(argc, argv); }
