// What a worker's first message may say. Pure.
#ifndef SEQPAR_COORDINATOR_FLEET_HELLO_H_
#define SEQPAR_COORDINATOR_FLEET_HELLO_H_

#include <string>

#include "absl/status/status.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {

// Letters, digits, '-', '_' and '.', at most 253.
bool IsNodeName(const std::string& name);

// INVALID_ARGUMENT with every violation where the planner or a job's machine could make nothing of it: a name
// that is none, rates that are no positive numbers (as in a cluster file), terms and attempts that nobody
// counts up to. One worker with a broken measurement must not spoil the plans of everybody.
absl::Status CheckHello(const v1::Hello& hello);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_HELLO_H_
