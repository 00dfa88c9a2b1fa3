// The bootstrap; what moves is the conformance suite's.
#include "worker/comm/ucx/ucx_endpoint.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/status.h"
#include "worker/comm/ucx/peer_address.h"

namespace seqpar {
namespace {

std::unique_ptr<UcxWorker> MakeWorker(const std::string& transports = "posix,cma,tcp,self") {
  auto worker = UcxWorker::Create(UcxConfig{"lo", transports});
  EXPECT_TRUE(worker.ok()) << worker.status();
  return worker.ok() ? std::move(worker).value() : nullptr;
}

TEST(UcxWorkerTest, RefusesAnotherVersionByName) {
  const auto mine = MakeWorker(), other = MakeWorker();
  PeerAddress address = PeerAddress::Parse(other->AddressBlob()).value();
  address.version = "1.99.0";
  const auto endpoint = mine->Connect(0, {mine->AddressBlob(), address.Serialize()});
  EXPECT_EQ(ReasonOf(endpoint.status()), reason::kBootstrapMismatch);
  EXPECT_TRUE(absl::StrContains(std::string(endpoint.status().message()), "rank 1 has UCX 1.99.0"))
      << endpoint.status();
}

TEST(UcxWorkerTest, RefusesWhatIsNoAddress) {
  const auto mine = MakeWorker();
  const auto endpoint = mine->Connect(0, {mine->AddressBlob(), "hello"});
  EXPECT_EQ(ReasonOf(endpoint.status()), reason::kBootstrapMismatch);
  EXPECT_TRUE(absl::StrContains(std::string(endpoint.status().message()), "rank 1")) << endpoint.status();
}

TEST(UcxWorkerTest, NamesThePeerThatCannotBeReached) {
  const auto shared = MakeWorker("posix,self"), network = MakeWorker("tcp,self");
  const auto endpoint = shared->Connect(0, {shared->AddressBlob(), network->AddressBlob()});
  EXPECT_EQ(ReasonOf(endpoint.status()), reason::kBootstrapMismatch);
  EXPECT_TRUE(absl::StrContains(std::string(endpoint.status().message()), "rank 1 (tcp,self on lo)"))
      << endpoint.status();
}

// It is a consequence of that one's end, and may pass: no mismatch, which never does.
TEST(UcxWorkerTest, APeerThatIsGoneIsLost) {
  const auto mine = MakeWorker("tcp,self");
  auto other = MakeWorker("tcp,self");
  const std::string blob = other->AddressBlob();
  other.reset();
  const auto endpoint = mine->Connect(0, {mine->AddressBlob(), blob});
  EXPECT_EQ(ReasonOf(endpoint.status()), reason::kPeerLost) << endpoint.status();
  EXPECT_EQ(endpoint.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(std::string(endpoint.status().message()), "rank 1 (tcp,self on lo)"))
      << endpoint.status();
}

TEST(UcxWorkerTest, RefusesTransportsThatDoNotExist) {
  const auto worker = UcxWorker::Create(UcxConfig{"lo", "carrier_pigeon"});
  EXPECT_EQ(worker.status().code(), absl::StatusCode::kUnavailable) << worker.status();
}

TEST(UcxWorkerTest, ConnectsOnceAndSaysWhatItPicked) {
  const auto mine = MakeWorker(), other = MakeWorker();
  const std::vector<std::string> blobs = {mine->AddressBlob(), other->AddressBlob()};
  EXPECT_FALSE(mine->Connect(2, blobs).ok());
  const auto endpoint = mine->Connect(1, blobs);
  ASSERT_TRUE(endpoint.ok()) << endpoint.status();
  EXPECT_EQ((*endpoint)->world_rank(), 1);
  EXPECT_EQ((*endpoint)->world_size(), 2);
  EXPECT_EQ(mine->Connect(1, blobs).status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string described = mine->Describe();
  EXPECT_TRUE(absl::StrContains(described, "posix,cma,tcp,self on lo")) << described;
  EXPECT_TRUE(absl::StrContains(described, "posix/memory")) << described;
  EXPECT_TRUE(absl::StrContains(described, "to ranks 0")) << described;
}

}  // namespace
}  // namespace seqpar
