// Failpoints that are on while this lives, in a folder of its own.
#ifndef SEQPAR_TESTS_SUPPORT_ARMED_FAILPOINTS_H_
#define SEQPAR_TESTS_SUPPORT_ARMED_FAILPOINTS_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/base/failpoints.h"
#include "tests/support/temp_folder.h"

namespace seqpar {

class ArmedFailpoints {
 public:
  ArmedFailpoints() { EXPECT_TRUE(EnableFailpoints(folder_.path(), {}).ok()); }
  ~ArmedFailpoints() { DisableFailpoints(); }
  ArmedFailpoints(const ArmedFailpoints&) = delete;
  ArmedFailpoints& operator=(const ArmedFailpoints&) = delete;

  void Arm(const std::string& name, const std::string& line) const {
    EXPECT_NE(FindFailpoint(name), nullptr) << name;
    const std::string elsewhere = folder_ / "arming";
    std::ofstream(elsewhere) << line << "\n";
    std::filesystem::rename(elsewhere, folder_ / "armed/" + name);
  }

 private:
  TempFolder folder_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_ARMED_FAILPOINTS_H_
