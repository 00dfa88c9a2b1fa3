// A job's trace as a file that Perfetto (ui.perfetto.dev) and Chrome read: the Trace Event Format, JSON.
#ifndef SEQPAR_CLIENT_CLI_TRACE_JSON_H_
#define SEQPAR_CLIENT_CLI_TRACE_JSON_H_

#include <string>
#include <vector>

#include "seqpar/v1/job.pb.h"
#include "seqpar/v1/trace.pb.h"

namespace seqpar {

// A process a rank with the tracks phases, compute and communication; slices of a track are in order and do
// not overlap. Times are on the coordinator's clock, from the first slice on: every node's are moved by its
// offset, as the chunk with the smallest bound has it. "otherData" says, for all and for each rank: what a
// slice's time may be wrong by, the seconds that the slices add up to as the report counts them, and what was
// dropped.
std::string TraceToJson(const v1::Job& job, int attempt, const std::vector<v1::TraceChunk>& chunks);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_TRACE_JSON_H_
