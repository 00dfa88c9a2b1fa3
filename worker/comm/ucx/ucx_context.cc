#include "worker/comm/ucx/ucx_context.h"

#include <ucs/config/global_opts.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "worker/comm/ucx/ucx_log.h"

namespace seqpar {
namespace {

// `configured`, else the environment's `variable`, else `fallback`.
std::string Effective(const std::string& configured, const char* variable, const char* fallback) {
  if (!configured.empty()) return configured;
  const char* const value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : fallback;
}

std::string Version() { return ucp_get_version_string(); }

absl::StatusOr<ucp_config_t*> ReadConfig(const UcxConfig& config) {
  // An executor's environment is built from configuration: variables for other builds of UCX are no mistake
  // in it.
  static std::once_flag quiet;
  std::call_once(quiet, [] { ucs_global_opts_set_value(UCS_GLOBAL_OPTS_WARN_UNUSED_CONFIG, "n"); });

  ucp_config_t* ucx = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &ucx);
  if (status != UCS_OK) return UcxError(status, "reading UCX's settings");
  status =
      ucp_config_modify(ucx, "NET_DEVICES", Effective(config.net_devices, "UCX_NET_DEVICES", "lo").c_str());
  if (status == UCS_OK && !config.tls.empty()) status = ucp_config_modify(ucx, "TLS", config.tls.c_str());
  if (status != UCS_OK) {
    ucp_config_release(ucx);
    return UcxError(status, absl::StrCat("UCX refuses devices '", config.net_devices, "', transports '",
                                         config.tls, "'"));
  }
  return ucx;
}

// The transports of an endpoint, from what UCX prints for people: it has no other way to tell.
std::string TransportsOf(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t size = 0;
  FILE* const stream = open_memstream(&text, &size);
  if (stream == nullptr) return "unknown";
  ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  std::vector<std::string> transports;
  // Lines are like "#  lane[0]:  2:posix/memory.0 md[1] -> ...".
  const std::vector<std::string> lines = absl::StrSplit(std::string(text, size), '\n');
  for (const std::string& line : lines) {
    if (line.find("lane[") == std::string::npos) continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    if (words.size() > 2) transports.push_back(words[2].substr(words[2].find(':') + 1));
  }
  std::free(text);
  return absl::StrJoin(transports, "+");
}

// Whether two sides ("tcp,self on eth0") have a transport in common that leaves the process, as far as their
// settings name them.
bool MayMeet(const std::string& a, const std::string& b) {
  const auto transports_of = [](const std::string& interface) {
    return std::vector<std::string>(absl::StrSplit(interface.substr(0, interface.find(" on ")), ','));
  };
  const std::vector<std::string> theirs = transports_of(b);
  for (const std::string& one : transports_of(a)) {
    if (one != "self" && std::find(theirs.begin(), theirs.end(), one) != theirs.end()) return true;
  }
  return false;
}

}  // namespace

absl::Status UcxError(ucs_status_t status, const std::string& what) {
  const std::string message = absl::StrCat(what, ": ", ucs_status_string(status));
  switch (status) {
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_ENDPOINT_TIMEOUT:
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_REJECTED:
    case UCS_ERR_TIMED_OUT:
    case UCS_ERR_IO_ERROR:  // reading the memory of a process that is gone
    case UCS_ERR_CANCELED:  // UCX cancels what it had for an endpoint that failed
      return MakeError(absl::StatusCode::kUnavailable, reason::kPeerLost, message);
    default:
      return MakeError(absl::StatusCode::kInternal, reason::kInternal, message);
  }
}

