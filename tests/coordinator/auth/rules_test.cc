// The table of rules against what there is to call: in the descriptors, and in a server.
#include "coordinator/auth/rules.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/base/tls.h"
#include "coordinator/auth/authenticator.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/service.pb.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

using google::protobuf::FileDescriptor;

std::set<std::string> AllMethods() {
  std::set<std::string> methods;
  for (const FileDescriptor* file :
       {v1::CreateJobRequest::descriptor()->file(), v1::WorkerMessage::descriptor()->file(),
        grpc::health::v1::HealthCheckRequest::descriptor()->file(),
        grpc::reflection::v1alpha::ServerReflectionRequest::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.insert("/" + service->full_name() + "/" + service->method(j)->name());
      }
    }
  }
  return methods;
}

TEST(Rules, AreOfEachMethodAndOfNothingElse) {
  std::set<std::string> ruled;
  for (const MethodRule& rule : MethodRules()) EXPECT_TRUE(ruled.insert(rule.path).second) << rule.path;
  EXPECT_EQ(ruled, AllMethods());
  EXPECT_EQ(FindRule("/seqpar.v1.JobService/DropEverything"), nullptr);
  EXPECT_EQ(FindRule(""), nullptr);
}

// A type of request belongs to one method: the edge finds a method's rule by it.
TEST(Rules, AreFoundByTheTypeOfTheRequest) {
  std::set<std::string> types;
  const FileDescriptor* file = v1::CreateJobRequest::descriptor()->file();
  for (int i = 0; i < file->service_count(); ++i) {
    for (int j = 0; j < file->service(i)->method_count(); ++j) {
      EXPECT_TRUE(types.insert(file->service(i)->method(j)->input_type()->full_name()).second);
    }
  }
}

TEST(Rules, GrowWithTheRoleOfAUserAndAreApartForWorkers) {
  const std::vector<Role> users = {Role::kViewer, Role::kSubmitter, Role::kOperator};
  for (const MethodRule& rule : MethodRules()) {
    bool before = false;
    for (const Role role : users) {
      const bool now = Allows(rule.access, role);
      EXPECT_TRUE(now || !before) << rule.path << " " << RoleName(role);
      before = now;
    }
    const bool everybody = rule.access == Access::kAnybody;
    EXPECT_EQ(Allows(rule.access, Role::kWorker), everybody || rule.access == Access::kWorker) << rule.path;
    EXPECT_EQ(before, rule.access != Access::kWorker) << rule.path;
    EXPECT_FALSE(rule.change && everybody) << rule.path << " changes something, whoever calls";
    EXPECT_FALSE(rule.change && Allows(rule.access, Role::kViewer)) << rule.path;
  }
}

class AuthenticatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (const Role role : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kWorker}) {
      const std::string name = RoleName(role);
      text += "name=" + name + " role=" + name + (role == Role::kWorker ? " node=w" : " tenant=t") +
              " expires=2030-01-01 sha256=" + Sha256Hex(name) + "\n";
    }
    std::ofstream(folder_ / "tokens") << text;
    auto tokens = TokenFile::Open(folder_ / "tokens", &clock_);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    authenticator_ = std::make_unique<Authenticator>(*std::move(tokens), &clock_);
  }

  absl::StatusCode Admit(const std::string& method, const Credentials& credentials) const {
    return authenticator_->Admit(method, credentials).code();
  }

  TempFolder folder_;
  FakeClock clock_;
  std::unique_ptr<Authenticator> authenticator_;
};

TEST_F(AuthenticatorTest, HoldsEachMethodAgainstEachRole) {
  for (const MethodRule& rule : MethodRules()) {
    for (const Role role : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kWorker}) {
      const absl::StatusCode expected =
          Allows(rule.access, role) ? absl::StatusCode::kOk : absl::StatusCode::kPermissionDenied;
      EXPECT_EQ(Admit(rule.path, {{}, std::string("Bearer ") + RoleName(role)}), expected) << rule.path;
    }
    const absl::StatusCode unknown =
        rule.access == Access::kAnybody ? absl::StatusCode::kOk : absl::StatusCode::kUnauthenticated;
    for (const char* header :
         {"", "Bearer ", "Bearer forged", "Basic operator", "operator", "bearer operator"}) {
      EXPECT_EQ(Admit(rule.path, {{}, header}), unknown) << rule.path << " " << header;
    }
  }
  EXPECT_EQ(Admit("/seqpar.v1.JobService/Other", {{}, "Bearer operator"}),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Admit("", {{}, "Bearer operator"}), absl::StatusCode::kPermissionDenied);
}

TEST_F(AuthenticatorTest, ACertificateNamesANodeByItsUri) {
  const auto identify = [&](std::vector<std::string> uris, const std::string& header = "") {
    return authenticator_->Identify({std::move(uris), header});
  };
  const absl::StatusOr<Caller> worker = identify({"spiffe://x/y", "seqpar://node/a"});
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->role, Role::kWorker);
  EXPECT_TRUE(worker->MayAttachAs("a"));
  EXPECT_FALSE(worker->MayAttachAs("b"));
  EXPECT_FALSE(worker->MayAttachAs(""));
  EXPECT_TRUE(identify({"seqpar://node/*"})->MayAttachAs("b"));
  EXPECT_FALSE(identify({"seqpar://node/"})->MayAttachAs(""));
  EXPECT_EQ(identify({"seqpar://user/a"}).status().code(), absl::StatusCode::kUnauthenticated);
  // A token says more: on a worker's machine a user is the user.
  EXPECT_EQ(identify({"seqpar://node/a"}, "Bearer viewer")->role, Role::kViewer);
  EXPECT_EQ(identify({"seqpar://node/a"}, "Bearer forged").status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(AuthenticatorTest, ACertificateEnds) {
  Credentials credentials{{"seqpar://node/a"}, "", clock_.WallMicros() + 1'000'000};
  const absl::StatusOr<Caller> worker = authenticator_->Identify(credentials);
  ASSERT_TRUE(worker.ok()) << worker.status();
  clock_.AdvanceMicros(999'999);
  EXPECT_TRUE(authenticator_->Confirm(credentials, *worker).ok());
  clock_.AdvanceMicros(1);
  const absl::Status over = authenticator_->Confirm(credentials, *worker);
  EXPECT_EQ(over.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(over.message(), ::testing::HasSubstr("the certificate of seqpar://node/a"));
  credentials.authorization = "Bearer worker";  // who shows a token is who the token says
  EXPECT_TRUE(authenticator_->Identify(credentials).ok());
}

TEST(Caller, SeesTheJobsOfItsTenant) {
  Caller caller{"a", Role::kSubmitter, "t", "", ""};
  EXPECT_TRUE(caller.Sees("t"));
  EXPECT_FALSE(caller.Sees("u"));
  EXPECT_FALSE(caller.Sees(""));
  caller.role = Role::kOperator;
  EXPECT_TRUE(caller.Sees("u"));
  EXPECT_TRUE(AnyCaller().Sees("u"));
  EXPECT_TRUE(AnyCaller().MayAttachAs("n"));
}

}  // namespace
}  // namespace seqpar
