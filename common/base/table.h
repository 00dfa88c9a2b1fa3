// Tables as plain text, for terminals and reports.
#ifndef SEQPAR_COMMON_BASE_TABLE_H_
#define SEQPAR_COMMON_BASE_TABLE_H_

#include <string>
#include <vector>

namespace seqpar {

// Columns as wide as their widest cell, by what it takes of a terminal (utf8.h); two spaces between them, no
// spaces at the end of a line. A cell must not contain a newline. Not thread-safe.
class TextTable {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string header;
    Align align = Align::kLeft;
  };

  explicit TextTable(std::vector<Column> columns);
  // Cells that are missing at the end are empty. REQUIRES: no more cells than columns.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  // The header and the rows, each line with a newline and `indent` spaces before it.
  std::string ToString(int indent = 0) const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_TABLE_H_
