// Figures as people read and write them.
#ifndef SEQPAR_COMMON_BASE_UNITS_H_
#define SEQPAR_COMMON_BASE_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace seqpar {

// All formats keep three significant digits and print what is not finite as "-".

// Powers of 1024: "0 B", "512 B", "1.50 KiB", "4.00 GiB".
std::string FormatBytes(double bytes);
// "0 s", "12.3 ns", "1.50 us", "250 ms", "12.3 s"; from a minute on "2 min 05 s", from an hour on "1 h 02
// min".
std::string FormatSeconds(double seconds);
// Powers of 1000 before the unit: (1.23e9, "FLOP") -> "1.23 GFLOP", (35149, "tokens") -> "35.1 ktokens",
// (1500, "") -> "1.50 k". Figures below 1 keep their decimals: "0.500".
std::string FormatCount(double count, const std::string& unit = "");
// The same with "/s": (1.23e9, "FLOP") -> "1.23 GFLOP/s".
std::string FormatRate(double per_second, const std::string& unit);
// 0.5 -> "50.0%".
std::string FormatPercent(double fraction);

// "1000000", "512M" (10^6), "512MB", "4Gi", "4GiB", "1.5GiB"; units as in Kubernetes: k, M, G, T, P count by
// 1000, Ki, Mi, Gi, Ti, Pi by 1024, an upper-case K is a k; a space before the unit is allowed.
// INVALID_ARGUMENT for anything else, negative numbers and what does not fit into int64.
absl::StatusOr<int64_t> ParseBytes(const std::string& text);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_UNITS_H_
