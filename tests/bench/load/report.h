// What a load was, what it showed, and what is told of that.
#ifndef SEQPAR_TESTS_BENCH_LOAD_REPORT_H_
#define SEQPAR_TESTS_BENCH_LOAD_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/load/clients.h"
#include "tests/bench/load/coordinator_process.h"
#include "tests/bench/load/fleet.h"
#include "tests/bench/load/stats.h"

namespace seqpar::load {

struct Options {
  CoordinatorProcess::Options coordinator;
  FleetOptions fleet;
  ClientOptions clients;
  int jobs = 10'000;
  int striped_ranks = 512;
  double minutes = 10;
  double patience = 120;  // seconds, for all nodes to attach
  std::string output = "table";
  bool check = false;
};

struct Sample {
  double seconds = 0;
  int64_t resident_bytes = 0;
};

struct Result {
  double attach_seconds = 0, fill_seconds = 0, striped_seconds = 0, back_seconds = 0;
  int64_t refused = 0;
  FleetCounts fleet;  // before the restart
  int64_t ranks_resumed = 0, attached_again = 0, lost_later = 0;
  Quantiles heartbeats, submits, lists, fill;
  int64_t events = 0, watching = 0, errors = 0;
  std::string last_error;
  std::vector<Sample> memory;
  double cores = 0;  // of the coordinator, while it was loaded
};

// Prints a table or JSON; with options.check, 1 where anything was lost or unbounded, else 0.
int Report(const Options& options, const Result& result);

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_REPORT_H_
