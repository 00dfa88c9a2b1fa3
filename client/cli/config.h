// What the command line asks for: one struct, filled by app.cc, read by the commands.
#ifndef SEQPAR_CLIENT_CLI_CONFIG_H_
#define SEQPAR_CLIENT_CLI_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/tls.h"

namespace seqpar {

enum class OutputFormat { kTable, kJson };

struct CliConfig {
  // Of every command.
  std::string server = "127.0.0.1:7700";
  ClientTls tls;  // to `server`; what a command starts here itself is reached in the clear
  OutputFormat output = OutputFormat::kTable;
  double timeout_seconds = 30;  // of every call

  // submit, plan
  std::string file;
  std::vector<std::string> assignments;
  std::string request_id;
  bool validate_only = false;
  std::string cluster_file;

  // Waiting: submit --wait, watch
  bool wait = false;
  double wait_seconds = 0;  // 0: until it ends
  double reconnect_seconds = 60;

  std::string job;

  // list
  std::vector<std::string> states;
  std::vector<std::string> labels;
  int limit = 50;

  // logs, trace
  std::optional<int> rank;
  std::optional<int> attempt;
  std::string trace_file = "-";

  // drain
  std::string node;
  bool undo = false;

  // backup
  std::string backup;

  // local
  std::string state_dir = ".seqpar";
  std::string data_dir = ".";
  int slots = 4;
  int threads_per_slot = 0;  // 0: the worker's default
  std::string memory_per_slot;
  int port = 7700;
  double start_seconds = 120;

  // example
  std::string write_dir;
  bool overwrite = false;
  std::string text_file;
  int64_t hidden = 256;

  std::string shell;  // completion
};

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_CONFIG_H_
