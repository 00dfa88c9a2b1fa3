#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/cli/call.h"
#include "client/cli/commands.h"
#include "client/cli/trace_json.h"

namespace seqpar {
namespace {

absl::StatusOr<std::vector<v1::TraceChunk>> AllChunks(SeqparService& service, v1::GetJobTraceRequest request,
                                                      int* attempt) {
  std::vector<v1::TraceChunk> chunks;
  do {
    absl::StatusOr<v1::GetJobTraceResponse> page = service.GetJobTrace(request);
    if (!page.ok()) return page.status();
    *attempt = page->attempt();
    request.set_attempt(page->attempt());  // a new one may begin between two pages
    for (v1::TraceChunk& chunk : *page->mutable_chunks()) chunks.push_back(std::move(chunk));
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return chunks;
}

}  // namespace

int RunTrace(const CliConfig& config) {
  const std::unique_ptr<SeqparService> service = Connect(config);
  v1::GetJobTraceRequest request;
  request.set_id(config.job);
  if (config.attempt.has_value()) request.set_attempt(*config.attempt);
  int attempt = 0;
  const absl::StatusOr<std::vector<v1::TraceChunk>> chunks = AllChunks(*service, request, &attempt);
  if (!chunks.ok()) return Fail(chunks.status(), config);
  v1::GetJobRequest get;
  get.set_id(config.job);
  const absl::StatusOr<v1::Job> job = service->GetJob(get);
  if (!job.ok()) return Fail(job.status(), config);
  if (chunks->empty()) {
    PrintNote(absl::StrCat("seqpar: no rank of job ", config.job,
                           " has told of its time yet, or its trace was forgotten for newer ones"));
  }
  const std::string json = TraceToJson(*job, attempt, *chunks);
  if (config.trace_file == "-") {
    PrintOut(json);
    return kExitOk;
  }
  std::ofstream file(config.trace_file, std::ios::binary | std::ios::trunc);
  file << json;
  file.close();
  if (!file) {
    PrintNote(absl::StrCat("seqpar: cannot write ", config.trace_file, ": ", std::strerror(errno)));
    return kExitUsage;
  }
  PrintNote(absl::StrCat("wrote ", config.trace_file, ": open it in ui.perfetto.dev or chrome://tracing"));
  return kExitOk;
}

}  // namespace seqpar
