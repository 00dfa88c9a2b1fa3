// A scrape's text as a map.
#ifndef SEQPAR_TESTS_SUPPORT_SCRAPE_H_
#define SEQPAR_TESTS_SUPPORT_SCRAPE_H_

#include <map>
#include <sstream>
#include <string>

namespace seqpar {

// "name{a="1",b="2"}", labels in alphabetic order -> value.
inline std::map<std::string, double> SeriesOf(const std::string& scrape) {
  std::map<std::string, double> series;
  std::istringstream lines(scrape);
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.rfind(' ');
    if (line.empty() || line[0] == '#' || space == std::string::npos) continue;
    series[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  return series;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_SCRAPE_H_
