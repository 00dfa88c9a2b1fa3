#include "common/metrics/http_server.h"

#include <civetweb.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "absl/strings/numbers.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

struct Response {
  int code = 0;
  std::string type, body;
};

int PortOf(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  return port;
}

Response Ask(const std::string& address, const std::string& method, const std::string& path) {
  char error[256] = "";
  mg_connection* connection = mg_download("127.0.0.1", PortOf(address), 0, error, sizeof(error),
                                          "%s %s HTTP/1.0\r\nHost: a\r\n\r\n", method.c_str(), path.c_str());
  EXPECT_NE(connection, nullptr) << error;
  Response response;
  if (connection == nullptr) return response;
  response.code = mg_get_response_info(connection)->status_code;
  if (const char* type = mg_get_header(connection, "Content-Type")) response.type = type;
  char buffer[4096];
  for (int n = 1; method != "HEAD" && n > 0;) {
    n = mg_read(connection, buffer, sizeof(buffer));
    if (n > 0) response.body.append(buffer, static_cast<size_t>(n));
  }
  mg_close_connection(connection);
  return response;
}

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = HttpServer::Create(
        "127.0.0.1:0",
        {[] { return std::string("a_total 1\n"); },
         [this] { return alive_ ? absl::OkStatus() : absl::UnavailableError("it stands still"); },
         [this] { return ready_ ? absl::OkStatus() : absl::UnavailableError("still starting"); }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::atomic<bool> alive_{true}, ready_{true};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ServesTheThreePaths) {
  const Response metrics = Ask(server_->address(), "GET", "/metrics");
  EXPECT_EQ(metrics.code, 200);
  EXPECT_EQ(metrics.body, "a_total 1\n");
  EXPECT_THAT(metrics.type, HasSubstr("version=0.0.4"));
  EXPECT_EQ(Ask(server_->address(), "GET", "/healthz").code, 200);
  EXPECT_EQ(Ask(server_->address(), "GET", "/readyz").code, 200);
  EXPECT_EQ(Ask(server_->address(), "HEAD", "/healthz").code, 200);
}

TEST_F(HttpServerTest, SaysWhyItIsNotReadyAndLivesMeanwhile) {
  ready_ = false;
  const Response ready = Ask(server_->address(), "GET", "/readyz");
  EXPECT_EQ(ready.code, 503);
  EXPECT_EQ(ready.body, "still starting\n");
  EXPECT_EQ(Ask(server_->address(), "GET", "/healthz").code, 200);
}

TEST_F(HttpServerTest, SaysWhyItIsToBeEnded) {
  alive_ = false;
  const Response health = Ask(server_->address(), "GET", "/healthz");
  EXPECT_EQ(health.code, 503);
  EXPECT_EQ(health.body, "it stands still\n");
  EXPECT_EQ(Ask(server_->address(), "GET", "/readyz").code, 200);
}

TEST_F(HttpServerTest, RefusesOtherPathsAndMethods) {
  const Response other = Ask(server_->address(), "GET", "/etc/passwd");
  EXPECT_EQ(other.code, 404);
  EXPECT_THAT(other.body, HasSubstr("/metrics"));
  EXPECT_EQ(Ask(server_->address(), "GET", "/metrics/more").code, 404);
  EXPECT_EQ(Ask(server_->address(), "GET", "/").code, 404);
  EXPECT_EQ(Ask(server_->address(), "POST", "/metrics").code, 405);
}

TEST_F(HttpServerTest, AnAddressThatIsTakenIsNamed) {
  const auto second = HttpServer::Create(server_->address(), {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("Address already in use"));
}

TEST_F(HttpServerTest, ThePortIsFreeOnceItHasStopped) {
  const std::string address = server_->address();
  server_.reset();
  const auto again = HttpServer::Create(
      address,
      {[] { return std::string(); }, [] { return absl::OkStatus(); }, [] { return absl::OkStatus(); }});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->address(), address);
}

TEST(HttpServerAddressTest, MustHaveAPort) {
  for (const char* listen : {"", "7701", ":7701", "127.0.0.1:port"}) {
    EXPECT_FALSE(HttpServer::Create(listen, {}).ok()) << listen;
  }
}

}  // namespace
}  // namespace seqpar
