#include "client/cli/app.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/call.h"
#include "client/cli/commands.h"
#include "client/cli/complete.h"
#include "client/cli/completion.h"
#include "client/cli/exit_codes.h"
#include "client/cli/interrupt.h"
#include "client/cli/output.h"
#include "client/cli/usage.h"
#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/flag_checks.h"
#include "common/base/status.h"
#include "common/base/tls.h"
#include "common/base/units.h"
#include "common/base/version.h"
#include "common/rpc/grpc_log.h"

namespace seqpar {
namespace {

constexpr double kCompletionSeconds = 1;
constexpr double kSecondsMin = 0.001, kSecondsMax = 1e9;  // what clocks in nanoseconds can count

constexpr char kExitCodes[] =
    R"(Exit codes: 0 succeeded, 1 job failed, 2 usage, 3 invalid job, 4 not found, 5 unavailable (nothing
answers, or not for now; plan: the job would wait), 6 deadline, 7 cancelled, 8 denied, 130 interrupted.

Example: a first job on this machine
  seqpar local up --slots 4
  seqpar example > job.yaml
  seqpar submit -f job.yaml --wait
  seqpar local down
)";

CLI::App* AddCommand(CLI::App* parent, const std::string& name, const std::string& what,
                     const std::string& examples) {
  CLI::App* command = parent->add_subcommand(name, what);
  command->fallthrough();
  command->footer(absl::StrCat(
      "Examples:\n", examples,
      "\n--server, --tls-ca, --token-file, -o and --timeout stand here too: see seqpar --help.\n"));
  return command;
}

void AddJobFile(CLI::App* command, CliConfig* config) {
  command->add_option("-f,--file", config->file, "Job file in YAML or JSON; - reads standard input")
      ->required();
  command
      ->add_option(
          "--set", config->assignments,
          "key=value over what the file says, e.g. --set config.num_hidden_layers=2; the value is YAML")
      ->take_all()
      ->allow_extra_args(false)
      ->check(KeyValue());
}

void AddWaiting(CLI::App* command, CliConfig* config) {
  command
      ->add_option("--wait-timeout", config->wait_seconds,
                   "Seconds to wait for the end; then exit code 6, and the job goes on (default: no bound)")
      ->check(Between(0.0, kSecondsMax));
  command
      ->add_option("--reconnect", config->reconnect_seconds,
                   "Seconds in one go that the coordinator may be unreachable while waiting")
      ->check(Between(0.0, kSecondsMax))
      ->capture_default_str();
}

