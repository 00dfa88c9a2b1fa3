#include "coordinator/config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/address.h"
#include "common/base/data_roots.h"
#include "common/base/failpoints.h"
#include "common/base/flag_checks.h"
#include "common/base/tls.h"
#include "common/base/version.h"
#include "coordinator/auth/token_file.h"

namespace seqpar {
namespace {

constexpr int64_t kHeartbeatUs = 1'000'000;
constexpr int64_t kHeartbeatsPerLease = 6;
constexpr int64_t kWorkerMarginUs = 1'000'000;
constexpr double kSlowFactorMin = 1.2, kSlowFactorMax = 1000;
constexpr char kMetricsListen[] = "127.0.0.1:7701";
constexpr char kLinksOff[] = "off", kNever[] = "0";

constexpr char kFooter[] = R"(Examples:
  seqpar-coordinator --data-root data=/srv/data
  seqpar-coordinator --listen 0.0.0.0:7700 --allow-insecure --state-dir /var/lib/seqpar --data-root data=/srv/data
  seqpar-coordinator --listen 0.0.0.0:7700 --tls-cert tls.crt --tls-key tls.key --tls-client-ca ca.crt \
      --tokens tokens --data-root models=/srv/models --data-root search/data=/srv/search
  openssl rand -hex 32 | tee alice.token | seqpar-coordinator --hash-token
  echo 'tenant=* queued_jobs=100 running_jobs=4 devices=16 output_bytes=2Ti' > tenants
  seqpar-coordinator --tenants tenants --data-root data=/srv/data
  seqpar-coordinator --state-dir /var/lib/seqpar --restore backups/jobs-20261128T064500.000Z.sqlite
  SEQPAR_COORDINATOR_LISTEN=127.0.0.1:0 seqpar-coordinator --port-file /run/seqpar.port

Durations are numbers with a unit: 500ms, 6s, 2m. It ends within 3 s of SIGTERM or SIGINT; running jobs go on as long as
their workers' leases last, and a coordinator started on the same state folder takes them up again.)";

int64_t ParseDuration(const std::string& flag, const std::string& text, const char* else_legal = "") {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration <= absl::ZeroDuration() ||
      duration > absl::Hours(24 * 365)) {
    throw CLI::ValidationError(flag, "'" + text + "' is not a duration such as 500ms or 6s" + else_legal);
  }
  return absl::ToInt64Microseconds(duration);
}

std::pair<JobPhase, std::string> ParseHold(const std::string& text) {
  for (int i = 0; i <= static_cast<int>(JobPhase::kReport); ++i) {
    const auto phase = static_cast<JobPhase>(i);
    const std::string prefix = absl::StrCat(PhaseName(phase), ":");
    if (text.rfind(prefix, 0) == 0 && text.size() > prefix.size()) return {phase, text.substr(prefix.size())};
  }
  throw CLI::ValidationError("--test-hold", "'" + text + "' is not PHASE:FILE");
}

// As typed; turned into a CoordinatorConfig once CLI11 has read them all.
struct RawFlags {
  std::vector<std::string> data_roots, holds;
  std::string heartbeat, lease = "6s", bootstrap = "30s", no_progress = "60s", checkpoint = "60s",
                         step = "10s";
  double slow_factor = 0;
  std::string measure_links = "30s", forget_nodes = "1h";
  std::string log_level = "info", log_format = "text";
  std::string tenants_file;
  int keep_days = 30;
};

// Whoever reaches the port may run jobs and read the data roots: never by accident.
void CheckListen(const CoordinatorConfig& config) {
  if (config.tls.enabled() || config.allow_insecure || IsLoopback(config.listen)) return;
  const size_t colon = config.listen.rfind(':');
  throw CLI::ValidationError(
      "--listen",
      absl::StrCat(
          "'", config.listen, "' is not loopback, and there is no TLS: whoever reaches it ",
          "may run jobs and read the data roots. Give --tls-cert (docs/security.md), listen on 127.0.0.1",
          colon == std::string::npos ? ":7700" : config.listen.substr(colon),
          ", or, in a network that you trust, add --allow-insecure"));
}

void CheckSecurity(const RawFlags& raw, const CoordinatorConfig& config) {
  const bool tls = config.tls.enabled();
  if (tls && config.tokens_file.empty()) {
    throw CLI::ValidationError("--tls-cert", "needs --tokens, the file of who may do what: docs/security.md");
  }
  if (!tls && !config.tokens_file.empty()) {
    throw CLI::ValidationError("--tokens",
                               "needs --tls-cert and --tls-key: a token never travels without TLS");
  }
  if (tls && !raw.holds.empty()) {
    throw CLI::ValidationError("--test-hold", "is for tests: not with TLS");
  }
  if (tls && !config.test_failpoints.empty()) {
    throw CLI::ValidationError("--test-failpoints", "is for tests: not with TLS");
  }
}

void Finish(const RawFlags& raw, CoordinatorConfig* config) {
  CheckSecurity(raw, *config);
  CheckListen(*config);
  for (const std::string& text : raw.data_roots) {
    const auto root = ParseDataRoot(text);
    if (!root.ok()) throw CLI::ValidationError("--data-root", std::string(root.status().message()));
    if (root->first.find('/') != std::string::npos && !config->tls.enabled()) {
      throw CLI::ValidationError("--data-root", "'" + root->first +
                                                    "' is one tenant's alone; tenants are told apart by "
                                                    "tokens: give --tokens and --tls-cert");
    }
    config->data_roots.push_back(*root);
  }
  EngineConfig& engine = config->engine;
  if (!raw.tenants_file.empty()) {
    absl::StatusOr<TenantPolicy> tenants = ReadTenants(raw.tenants_file);
    if (!tenants.ok()) throw CLI::ValidationError(std::string(tenants.status().message()));
    engine.tenants = *std::move(tenants);
  }
  engine.keep_us = int64_t{raw.keep_days} * 24 * 3600 * 1'000'000;
  engine.lease_us = ParseDuration("--lease", raw.lease);
  engine.heartbeat_us = raw.heartbeat.empty() ? std::min(kHeartbeatUs, engine.lease_us / kHeartbeatsPerLease)
                                              : ParseDuration("--heartbeat", raw.heartbeat);
  engine.machine.bootstrap_timeout_us = ParseDuration("--bootstrap-timeout", raw.bootstrap);
  engine.machine.checkpoint_interval_us = ParseDuration("--checkpoint-interval", raw.checkpoint);
  engine.machine.step_timeout_us = ParseDuration("--step-timeout", raw.step);
  engine.machine.no_progress_timeout_us = ParseDuration("--no-progress-timeout", raw.no_progress);
  engine.links.on = raw.measure_links != kLinksOff;
  if (engine.links.on) engine.links.idle_us = ParseDuration("--measure-links", raw.measure_links, ", or off");
  engine.forget_us =
      raw.forget_nodes == kNever ? 0 : ParseDuration("--forget-nodes", raw.forget_nodes, ", or 0 for never");
  engine.machine.slow_ranks.factor = raw.slow_factor;
  if (raw.slow_factor != 0 && !(raw.slow_factor >= kSlowFactorMin && raw.slow_factor <= kSlowFactorMax)) {
    throw CLI::ValidationError(
        "--replace-slow-ranks",
        absl::StrCat("'", raw.slow_factor, "' is neither 0 (off) nor from ", kSlowFactorMin, " to ",
                     kSlowFactorMax, ": ranks that are well differ by as much"));
  }
  // A worker's own lease ends a margin earlier, and one heartbeat may get lost.
  const int64_t worker_lease_us = engine.lease_us - std::min(kWorkerMarginUs, engine.lease_us / 2);
  if (worker_lease_us < 2 * engine.heartbeat_us) {
    throw CLI::ValidationError("--lease",
                               "is too short for this heartbeat: a worker, whose own lease ends a second "
                               "earlier, must have time for two");
  }
  if (!ParseLogLevel(raw.log_level, &config->log.level)) {
    throw CLI::ValidationError("--log-level", "is debug, info, warning or error");
  }
  if (!ParseLogFormat(raw.log_format, &config->log.format)) {
    throw CLI::ValidationError("--log-format", "is text or json");
  }
  for (const std::string& text : raw.holds) config->test_holds.insert(ParseHold(text));
}

void Declare(CLI::App* app, CoordinatorConfig* config, RawFlags* raw) {
  const auto add = [app](const char* flag, auto* value, const char* environment, const char* help) {
    return app->add_option(flag, *value, help)->envname(environment)->capture_default_str();
  };
  add("--listen", &config->listen, "SEQPAR_COORDINATOR_LISTEN",
      "ADDRESS:PORT to serve on; port 0 takes any. Other addresses than loopback need TLS or "
      "--allow-insecure")
      ->check(
          [](const std::string& address) { return AddressFault(address, CoordinatorConfig().listen, true); });
  app->add_flag("--allow-insecure", config->allow_insecure,
                "Listen on other addresses than loopback without TLS, so without authentication: "
                "only in "
                "networks that you trust")
      ->envname("SEQPAR_COORDINATOR_ALLOW_INSECURE");
  add("--port-file", &config->port_file, "SEQPAR_COORDINATOR_PORT_FILE",
      "Write the bound ADDRESS:PORT to this file");
  add("--metrics-listen", &config->metrics_listen, "SEQPAR_COORDINATOR_METRICS_LISTEN",
      "ADDRESS:PORT of /metrics (Prometheus), /healthz and /readyz; port 0 takes any; off: none. The "
      "default, where it "
      "is taken, is left out with a warning")
      ->check([](const std::string& address) {
        return address == kMetricsOff ? "" : AddressFault(address, kMetricsListen, true);
      })
      ->each([config](const std::string&) { config->metrics_required = true; });
  add("--metrics-port-file", &config->metrics_port_file, "SEQPAR_COORDINATOR_METRICS_PORT_FILE",
      "Write the bound ADDRESS:PORT of the metrics to this file");
  add("--state-dir", &config->state_dir, "SEQPAR_COORDINATOR_STATE_DIR", "Folder of the job store");
  add("--data-root", &raw->data_roots, "SEQPAR_COORDINATOR_DATA_ROOT",
      "NAME=PATH of a folder that jobs may read and write, TENANT/NAME=PATH of one that only that tenant's "
      "may; "
      "repeatable; relative paths are under the first that a job may use")
      ->delimiter(',');
  add("--tls-cert", &config->tls.cert_file, "SEQPAR_COORDINATOR_TLS_CERT",
      "Serve over TLS with this certificate (PEM, its chain behind it); read again when it changes");
  add("--tls-key", &config->tls.key_file, "SEQPAR_COORDINATOR_TLS_KEY",
      "Its private key (PEM, no passphrase)");
  add("--tls-client-ca", &config->tls.client_ca_file, "SEQPAR_COORDINATOR_TLS_CLIENT_CA",
      "Whose certificates of workers and clients are believed (PEM)");
  app->add_flag("--tls-require-client-cert", config->tls.require_client_cert,
                "Mutual TLS: refuse whoever shows no such certificate, users too")
      ->envname("SEQPAR_COORDINATOR_TLS_REQUIRE_CLIENT_CERT");
  add("--tokens", &config->tokens_file, "SEQPAR_COORDINATOR_TOKENS",
      "File of hashed tokens: name, role, tenant, end of each user and worker; read again when it changes");
  add("--audit-log", &config->audit_log, "SEQPAR_COORDINATOR_AUDIT_LOG",
      "Append every change, and whoever was refused, to this file as JSON lines [the log]");
  add("--heartbeat", &raw->heartbeat, "SEQPAR_COORDINATOR_HEARTBEAT",
      "How often workers report; default 1s, or a sixth of a lease below 6s");
  add("--lease", &raw->lease, "SEQPAR_COORDINATOR_LEASE", "A node that is silent for this long is lost");
  add("--forget-nodes", &raw->forget_nodes, "SEQPAR_COORDINATOR_FORGET_NODES",
      "A node that has been lost for this long is listed no more; 0: it is until the next start");
  add("--bootstrap-timeout", &raw->bootstrap, "SEQPAR_COORDINATOR_BOOTSTRAP_TIMEOUT",
      "Time in which all ranks of a job must find each other");
  add("--no-progress-timeout", &raw->no_progress, "SEQPAR_COORDINATOR_NO_PROGRESS_TIMEOUT",
      "A rank that stands still for this long outside phase execute ends its attempt");
  add("--step-timeout", &raw->step, "SEQPAR_COORDINATOR_STEP_TIMEOUT",
      "The same in phase execute; five times as long as a layer is predicted to take, if that is longer");
  add("--checkpoint-interval", &raw->checkpoint, "SEQPAR_COORDINATOR_CHECKPOINT_INTERVAL",
      "Forward jobs with an output file keep the output of a layer about so often, and another attempt goes "
      "on from it");
  add("--max-attempts", &config->engine.machine.max_attempts, "SEQPAR_COORDINATOR_MAX_ATTEMPTS",
      "Attempts of a job that does not say")
      ->check(Between(1, 1000));
  add("--replace-slow-ranks", &raw->slow_factor, "SEQPAR_COORDINATOR_REPLACE_SLOW_RANKS",
      "A rank whose kernels take more than so many times as long as the median of its gang, three reports in "
      "a "
      "row, gives way to another device, where the job is then predicted to end sooner; 0: never");
  add("--measure-links", &raw->measure_links, "SEQPAR_COORDINATOR_MEASURE_LINKS",
      "Once no job has waited for so long, measure links between idle nodes, a pair at a time, for plans "
      "over several nodes (docs/planner.md); a job that comes ends it; off: never");
  add("--keep-jobs", &config->engine.keep_jobs, "SEQPAR_COORDINATOR_KEEP_JOBS",
      "Forget the oldest of the jobs that have ended where there are more of them; 0: keep all")
      ->check(Between(int64_t{0}, int64_t{1'000'000'000}));
  add("--keep-days", &raw->keep_days, "SEQPAR_COORDINATOR_KEEP_DAYS",
      "Forget jobs so long after their end, and their request ids; 0: never")
      ->check(Between(0, 100'000));
  add("--max-jobs", &config->engine.max_live_jobs, "SEQPAR_COORDINATOR_MAX_JOBS",
      "Refuse submits while so many jobs have not ended")
      ->check(Between(size_t{1}, size_t{10'000'000}));
  add("--tenants", &raw->tenants_file, "SEQPAR_COORDINATOR_TENANTS",
      "File of what each tenant may have at once, a line each: tenant=NAME (*: every other) queued_jobs= "
      "running_jobs= devices= output_bytes=; what is not said has no limit. Read at the start");
  app->add_option(
      "--restore", config->restore,
      "Make this backup (see seqpar backup) the store of --state-dir, which must have none, and end");
  add("--log-level", &raw->log_level, "SEQPAR_COORDINATOR_LOG_LEVEL", "debug, info, warning or error")
      ->check(OneOf({"debug", "info", "warning", "error"}));
  add("--log-format", &raw->log_format, "SEQPAR_COORDINATOR_LOG_FORMAT", "text or json")
      ->check(OneOf({"text", "json"}));
  app->add_option("--test-hold", raw->holds,
                  "PHASE:FILE, for tests: work at PHASE (submit, validate, plan, place, bootstrap, merge, "
                  "report) waits "
                  "while FILE exists")
      ->group("Tests");
  app->add_option("--test-failpoints", config->test_failpoints,
                  "DIR, for tests: fail at the points that files in DIR/armed name, as they say "
                  "(docs/reliability.md)")
      ->group("Tests");
}

// On standard input, so that it stands in no list of processes.
int PrintTokenHash() {
  std::string token;
  std::getline(std::cin, token);
  absl::StripAsciiWhitespace(&token);
  if (token.size() < kTokenCharactersMin) {
    std::cerr << "the token has " << token.size() << " characters; at least " << kTokenCharactersMin
              << ", or it can be guessed: openssl rand -hex 32\n";
    return 2;
  }
  std::cout << "sha256=" << Sha256Hex(token) << "\n";
  return 0;
}

}  // namespace

int ParseCoordinatorFlags(int argc, char** argv, CoordinatorConfig* config) {
  CLI::App app("The coordinator of seqpar: takes jobs, plans them, and brings gangs of workers together.");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("seqpar-coordinator ") + kVersion);
  RawFlags raw;
  config->metrics_listen = kMetricsListen;
  Declare(&app, config, &raw);
  bool hash_token = false, list_failpoints = false;
  std::string output = "table";
  app.add_flag("--hash-token", hash_token,
               "Print the line's sha256= for the token on standard input, and end");
  app.add_flag("--list-failpoints", list_failpoints,
               "Print every failpoint of coordinator and workers, and end")
      ->group("Tests");
  app.add_option("-o,--output", output, "table or json: how --list-failpoints prints")
      ->check(OneOf({"table", "json"}))
      ->group("Tests");
  config->log.component = "coordinator";
  try {
    app.parse(argc, argv);
    if (hash_token) return PrintTokenHash();
    if (list_failpoints) {
      std::cout << (output == "json" ? FailpointsAsJson() : FailpointsAsText());
      return 0;
    }
    Finish(raw, config);
  } catch (const CLI::ParseError& error) {
    return AnswerParseError(app, error);
  }
  return -1;
}

}  // namespace seqpar
