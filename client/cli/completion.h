// Completion scripts for shells. They hold no words: each asks `seqpar __complete`, so what they offer is
// what this binary knows.
#ifndef SEQPAR_CLIENT_CLI_COMPLETION_H_
#define SEQPAR_CLIENT_CLI_COMPLETION_H_

#include <string>
#include <vector>

namespace seqpar {

// The words after "seqpar __complete" are those after "seqpar" up to the cursor. The answer is one candidate
// a line, or kCompleteFiles where the shell is to complete the name of a file.
inline constexpr char kCompleteCommand[] = "__complete";
inline constexpr char kCompleteFiles[] = ":files";

const std::vector<std::string>& CompletionShells();  // bash, zsh, fish

// REQUIRES: `shell` is one of them.
std::string CompletionScript(const std::string& shell);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_COMPLETION_H_