void AddJobs(CLI::App* app, CliConfig* config) {
  CLI::App* submit =
      AddCommand(app, "submit", "Submit a job",
                 "  seqpar submit -f job.yaml --wait\n"
                 "  seqpar submit -f job.yaml --set parallelism.strategy=ring --set parallelism.ring=4\n"
                 "  seqpar submit -f job.yaml --request-id nightly-2026-11-24\n");
  AddJobFile(submit, config);
  submit->add_flag("--wait", config->wait, "Show progress, then the report; the exit code is the job's");
  submit->add_option("--request-id", config->request_id,
                     "The same id with the same job never starts a second one (default: a random one)");
  submit->add_flag("--validate-only", config->validate_only, "Check the job and submit nothing");
  AddWaiting(submit, config);

  CLI::App* plan =
      AddCommand(app, "plan",
                 "Say which mesh a job would get and why, without running it; exit code 5 where it "
                 "would wait, for devices or nodes that are named",
                 "  seqpar plan -f job.yaml\n"
                 "  seqpar plan -f job.yaml --cluster examples/cluster-8xh100.yaml\n"
                 "  seqpar plan -f job.yaml -o json | jq .explanation.rejected\n");
  AddJobFile(plan, config);
  plan->add_option("--cluster", config->cluster_file, "A cluster that exists only in this file");

  CLI::App* watch =
      AddCommand(app, "watch", "Follow a job to its end; the exit code is the job's",
                 "  seqpar watch j-0123456789abcdef\n  seqpar watch JOB -o json   # one job a line\n");
  watch->add_option("job", config->job, "Job id")->required();
  AddWaiting(watch, config);

  CLI::App* get =
      AddCommand(app, "get", "Show a job: state, attempts, report", "  seqpar get j-0123456789abcdef\n");
  get->add_option("job", config->job, "Job id")->required();

  CLI::App* list =
      AddCommand(app, "list", "List jobs, newest first",
                 "  seqpar list --state running --state pending\n  seqpar list --label team=search\n");
  list->add_option("--state", config->states, "Only jobs in this state; repeatable")
      ->take_all()
      ->allow_extra_args(false);
  list->add_option("--label", config->labels, "Only jobs with label key=value; all must match")
      ->take_all()
      ->allow_extra_args(false)
      ->check(KeyValue());
  list->add_option("--limit", config->limit, "At most this many")
      ->check(Between(1, 1000000))
      ->capture_default_str();

  CLI::App* cancel = AddCommand(app, "cancel", "End a job", "  seqpar cancel j-0123456789abcdef\n");
  cancel->add_option("job", config->job, "Job id")->required();

  CLI::App* logs = AddCommand(app, "logs", "The last output of a job's executors",
                              "  seqpar logs JOB\n  seqpar logs JOB --rank 2 --attempt 1\n");
  logs->add_option("job", config->job, "Job id")->required();
  logs->add_option("--rank", config->rank, "Only this rank")->check(AtLeast(0));
  logs->add_option("--attempt", config->attempt, "Only this attempt")->check(AtLeast(1));

  CLI::App* trace = AddCommand(
      app, "trace", "Write what each rank did in time, for ui.perfetto.dev or chrome://tracing",
      "  seqpar trace JOB -o trace.json\n"
      "  seqpar trace JOB --attempt 1 -o failed.json\n"
      "  seqpar trace JOB | jq .otherData     # what the slices add up to, how well the clocks agree\n");
  trace->footer(absl::StrReplaceAll(trace->get_footer(), {{", -o and --timeout", " and --timeout"}}));
  trace->add_option("job", config->job, "Job id, of a running job too")->required();
  trace->add_option("-o,--out", config->trace_file, "File to write; - is standard output")
      ->capture_default_str();
  trace->add_option("--attempt", config->attempt, "Another attempt than the last")->check(AtLeast(1));
}

void AddNodes(CLI::App* app, CliConfig* config) {
  AddCommand(app, "nodes", "List nodes, their devices and what runs on them", "  seqpar nodes\n");
  CLI::App* drain = AddCommand(app, "drain", "Give a node no new ranks; running ones finish",
                               "  seqpar drain node-a\n  seqpar drain node-a --undo\n");
  drain->add_option("node", config->node, "Node name")->required();
  drain->add_flag("--undo", config->undo, "Take new ranks again");
  CLI::App* backup =
      AddCommand(app, "backup", "Copy the job store, on the coordinator's machine, while everything goes on",
                 "  seqpar backup\n  seqpar backup before-the-upgrade.sqlite\n");
  backup->add_option("name", config->backup,
                     "File name in the folder backups of its state folder [the time]");
}

void AddLocal(CLI::App* app, CliConfig* config) {
  CLI::App* local = AddCommand(app, "local", "A coordinator and one worker on this machine",
                               "  seqpar local up --slots 4\n  seqpar local status\n  seqpar local down\n");
  local->require_subcommand(1);
  local->add_option("--state", config->state_dir, "Folder of logs, pid files and the job store")
      ->capture_default_str();
  CLI::App* up = AddCommand(local, "up", "Start them and wait until the node is ready",
                            "  seqpar local up --slots 4 --data /srv/data\n"
                            "  seqpar local up --port 0   # any free port; the address is printed\n");
  up->add_option("--slots", config->slots, "CPU slots: the most ranks that run at once")
      ->check(Between(1, 1024))
      ->capture_default_str();
  up->add_option("--data", config->data_dir, "Folder that jobs may read and write")->capture_default_str();
  up->add_option("--port", config->port, "Port of the coordinator on 127.0.0.1; 0: any free one")
      ->check(Between(0, 65535))
      ->capture_default_str();
  up->add_option("--threads-per-slot", config->threads_per_slot,
                 "Compute threads a slot (default: cores / slots)")
      ->check(Between(1, 4096));
  up->add_option("--memory-per-slot", config->memory_per_slot,
                 "Memory a slot, e.g. 2GiB (default: 0.8 of the machine's, divided)")
      ->check([](const std::string& text) { return std::string(ParseBytes(text).status().message()); });
  up->add_option("--start-timeout", config->start_seconds, "Seconds to wait for the node to be ready")
      ->check(Between(kSecondsMin, kSecondsMax))
      ->capture_default_str();
  AddCommand(local, "down", "Stop them; jobs stay in the store", "  seqpar local down\n");
  AddCommand(local, "status", "Say what runs", "  seqpar local status\n");
  AddCommand(local, "address", "Print the coordinator's address, for --server",
             "  export SEQPAR_SERVER=$(seqpar local address)\n");
}

