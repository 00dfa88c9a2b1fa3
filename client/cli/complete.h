// What may stand where the cursor is: one answer for every shell. The scripts in completion.h only ask for
// it.
#ifndef SEQPAR_CLIENT_CLI_COMPLETE_H_
#define SEQPAR_CLIENT_CLI_COMPLETE_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace seqpar {

struct Completions {
  std::vector<std::string> words;  // those that begin with what is there, in the order of the help
  bool files = false;              // names of files instead
};

// Ids and names that only the service knows; empty where it does not answer.
struct LiveNames {
  std::function<std::vector<std::string>()> jobs;
  std::function<std::vector<std::string>()> nodes;
};

// `words`: what stands after "seqpar" up to the cursor; the last may be empty or incomplete. Commands,
// options, the values of options that have a known set, the fields of a job (--set), ids of jobs and names of
// nodes.
Completions Complete(const CLI::App& app, const std::vector<std::string>& words, const LiveNames& live);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_COMPLETE_H_
