#include "common/base/units.h"

#include <cmath>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

// "1.23", "12.3", "123"; `value` is rounded at that digit, 999.6 becomes "1000".
std::string ThreeDigits(double value) {
  const double magnitude = std::fabs(value);
  const int decimals = magnitude < 9.995 ? 2 : magnitude < 99.95 ? 1 : 0;
  char text[32];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

// Scales by `base` until `value` prints below `base`; returns how often, at most `steps`.
int Scale(double base, int steps, double* value) {
  int step = 0;
  while (step < steps && std::round(std::fabs(*value)) >= base) {
    *value /= base;
    ++step;
  }
  return step;
}

std::string Whole(double value) { return absl::StrCat(static_cast<int64_t>(value)); }

}  // namespace

std::string FormatBytes(double bytes) {
  if (!std::isfinite(bytes)) return "-";
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  const int step = Scale(1024, 6, &bytes);
  const bool whole = step == 0 && bytes == std::floor(bytes);
  return absl::StrCat(whole ? Whole(bytes) : ThreeDigits(bytes), " ", kUnits[step]);
}

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds == 0) return "0 s";
  if (seconds < 0) return absl::StrCat("-", FormatSeconds(-seconds));
  if (seconds < 59.95) {
    static constexpr const char* kUnits[] = {"ns", "us", "ms", "s"};
    double value = seconds * 1e9;
    const int step = Scale(1000, 3, &value);
    return absl::StrCat(ThreeDigits(value), " ", kUnits[step]);
  }
  const double total = std::round(seconds);
  char text[48];
  if (total < 3600) {
    std::snprintf(text, sizeof(text), "%.0f min %02.0f s", std::floor(total / 60), std::fmod(total, 60));
  } else {
    const double minutes = std::round(seconds / 60);
    std::snprintf(text, sizeof(text), "%.0f h %02.0f min", std::floor(minutes / 60), std::fmod(minutes, 60));
  }
  return text;
}

std::string FormatCount(double count, const std::string& unit) {
  if (!std::isfinite(count)) return "-";
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  const int step = Scale(1000, 6, &count);
  const bool whole = step == 0 && count == std::floor(count);
  std::string figure = whole ? Whole(count) : ThreeDigits(count);
  if (!whole && std::fabs(count) < 0.9995) {
    char text[32];
    std::snprintf(text, sizeof(text), "%#.3g", count);
    figure = text;
  }
  const std::string suffix = absl::StrCat(kPrefixes[step], unit);
  return suffix.empty() ? figure : absl::StrCat(figure, " ", suffix);
}

std::string FormatRate(double per_second, const std::string& unit) {
  if (!std::isfinite(per_second)) return "-";
  return absl::StrCat(FormatCount(per_second, unit), "/s");
}

std::string FormatPercent(double fraction) {
  if (!std::isfinite(fraction)) return "-";
  return absl::StrCat(ThreeDigits(fraction * 100), "%");
}

absl::StatusOr<int64_t> ParseBytes(const std::string& text) {
  const auto refuse = [&](const char* why) {
    return MakeError(
        absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
        absl::StrCat("\"", text, "\" is not a size in bytes such as 1000000, 512M or 4GiB: ", why));
  };
  const size_t digits = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, digits);
  std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  if (!unit.empty() && unit[0] == ' ') unit.erase(0, 1);
  if (!unit.empty() && unit.back() == 'B') unit.pop_back();

  int64_t multiplier = 1;
  if (!unit.empty()) {
    const std::string prefixes = "kMGTP";
    const size_t power = prefixes.find(unit[0] == 'K' ? 'k' : unit[0]);
    const bool binary = unit.size() == 2 && unit[1] == 'i';
    if (power == std::string::npos || (unit.size() != 1 && !binary)) return refuse("unknown unit");
    for (size_t i = 0; i <= power; ++i) multiplier *= binary ? 1024 : 1000;
  }

  int64_t whole = 0;
  if (absl::SimpleAtoi(number, &whole)) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(whole, multiplier, &bytes)) return refuse("too large");
    return bytes;
  }
  double fraction = 0;
  if (number.find('.') == std::string::npos || !absl::SimpleAtod(number, &fraction)) {
    return refuse(number.empty() ? "no number" : "not a number");
  }
  const double bytes = std::round(fraction * static_cast<double>(multiplier));
  if (!(bytes < 0x1p63)) return refuse("too large");
  return static_cast<int64_t>(bytes);
}

}  // namespace seqpar
