// A stream ends with the right to open it.
#include <functional>

#include "tests/coordinator/api/security_fixture.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kCentury = int64_t{36'525} * 24 * 3600 * 1'000'000;  // the fixture's certificates end in it

class LapseTest : public SecurityTest {
 protected:
  void SetUp() override {
    SecurityTest::SetUp();
    WriteTokens(Brief("vic", "viewer tenant=search") + Brief("rack", "worker node=a"));
    job_ = Create(Job());
  }
  void Configure(CoordinatorConfig* config) override {
    SecurityTest::Configure(config);
    config->engine.lease_us = 2 * kCentury;  // nothing else ends a worker's stream here
  }
  void WriteTokens(const std::string& text) {
    std::ofstream(certificates_.Path("tokens")) << Token("ann", "submitter", "tenant=search") << text;
    clock_.AdvanceMicros(1'000'000);  // it is looked at again
  }
  // One that lasts for the first minute of the fake clock.
  static std::string Brief(const std::string& name, const std::string& role) {
    return "name=" + name + " role=" + role + " expires=1970-01-01T00:01:00Z sha256=" + Sha256Hex(name) +
           "\n";
  }

  // Vic watches the job; `lapse` is called once the stream is open. How it ended.
  grpc::Status WatchWhile(const std::function<void()>& lapse) {
    const auto vic = JobsAs("vic");
    Call call;
    v1::WatchJobRequest request;
    request.set_id(job_.id());
    const auto reader = vic->WatchJob(&call.context, request);
    v1::JobEvent event;
    EXPECT_TRUE(reader->Read(&event));
    lapse();
    while (reader->Read(&event)) {
    }
    return reader->Finish();
  }
  static void ExpectUnauthenticated(const grpc::Status& status, const std::string& why) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(ReasonOf(Details(status)), "UNAUTHENTICATED");
    EXPECT_THAT(status.error_message(), HasSubstr(why));
  }
  void Expire() { clock_.AdvanceMicros(60'000'000); }

  v1::Job job_;
};

TEST_F(LapseTest, AWatchEndsWithItsToken) {
  ExpectUnauthenticated(WatchWhile([this] { Expire(); }), "this token of vic has expired");
}

TEST_F(LapseTest, AWatchEndsWhenItsTokenIsTakenAway) {
  ExpectUnauthenticated(WatchWhile([this] { WriteTokens("# vic has left\n"); }),
                        "this token is not known here");
}

TEST_F(LapseTest, AWatchEndsWhenItsTokenSaysSomethingElse) {
  ExpectUnauthenticated(WatchWhile([this] { WriteTokens(Brief("vic", "viewer tenant=vision")); }),
                        "what this token of vic may do has changed");
}

TEST_F(LapseTest, AWatchGoesOnWhenOtherTokensChange) {
  const grpc::Status status = WatchWhile([this] {
    WriteTokens(Brief("vic", "viewer tenant=search") + Brief("new", "viewer tenant=search"));
    Cancel(job_.id());
  });
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(LapseTest, AWorkersStreamEndsWithItsToken) {
  auto by_token = Worker({.node = "a", .credentials = As("rack")});
  by_token->Heartbeat(1);
  ASSERT_TRUE(by_token->WaitHeartbeatAnswer(1));
  Expire();
  by_token->Heartbeat(2);
  ExpectUnauthenticated(by_token->WaitStatus(), "this token of rack has expired");
  auto by_certificate = Worker({.node = "a", .credentials = As("", "node")});
  by_certificate->Heartbeat(1);
  EXPECT_TRUE(by_certificate->WaitHeartbeatAnswer(1));
}

TEST_F(LapseTest, AWorkersStreamEndsWithItsCertificate) {
  auto worker = Worker({.node = "a", .credentials = As("", "node")});
  worker->Heartbeat(1);
  ASSERT_TRUE(worker->WaitHeartbeatAnswer(1));
  clock_.AdvanceMicros(kCentury);
  worker->Heartbeat(2);
  ExpectUnauthenticated(worker->WaitStatus(), "the certificate of seqpar://node/a");
}

}  // namespace
}  // namespace seqpar
