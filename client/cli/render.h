// Answers of the service as tables for people. Pure: message in, text out.
#ifndef SEQPAR_CLIENT_CLI_RENDER_H_
#define SEQPAR_CLIENT_CLI_RENDER_H_

#include <string>

#include "seqpar/v1/service.pb.h"

namespace seqpar {

// One job: what it is, how far it got, each attempt with its first cause and what followed, and its report.
std::string RenderJob(const v1::Job& job);
// The plan and why, rates, ranks, traffic, predicted beside measured, verification with its worst layer.
std::string RenderReport(const v1::Report& report);
std::string RenderJobs(const v1::ListJobsResponse& jobs);
// The chosen mesh and why, its ranks, the ten next best, and the rest by reason with the nearest miss of
// each.
std::string RenderPlan(const v1::PlanJobResponse& answer);
std::string RenderNodes(const v1::ListNodesResponse& nodes);
std::string RenderLogs(const v1::GetJobLogsResponse& logs);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_RENDER_H_