void AddExamples(CLI::App* app, CliConfig* config) {
  CLI::App* example = AddCommand(app, "example", "Print a commented job file; with --write also its tensors",
                                 "  seqpar example > job.yaml\n"
                                 "  seqpar example --write demo && seqpar submit -f demo/job.yaml --wait\n"
                                 "  seqpar example text README.md --write demo\n");
  example->add_option(
      "--write", config->write_dir,
      "Write job.yaml and seeded safetensors files here (of a text default: the current folder)");
  example->add_flag("--overwrite", config->overwrite, "Replace files of these names that are there");
  CLI::App* text =
      AddCommand(example, "text",
                 "A job over the bytes of a text, embedded by a seeded table (not a model): one token a byte",
                 "  seqpar example text /usr/share/common-licenses/GPL-3 --write demo\n");
  text->add_option("file", config->text_file, "Any file that is not empty")->required();
  text->add_option("--hidden", config->hidden, "Hidden size, a multiple of 64")
      ->check(Between(64, 65536))
      ->capture_default_str();

  CLI::App* completion = AddCommand(app, "completion", "Print a completion script",
                                    "  source <(seqpar completion bash)\n  source <(seqpar completion zsh)\n"
                                    "  seqpar completion fish | source\n");
  completion->add_option("shell", config->shell, "bash, zsh or fish")
      ->required()
      ->check(OneOf(CompletionShells()));
  AddCommand(app, "version", "Print the version", "  seqpar version\n");
}

void AddTls(CLI::App* app, ClientTls* tls) {
  app->add_flag("--tls", tls->wanted, "Reach the coordinator over TLS (default: where a file below is given)")
      ->envname("SEQPAR_TLS");
  app->add_option("--tls-ca", tls->ca_file,
                  "Whose certificate of the coordinator is believed (default: the system's authorities)")
      ->envname("SEQPAR_TLS_CA");
  app->add_option("--tls-cert", tls->cert_file, "Certificate to show, for mutual TLS")
      ->envname("SEQPAR_TLS_CERT");
  app->add_option("--tls-key", tls->key_file, "Its private key")->envname("SEQPAR_TLS_KEY");
  app->add_option("--tls-server-name", tls->server_name,
                  "Name that the coordinator's certificate must have (default: the host in --server)")
      ->envname("SEQPAR_TLS_SERVER_NAME");
  app->add_option("--token-file", tls->token_file,
                  "File with your token, sent only over TLS; SEQPAR_TOKEN holds the token itself")
      ->envname("SEQPAR_TOKEN_FILE");
  // No flag: arguments stand in the list of processes.
  if (const char* token = std::getenv("SEQPAR_TOKEN")) tls->token = token;
}

void ReadOutput(const std::string& text, CliConfig* config) {
  if (text != "table" && text != "json") {
    throw CLI::ValidationError("--output", absl::StrCat("must be table or json, is '", text, "'; nearest: ",
                                                        NearestName(text, {"table", "json"})));
  }
  config->output = text == "json" ? OutputFormat::kJson : OutputFormat::kTable;
}

LiveNames NamesOf(const CliConfig& config) {
  LiveNames names;
  names.jobs = [&config] {
    std::vector<std::string> ids;
    const absl::StatusOr<v1::ListJobsResponse> jobs = Connect(config)->ListJobs(v1::ListJobsRequest());
    if (!jobs.ok()) return ids;
    for (const v1::Job& job : jobs->jobs()) ids.push_back(job.id());
    return ids;
  };
  names.nodes = [&config] {
    std::vector<std::string> ids;
    const absl::StatusOr<v1::ListNodesResponse> nodes = Connect(config)->ListNodes(v1::ListNodesRequest());
    if (!nodes.ok()) return ids;
    for (const v1::Node& node : nodes->nodes()) ids.push_back(node.name());
    return ids;
  };
  return names;
}

