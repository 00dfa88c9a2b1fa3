#include "client/cli/progress.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/output.h"
#include "common/base/units.h"
#include "common/base/utf8.h"
#include "common/job/enum_names.h"

namespace seqpar {
namespace {

// Back to the first column, and erase the line.
constexpr char kEraseLine[] = "\r\x1b[2K";

}  // namespace

std::string RenderProgress(const v1::Job& job) {
  std::string line = absl::AsciiStrToUpper(ShortName(job.state()));
  if (job.phase() != v1::JOB_PHASE_UNSPECIFIED) absl::StrAppend(&line, "  ", ShortName(job.phase()));
  if (job.attempt() > 1) absl::StrAppend(&line, "  attempt ", job.attempt());
  const v1::Progress& progress = job.progress();
  if (job.state() == v1::JOB_STATE_RUNNING && job.phase() == v1::JOB_PHASE_EXECUTE && job.has_progress()) {
    if (!progress.pass().empty()) absl::StrAppend(&line, "  ", progress.pass());
    if (progress.layers() > 0) absl::StrAppend(&line, "  layer ", progress.layer(), "/", progress.layers());
    if (progress.step() > 0) absl::StrAppend(&line, "  step ", progress.step());
    absl::StrAppend(&line, absl::StrFormat("  %.1f%%", progress.percent()));
    if (progress.seconds_left() > 0)
      absl::StrAppend(&line, "  ", FormatSeconds(progress.seconds_left()), " left");
  }
  if (job.state() == v1::JOB_STATE_PENDING && !job.reason().empty())
    absl::StrAppend(&line, "  ", job.reason());
  return Printable(line);
}

ProgressPrinter::ProgressPrinter(bool terminal, int columns, std::function<void(const std::string&)> write)
    : terminal_(terminal),
      columns_(columns > 0 ? static_cast<size_t>(columns) : 80),
      write_(std::move(write)) {}

void ProgressPrinter::Show(const v1::Job& job) {
  const std::string line = absl::StrCat(job.id(), "  ", RenderProgress(job));
  if (terminal_) {
    // One column less than there are: a full line would wrap and could not be erased.
    line_ = Utf8Beginning(line, columns_ - 1);
    write_(absl::StrCat(kEraseLine, line_));
    return;
  }
  const std::string key = Key(job);
  if (key == key_) return;
  key_ = key;
  write_(line + "\n");
}

void ProgressPrinter::Note(const std::string& text) {
  if (terminal_ && !line_.empty()) {
    write_(absl::StrCat(kEraseLine, text, "\n", line_));
  } else {
    write_(text + "\n");
  }
}

void ProgressPrinter::Finish() {
  if (terminal_ && !line_.empty()) write_("\n");
  line_.clear();
}

std::string ProgressPrinter::Key(const v1::Job& job) const {
  const v1::Progress& progress = job.progress();
  return absl::StrCat(job.state(), "/", job.phase(), "/", job.attempt(), "/", progress.pass(), "/",
                      progress.layer(), "/", static_cast<int>(progress.percent() / 10), "/", job.reason());
}

}  // namespace seqpar
