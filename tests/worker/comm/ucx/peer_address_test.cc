#include "worker/comm/ucx/peer_address.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "common/base/status.h"

namespace seqpar {
namespace {

PeerAddress Example() {
  PeerAddress address;
  address.version = "1.13.1";
  address.interface = "all on eth0";
  address.process = ProcessIdentity::Self();
  address.address = std::string("\0:\xff 12:", 7);
  return address;
}

TEST(PeerAddressTest, ComesBackAsItWas) {
  const PeerAddress sent = Example();
  const absl::StatusOr<PeerAddress> got = PeerAddress::Parse(sent.Serialize());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->version, sent.version);
  EXPECT_EQ(got->interface, sent.interface);
  EXPECT_EQ(got->address, sent.address);
  EXPECT_EQ(got->process.machine, sent.process.machine);
  EXPECT_EQ(got->process.pid, getpid());
  EXPECT_EQ(got->process.start_ticks, sent.process.start_ticks);
}

TEST(PeerAddressTest, RefusesWhatIsNone) {
  const std::string whole = Example().Serialize();
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::StatusOr<PeerAddress> got = PeerAddress::Parse(whole.substr(0, size));
    ASSERT_FALSE(got.ok()) << size;
    EXPECT_EQ(ReasonOf(got.status()), reason::kBootstrapMismatch);
  }
  EXPECT_FALSE(PeerAddress::Parse(whole + "1:x").ok());
  EXPECT_FALSE(PeerAddress::Parse("99999999999999999999:x").ok());
  EXPECT_FALSE(PeerAddress::Parse("18446744073709551615:x").ok());
}

TEST(ProcessStartTicksTest, KnowsThisProcessAndNoOther) {
  EXPECT_GT(ProcessStartTicks(getpid()), 0);
  EXPECT_EQ(ProcessStartTicks(getpid()), ProcessIdentity::Self().start_ticks);
  EXPECT_EQ(ProcessStartTicks(1 << 30), -1);
}

}  // namespace
}  // namespace seqpar
