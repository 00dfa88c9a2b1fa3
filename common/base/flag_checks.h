// Checks of flags for CLI11, whose refusals say what the value is, what it must be and the nearest legal one,
// as those of jobs do: "--limit: is '0'; must be 1 to 1000000; nearest: 1".
#ifndef SEQPAR_COMMON_BASE_FLAG_CHECKS_H_
#define SEQPAR_COMMON_BASE_FLAG_CHECKS_H_

#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace seqpar {

namespace flag_checks_internal {

// "" where `text` is a T from `low` on, up to `high` where that is not null.
template <typename T>
std::string Within(const std::string& text, T low, const T* high) {
  T value{};
  const bool number = CLI::detail::lexical_cast(text, value) && !std::isnan(static_cast<double>(value));
  if (number && value >= low && (high == nullptr || value <= *high)) return "";
  const std::string must =
      high == nullptr ? absl::StrCat("at least ", low) : absl::StrCat(low, " to ", *high);
  if (!number) return absl::StrCat("is '", text, "'; must be a number, ", must);
  return absl::StrCat("is '", text, "'; must be ", must,
                      "; nearest: ", value < low || high == nullptr ? low : *high);
}

}  // namespace flag_checks_internal

// A number from `low` to `high`, both included.
template <typename T>
CLI::Validator Between(T low, T high) {
  return CLI::Validator(
      [low, high](std::string& text) { return flag_checks_internal::Within(text, low, &high); },
      absl::StrCat("[", low, " - ", high, "]"));
}

// A number of at least `low`.
template <typename T>
CLI::Validator AtLeast(T low) {
  return CLI::Validator(
      [low](std::string& text) {
        return flag_checks_internal::Within(text, low, static_cast<const T*>(nullptr));
      },
      absl::StrCat("at least ", low));
}

// key=value, whatever either is; the key is not empty.
inline CLI::Validator KeyValue() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        const size_t equals = text.find('=');
        const bool has_both = equals != std::string::npos && equals > 0;
        return has_both ? "" : absl::StrCat("is '", text, "'; must be key=value");
      },
      "");
}

// One of these words.
inline CLI::Validator OneOf(const std::vector<std::string>& words) {
  return CLI::Validator(
      [words](std::string& text) -> std::string {
        for (const std::string& word : words) {
          if (text == word) return "";
        }
        return absl::StrCat("is '", text, "'; must be one of ", absl::StrJoin(words, ", "),
                            "; nearest: ", NearestName(text, words));
      },
      absl::StrCat("{", absl::StrJoin(words, ","), "}"));
}

// After a failed parse of a program without subcommands: each word that is no flag of its, with the nearest
// that is, a line each; "" where the parser's own message says everything.
inline std::string ExplainUnknownFlags(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return "";  // help or the version was asked for
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  std::string text;
  for (const std::string& word : app.remaining()) {
    if (word.empty() || word[0] != '-') continue;
    const std::string flag = word.substr(0, word.find('='));
    absl::StrAppend(&text, "no flag is called '", flag, "'; nearest: ", NearestName(flag, names),
                    " (--help)\n");
  }
  return text;
}

// After a failed parse of such a program: prints the help or the version that was asked for, or what is
// wrong. The exit code, 0 or 2.
inline int AnswerParseError(const CLI::App& app, const CLI::ParseError& error) {
  const std::string unknown = ExplainUnknownFlags(app, error);
  if (unknown.empty()) return app.exit(error) == 0 ? 0 : 2;
  std::cerr << unknown;
  return 2;
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_FLAG_CHECKS_H_
