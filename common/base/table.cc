#include "common/base/table.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/utf8.h"

namespace seqpar {

TextTable::TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}

void TextTable::AddRow(std::vector<std::string> cells) {
  SEQPAR_CHECK(cells.size() <= columns_.size());
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString(int indent) const {
  std::vector<std::string> header;
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    header.push_back(columns_[c].header);
    size_t width = Utf8Columns(columns_[c].header);
    for (const auto& row : rows_) width = std::max(width, Utf8Columns(row[c]));
    widths.push_back(width);
  }

  std::string out;
  const auto append = [&](const std::vector<std::string>& cells) {
    std::string line(static_cast<size_t>(indent), ' ');
    for (size_t c = 0; c < cells.size(); ++c) {
      if (c > 0) line += "  ";
      const std::string padding(widths[c] - Utf8Columns(cells[c]), ' ');
      line += columns_[c].align == Align::kRight ? padding + cells[c] : cells[c] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  append(header);
  for (const auto& row : rows_) append(row);
  return out;
}

}  // namespace seqpar
