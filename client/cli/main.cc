#include "client/cli/app.h"

int main(int argc, char** argv) { return seqpar::RunApp(argc, argv); }
