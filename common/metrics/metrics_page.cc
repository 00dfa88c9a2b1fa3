// seqpar-metrics-page: prints docs/metrics.md.
#include <cstdio>
#include <cstring>

#include "common/metrics/docs.h"

int main(int argc, char** argv) {
  const bool help = argc == 2 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0);
  if (!help && argc != 1)
    std::fprintf(stderr, "seqpar-metrics-page: takes no arguments, was given '%s'\n", argv[1]);
  if (help || argc != 1) {
    std::fputs(
        "usage: seqpar-metrics-page\nPrints the page of all metrics.\n\n"
        "Example:\n  seqpar-metrics-page > docs/metrics.md\n",
        help ? stdout : stderr);
    return help ? 0 : 2;
  }
  std::fputs(seqpar::MetricsPage().c_str(), stdout);
  return 0;
}
