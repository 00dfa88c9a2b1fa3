// The life of a job as it happens: one line redrawn on a terminal, else a line for each change.
#ifndef SEQPAR_CLIENT_CLI_PROGRESS_H_
#define SEQPAR_CLIENT_CLI_PROGRESS_H_

#include <functional>
#include <string>

#include "seqpar/v1/job.pb.h"

namespace seqpar {

// "RUNNING  execute  attempt 2  backward  layer 1/2  step 87  42.0%  12.3 s left"; what is not known is left
// out, and what only the execute phase has is shown in it.
std::string RenderProgress(const v1::Job& job);

// Not thread-safe.
class ProgressPrinter {
 public:
  // `write` gets pieces of text to show at once. terminal: redraw one line of `columns` columns.
  ProgressPrinter(bool terminal, int columns, std::function<void(const std::string&)> write);

  // Without a terminal only a change of state, phase, attempt, pass, layer or whole tenth of the percentage
  // is a line.
  void Show(const v1::Job& job);
  // A line of its own, above the line that is redrawn.
  void Note(const std::string& text);
  // Leaves the redrawn line as it is and begins a new one.
  void Finish();

 private:
  std::string Key(const v1::Job& job) const;

  const bool terminal_;
  const size_t columns_;
  const std::function<void(const std::string&)> write_;
  std::string key_;
  std::string line_;
};

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_PROGRESS_H_
