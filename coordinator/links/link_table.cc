#include "coordinator/links/link_table.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace seqpar {
namespace {

bool IsRate(double value) { return value > 0 && std::isfinite(value); }

}  // namespace

LinkEnds EndsOf(const std::string& kind, const std::string& node, const std::string& other) {
  return node < other ? LinkEnds{kind, node, other} : LinkEnds{kind, other, node};
}

std::string LinkKeyOf(const std::string& a_key, const std::string& b_key) {
  return absl::StrCat(a_key, "-", b_key);
}

std::string LinksToText(const LinkTable& links) {
  std::string text;
  for (const auto& [ends, figure] : links) {
    absl::StrAppend(
        &text, absl::StrFormat("%s\t%s\t%s\t%s\t%.17g\t%.17g\t%d\n", ends.kind, ends.a, ends.b, figure.key,
                               figure.rates.latency, figure.rates.bandwidth, figure.measured_us));
  }
  return text;
}

LinkTable LinksFromText(const std::string& text) {
  LinkTable links;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n'))) {
    const std::vector<std::string> parts = absl::StrSplit(line, '\t');
    LinkFigure figure;
    if (parts.size() != 7 || !(parts[1] < parts[2]) || !absl::SimpleAtod(parts[4], &figure.rates.latency) ||
        !absl::SimpleAtod(parts[5], &figure.rates.bandwidth) ||
        !absl::SimpleAtoi(parts[6], &figure.measured_us)) {
      continue;
    }
    if (!IsRate(figure.rates.latency) || !IsRate(figure.rates.bandwidth)) continue;
    figure.key = parts[3];
    links[{parts[0], parts[1], parts[2]}] = std::move(figure);
  }
  return links;
}

}  // namespace seqpar