absl::StatusOr<std::shared_ptr<UcxContext>> UcxContext::Create(const UcxConfig& config) {
  RouteUcxLog();
  const std::shared_ptr<UcxContext> context(new UcxContext());
  absl::Status status = context->Open(config, /*wakeup=*/true);
  if (!status.ok()) {
    // No transport of these can wake a sleeper: waiting then polls at intervals.
    context->Close();
    status = context->Open(config, /*wakeup=*/false);
  }
  if (!status.ok()) return absl::UnavailableError(status.message());
  context->address_.interface = absl::StrCat(Effective(config.tls, "UCX_TLS", "all"), " on ",
                                             Effective(config.net_devices, "UCX_NET_DEVICES", "lo"));
  return context;
}

UcxContext::~UcxContext() { Close(); }

absl::Status UcxContext::Open(const UcxConfig& config, bool wakeup) {
  SEQPAR_ASSIGN_OR_RETURN(ucp_config_t* const ucx, ReadConfig(config));
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_TAG | (wakeup ? UCP_FEATURE_WAKEUP : 0);
  ucs_status_t status = ucp_init(&params, ucx, &context_);
  ucp_config_release(ucx);
  if (status != UCS_OK) return UcxError(status, "starting UCX");

  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  status = ucp_worker_create(context_, &worker_params, &worker_);
  if (status != UCS_OK) return UcxError(status, "making UCX's worker");
  if (wakeup) {
    status = ucp_worker_get_efd(worker_, &event_fd_);
    if (status != UCS_OK) return UcxError(status, "UCX's event descriptor");
  }
  return ReadAddress();
}

absl::Status UcxContext::ReadAddress() {
  ucp_address_t* bytes = nullptr;
  size_t size = 0;
  const ucs_status_t status = ucp_worker_get_address(worker_, &bytes, &size);
  if (status != UCS_OK) return UcxError(status, "UCX's address");
  address_.address.assign(reinterpret_cast<const char*>(bytes), size);
  ucp_worker_release_address(worker_, bytes);
  address_.version = Version();
  address_.process = ProcessIdentity::Self();
  return absl::OkStatus();
}

void UcxContext::Close() {
  peers_.clear();  // they go with the worker
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
  worker_ = nullptr;
  context_ = nullptr;
  event_fd_ = -1;
}

absl::Status UcxContext::Connect(int world_rank, const std::vector<PeerAddress>& peers) {
  peers_.assign(peers.size(), nullptr);
  for (int rank = 0; rank < static_cast<int>(peers.size()); ++rank) {
    if (rank == world_rank) continue;
    const auto mismatch = [&](const std::string& what) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kBootstrapMismatch,
                       absl::StrCat("rank ", rank, " ", what));
    };
    if (peers[rank].version != address_.version) {
      return mismatch(absl::StrCat("has UCX ", peers[rank].version, ", this rank ", address_.version));
    }
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
    params.address = reinterpret_cast<const ucp_address_t*>(peers[rank].address.data());
    const ucs_status_t status = ucp_ep_create(worker_, &params, &peers_[rank]);
    if (status == UCS_OK) continue;
    const std::string what =
        absl::StrCat("(", peers[rank].interface, ") cannot be reached from ", address_.interface);
    // UCX says the same where no transport fits and where nobody listens any more.
    if (MayMeet(peers[rank].interface, address_.interface)) {
      return UcxError(status, absl::StrCat("rank ", rank, " ", what));
    }
    return mismatch(absl::StrCat(what, ": ", ucs_status_string(status)));
  }
  return absl::OkStatus();
}

std::string UcxContext::Describe() const {
  std::string text = absl::StrCat("UCX ", address_.version, ", ", address_.interface,
                                  event_fd_ >= 0 ? ", woken by events" : ", polling at intervals");
  std::map<std::string, std::vector<int>> by_transport;
  for (int rank = 0; rank < static_cast<int>(peers_.size()); ++rank) {
    if (peers_[rank] != nullptr) by_transport[TransportsOf(peers_[rank])].push_back(rank);
  }
  for (const auto& entry : by_transport) {
    absl::StrAppend(&text, "; ", entry.first, " to ranks ", absl::StrJoin(entry.second, " "));
  }
  return text;
}

}  // namespace seqpar
