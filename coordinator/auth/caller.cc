#include "coordinator/auth/caller.h"

namespace seqpar {

const char* RoleName(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kSubmitter:
      return "submitter";
    case Role::kOperator:
      return "operator";
    case Role::kWorker:
      return "worker";
  }
  return "";
}

}  // namespace seqpar
