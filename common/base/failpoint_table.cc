#include <nlohmann/json.hpp>

#include "absl/strings/str_join.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/base/table.h"

namespace seqpar {
namespace {

constexpr FailProcess kC = FailProcess::kCoordinator, kD = FailProcess::kDaemon, kE = FailProcess::kExecutor;

// What points of a kind honour.
constexpr unsigned kStep = kFailCrash | kFailDelay | kFailHang;  // that cannot fail
constexpr unsigned kTry = kStep | kFailError;                    // that may
constexpr unsigned kWrite = kTry | kFailInFlight;                // to a file
constexpr unsigned kStore = kWrite | kFailDropResponse;          // a transaction
constexpr unsigned kReceive = kStep | kFailDropRequest;          // a message
constexpr unsigned kSend = kReceive | kFailInFlight;             // a message
constexpr unsigned kCall = kSend | kFailDropResponse;            // a unary call

std::vector<FailpointInfo> MakeTable() {
  const char* const storage = reason::kStorage;
  const char* const internal = reason::kInternal;
  const char* const rank = reason::kRankFailed;
  const char* const peer = reason::kPeerLost;
  return {
      // --- the coordinator ---
      {"coordinator.start.store", kC, "any", kTry, storage, "Its state folder is about to be opened"},
      {"coordinator.start.migrate", kC, "any", kTry, storage,
       "Inside the transaction that brings the schema up to date"},
      {"coordinator.start.term", kC, "any", kTry, storage,
       "The schema is right, the new term not yet written"},
      {"coordinator.start.adopt", kC, "any", kTry, storage,
       "A live job of the store is about to be taken up"},
      {"coordinator.start.serve", kC, "any", kTry, internal, "Jobs are taken up, the port is not yet served"},
      {"coordinator.rpc.submit", kC, "submit", kCall, nullptr,
       "Around CreateJob; dropped: answered UNAVAILABLE"},
      {"coordinator.rpc.cancel", kC, "any", kCall, nullptr, "Around CancelJob"},
      {"coordinator.rpc.drain", kC, "any", kCall, nullptr, "Around DrainNode"},
      {"coordinator.rpc.other", kC, "any", kCall, nullptr, "Around every other unary call"},
      {"coordinator.validate", kC, "validate", kTry, internal, "A submitted job is about to be validated"},
      {"coordinator.submit", kC, "submit", kTry, internal, "A job is valid, nothing of it is written"},
      {"coordinator.store.submit", kC, "submit", kStore, storage,
       "Around the transaction that makes a submit durable"},
      {"coordinator.plan", kC, "plan", kStep, nullptr, "A pass of the scheduler is about to plan"},
      {"coordinator.plan.decided", kC, "plan", kStep, nullptr,
       "A pass has planned, its decisions are not handed over"},
      {"coordinator.place", kC, "place", kTry, storage, "An attempt's staging file is about to be made"},
      {"coordinator.place.fsync", kC, "place", kWrite, storage, "Around the fsync of a new staging file"},
      {"coordinator.store.attempt", kC, "place", kStore, storage,
       "Around the transaction that records an attempt and its plan"},
      {"coordinator.send.launch", kC, "bootstrap", kSend, nullptr, "Ranks are to be started on a node"},
      {"coordinator.receive.started", kC, "bootstrap", kReceive, nullptr, "A rank has started"},
      {"coordinator.receive.blob", kC, "bootstrap", kReceive, nullptr, "A rank's blob comes"},
      {"coordinator.store.blob", kC, "bootstrap", kStore, storage, "Around the transaction that keeps blobs"},
      {"coordinator.send.table", kC, "bootstrap", kSend, nullptr, "The table of all blobs goes to a node"},
      {"coordinator.receive.checkpoint", kC, "execute", kReceive, nullptr,
       "A rank has its part of a checkpoint on disk"},
      {"coordinator.checkpoint.rename", kC, "execute", kWrite, storage,
       "Around the rename of a checkpoint that all ranks have written"},
      {"coordinator.checkpoint.drop", kC, "execute", kStep, nullptr,
       "Checkpoints that a newer one replaces are about to be unlinked"},
      {"coordinator.receive.finished", kC, "merge", kReceive, nullptr,
       "A rank has finished, its bytes are on disk"},
      {"coordinator.store.result", kC, "merge", kStore, storage,
       "Around the transaction that keeps what a rank reported"},
      {"coordinator.merge.fsync", kC, "merge", kWrite, storage, "Around the fsync of the whole staging file"},
      {"coordinator.commit", kC, "merge", kStep, nullptr, "COMMITTING is on disk, nothing is renamed"},
      {"coordinator.commit.rename", kC, "merge", kWrite, storage,
       "Around the rename of the staging file to the output"},
      {"coordinator.commit.fsync", kC, "merge", kWrite, storage, "Around the fsync of the output's folder"},
      {"coordinator.report", kC, "report", kStep, nullptr,
       "The output has its name, the job is not yet said to be over"},
      {"coordinator.store.end", kC, "report", kStore, storage,
       "Around the transaction that records a job's end"},
      {"coordinator.store.step", kC, "any", kStore, storage,
       "Around a transaction that records another step of a job"},
      {"coordinator.store.drain", kC, "any", kStore, storage,
       "Around the transaction that drains a node, or undoes that"},
      {"coordinator.store.expire", kC, "any", kStore, storage,
       "Around the transaction that forgets old jobs"},
      {"coordinator.store.write", kC, "any", kTry, storage, "SQLite writes to its log or its file"},
      {"coordinator.store.fsync", kC, "any", kWrite, storage, "Around an fsync of SQLite's"},
      {"coordinator.store.backup", kC, "any", kWrite, storage, "Around a backup of the store"},
      {"coordinator.clean", kC, "any", kStep, nullptr,
       "What is left of a job's files is about to be unlinked"},
      {"coordinator.receive.hello", kC, "any", kReceive, nullptr, "A worker attaches"},
      {"coordinator.send.welcome", kC, "any", kSend, nullptr,
       "A worker that attached is told the term and what to keep"},
      {"coordinator.receive.heartbeat", kC, "any", kReceive, nullptr, "A heartbeat comes"},
      {"coordinator.send.heartbeat", kC, "any", kSend, nullptr, "A heartbeat is answered"},
      {"coordinator.receive.failed", kC, "any", kReceive, nullptr, "A rank has failed"},
      {"coordinator.send.stop", kC, "any", kSend, nullptr, "A gang is to be stopped on a node"},
      {"coordinator.receive.stopped", kC, "any", kReceive, nullptr, "A rank that was to stop is gone"},
      {"coordinator.node.lost", kC, "any", kStep, nullptr,
       "A node's lease is over, nothing follows from it yet"},
      // --- the daemon of a node ---
      {"daemon.start", kD, "any", kTry, internal, "It is about to dial its coordinator"},
      {"daemon.send.hello", kD, "any", kSend, nullptr, "It attaches"},
      {"daemon.receive.welcome", kD, "any", kReceive, nullptr, "It is told the term and what to keep"},
      {"daemon.send.heartbeat", kD, "any", kSend, nullptr, "A heartbeat goes out"},
      {"daemon.receive.heartbeat", kD, "any", kReceive, nullptr,
       "A heartbeat is answered: leases are about to be extended"},
      {"daemon.receive.launch", kD, "bootstrap", kReceive, nullptr, "Ranks are to be started here"},
      {"daemon.executor.start", kD, "bootstrap", kWrite, rank, "Around the start of an executor's process"},
      {"daemon.send.started", kD, "bootstrap", kSend, nullptr, "A rank's start is reported"},
      {"daemon.send.blob", kD, "bootstrap", kSend, nullptr, "A rank's blob is relayed to the coordinator"},
      {"daemon.receive.table", kD, "bootstrap", kReceive, nullptr, "The table of all blobs comes"},
      {"daemon.tell.table", kD, "bootstrap", kSend, nullptr, "The table is relayed to an executor"},
      {"daemon.tell.lease", kD, "any", kSend, nullptr, "An executor's lease is extended"},
      {"daemon.tell.abort", kD, "any", kSend, nullptr, "An executor is told to stop"},
      {"daemon.kill", kD, "any", kStep, nullptr, "An executor is about to be killed"},
      {"daemon.send.checkpoint", kD, "execute", kSend, nullptr, "A rank's part of a checkpoint is reported"},
      {"daemon.send.finished", kD, "report", kSend, nullptr, "A rank's report is relayed"},
      {"daemon.send.failed", kD, "any", kSend, nullptr, "A rank's failure is reported"},
      {"daemon.receive.stop", kD, "any", kReceive, nullptr, "A gang is to be stopped here"},
      {"daemon.send.stopped", kD, "any", kSend, nullptr, "The end of a rank that was to stop is reported"},
      {"daemon.executor.exit", kD, "any", kStep, nullptr,
       "An executor has ended, its device is not yet free"},
      {"daemon.drain", kD, "any", kStep, nullptr, "It was told to stop and is about to drain"},
      // --- the executor of a rank ---
      {"executor.start", kE, "bootstrap", kTry, rank, "It knows its rank, nothing else has happened"},
      {"executor.send.blob", kE, "bootstrap", kSend, nullptr, "Its address goes to the daemon"},
      {"executor.receive.table", kE, "bootstrap", kReceive, nullptr, "The table of all addresses comes"},
      {"executor.connect", kE, "bootstrap", kTry, peer, "It is about to connect to the other ranks"},
      {"executor.shard.open", kE, "shard", kTry, storage, "A file of weights or input is about to be opened"},
      {"executor.shard.read", kE, "shard", kTry, storage, "A piece of a tensor is about to be read"},
      {"executor.staging.open", kE, "shard", kTry, storage, "The staging file is about to be opened"},
      {"executor.shard.done", kE, "shard", kTry, rank,
       "All is read; it is about to wait for the other ranks"},
      {"executor.layer.forward", kE, "execute", kTry, rank, "A layer's forward has happened"},
      {"executor.layer.backward", kE, "execute", kTry, rank, "A layer's backward has happened"},
      {"executor.exchange", kE, "execute", kTry | kFailDropRequest | kFailInFlight, peer,
       "Messages of a collective are about to be posted (UCX)"},
      {"executor.verify", kE, "execute", kTry, rank, "A layer is about to be verified"},
      {"executor.checkpoint.open", kE, "execute", kTry, storage,
       "A checkpoint is about to be opened and allocated"},
      {"executor.checkpoint.write", kE, "execute", kWrite, storage,
       "Around the writes of its part of a checkpoint"},
      {"executor.checkpoint.fsync", kE, "execute", kWrite, storage,
       "Around the fsync of its part of a checkpoint"},
      {"executor.send.checkpoint", kE, "execute", kSend, nullptr, "Its part of a checkpoint is reported"},
      {"executor.merge.write", kE, "merge", kWrite, storage,
       "Around the writes of its part of an output tensor"},
      {"executor.merge.piece", kE, "merge", kWrite, storage,
       "Around one write of a piece, of an output or a checkpoint"},
      {"executor.merge.fsync", kE, "merge", kWrite, storage, "Around the fsync of its part of the output"},
      {"executor.merge.done", kE, "merge", kTry, rank,
       "Its bytes are on disk; it is about to wait for the other ranks"},
      {"executor.send.finished", kE, "report", kSend, nullptr, "Its report goes to the daemon"},
      {"executor.send.failed", kE, "any", kSend, nullptr, "Its failure goes to the daemon"},
      {"executor.send.progress", kE, "any", kSend, nullptr, "How far it is goes to the daemon"},
      {"executor.receive.lease", kE, "any", kReceive, nullptr, "Its lease is about to be extended"},
      {"executor.receive.abort", kE, "any", kReceive, nullptr, "It is told to stop"},
  };
}

constexpr FailAction kActions[] = {kFailCrash,       kFailError,        kFailDelay,   kFailHang,
                                   kFailDropRequest, kFailDropResponse, kFailInFlight};

std::vector<std::string> ActionsOf(const FailpointInfo& info) {
  std::vector<std::string> names;
  for (const FailAction action : kActions) {
    if ((info.actions & action) != 0) names.emplace_back(FailActionName(action));
  }
  return names;
}

}  // namespace

const std::vector<FailpointInfo>& AllFailpoints() {
  static const auto* const table = new std::vector<FailpointInfo>(MakeTable());
  return *table;
}

const FailpointInfo* FindFailpoint(absl::string_view name) {
  for (const FailpointInfo& info : AllFailpoints()) {
    if (name == info.name) return &info;
  }
  return nullptr;
}

const char* FailActionName(FailAction action) {
  switch (action) {
    case kFailCrash:
      return "crash";
    case kFailError:
      return "error";
    case kFailDelay:
      return "delay";
    case kFailHang:
      return "hang";
    case kFailDropRequest:
      return "drop_request";
    case kFailDropResponse:
      return "drop_response";
    case kFailInFlight:
      return "in_flight";
    case kFailNone:
      break;
  }
  return "";
}

FailAction ParseFailAction(absl::string_view name) {
  for (const FailAction action : kActions) {
    if (name == FailActionName(action)) return action;
  }
  return kFailNone;
}

const char* FailProcessName(FailProcess process) {
  switch (process) {
    case FailProcess::kCoordinator:
      return "coordinator";
    case FailProcess::kDaemon:
      return "daemon";
    case FailProcess::kExecutor:
      return "executor";
  }
  return "";
}

std::string FailpointsAsText() {
  TextTable table({{"FAILPOINT"}, {"PHASE"}, {"ACTIONS"}, {"WHERE"}});
  for (const FailpointInfo& info : AllFailpoints()) {
    table.AddRow({info.name, info.phase, absl::StrJoin(ActionsOf(info), ","), info.where});
  }
  return table.ToString();
}

std::string FailpointsAsJson() {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const FailpointInfo& info : AllFailpoints()) {
    all.push_back({{"name", info.name},
                   {"process", FailProcessName(info.process)},
                   {"phase", info.phase},
                   {"actions", ActionsOf(info)},
                   {"where", info.where}});
  }
  return all.dump(1) + "\n";
}

}  // namespace seqpar
