#include <grpc/grpc.h>

#include "client/cli/app.h"

int main(int argc, char** argv) {
  grpc_init();
  const int code = seqpar::RunApp(argc, argv);
  // gRPC ends connections in threads of its own, which an exit would cut off; with TLS they hold memory then.
  grpc_shutdown_blocking();
  return code;
}