// Between two keystrokes: no error is told, and a service that is slow is not waited for.
int RunComplete(const std::vector<std::string>& words) {
  CliConfig config;
  const std::unique_ptr<CLI::App> app = MakeApp(&config);
  CliConfig environment;
  try {
    MakeApp(&environment)->parse("version");
  } catch (const CLI::ParseError&) {
    environment = CliConfig();
  }
  config.server = environment.server;
  config.tls = environment.tls;
  for (size_t i = 0; i + 2 < words.size(); ++i) {
    if (words[i] == "--server") config.server = words[i + 1];
  }
  config.timeout_seconds = kCompletionSeconds;
  const Completions found = Complete(*app, words, NamesOf(config));
  for (const std::string& word : found.words) PrintOut(word + "\n");
  if (found.files) PrintOut(absl::StrCat(kCompleteFiles, "\n"));
  return kExitOk;
}

int RunCompletion(const CliConfig& config) {
  PrintOut(CompletionScript(config.shell));
  return kExitOk;
}

int RunVersion(const CliConfig& config) {
  PrintOut(config.output == OutputFormat::kJson ? absl::StrCat("{\"version\": \"", kVersion, "\"}\n")
                                                : absl::StrCat("seqpar ", kVersion, "\n"));
  return kExitOk;
}

// "local up": the names of the subcommands that were given.
std::string CommandPath(const CLI::App& app) {
  std::string path;
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    absl::StrAppend(&path, path.empty() ? "" : " ", at->get_name());
  }
  return path;
}

bool AsksServer(const std::string& command) {
  for (const char* without : {"local", "example", "completion", "version"}) {
    if (absl::StartsWith(command, without)) return false;
  }
  return true;
}

}  // namespace

std::unique_ptr<CLI::App> MakeApp(CliConfig* config) {
  auto app =
      std::make_unique<CLI::App>("Sequence-parallel transformer jobs over very long sequences", "seqpar");
  app->footer(kExitCodes);
  app->require_subcommand(1);
  app->set_version_flag("--version", absl::StrCat("seqpar ", kVersion));
  app->add_option("--server", config->server, "Coordinator, host:port")
      ->envname("SEQPAR_SERVER")
      ->check(
          [usual = config->server](const std::string& given) { return AddressFault(given, usual, false); })
      ->capture_default_str();
  AddTls(app.get(), &config->tls);
  app->add_option_function<std::string>(
         "-o,--output", [config](const std::string& text) { ReadOutput(text, config); },
         "table, or json with the field names of the .proto")
      ->type_name("table|json");
  app->add_option("--timeout", config->timeout_seconds, "Seconds for each call")
      ->check(Between(kSecondsMin, kSecondsMax))
      ->capture_default_str();
  AddJobs(app.get(), config);
  AddNodes(app.get(), config);
  AddLocal(app.get(), config);
  AddExamples(app.get(), config);
  return app;
}

int RunApp(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == kCompleteCommand)
    return RunComplete(std::vector<std::string>(argv + 2, argv + argc));
  CliConfig config;
  const std::unique_ptr<CLI::App> app = MakeApp(&config);
  try {
    app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const bool asked = error.get_exit_code() == 0;  // for help or the version
    const std::string unknown = asked ? "" : ExplainUnknownWords(*app);
    if (unknown.empty()) return app->exit(error) == 0 ? kExitOk : kExitUsage;
    PrintNote(absl::StrCat(unknown, "Run with --help for more information."));
    return kExitUsage;
  }
  ExitOnInterrupt("");
  LogWhatGrpcSays(LogLevel::kDebug);  // the call's error says it
  const std::map<std::string, std::function<int(const CliConfig&)>> commands = {
      {"submit", RunSubmit},
      {"plan", RunPlan},
      {"watch", RunWatch},
      {"get", RunGet},
      {"list", RunList},
      {"cancel", RunCancel},
      {"logs", RunLogs},
      {"trace", RunTrace},
      {"nodes", RunNodes},
      {"drain", RunDrain},
      {"backup", RunBackup},
      {"local up", RunLocalUp},
      {"local down", RunLocalDown},
      {"local status", RunLocalStatus},
      {"local address", RunLocalAddress},
      {"example", RunExample},
      {"example text", RunExampleText},
      {"completion", RunCompletion},
      {"version", RunVersion},
  };
  const std::string command = CommandPath(*app);
  if (AsksServer(command)) {
    const absl::Status checked = CheckTls(config.tls, Clock::System().WallMicros());
    if (!checked.ok()) {
      PrintError(checked, config);
      return kExitUsage;
    }
  }
  return commands.at(command)(config);
}

}  // namespace seqpar
