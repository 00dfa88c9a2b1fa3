#include "common/metrics/http_server.h"

#include <civetweb.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr char kText[] = "text/plain; charset=utf-8";
constexpr char kExposition[] = "text/plain; version=0.0.4; charset=utf-8";

int Answer(mg_connection* connection, int code, const char* type, const std::string& body) {
  const bool head = std::strcmp(mg_get_request_info(connection)->request_method, "HEAD") == 0;
  const char* meaning = mg_get_response_code_text(connection, code);
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
            "%sConnection: close\r\n\r\n",
            code, meaning, type, body.size(), code == 405 ? "Allow: GET, HEAD\r\n" : "");
  if (!head) mg_write(connection, body.data(), body.size());
  return code;
}

bool IsRead(mg_connection* connection) {
  const char* method = mg_get_request_info(connection)->request_method;
  return std::strcmp(method, "GET") == 0 || std::strcmp(method, "HEAD") == 0;
}

int Metrics(mg_connection* connection, const HttpContent& content) {
  return Answer(connection, 200, kExposition, content.metrics());
}

int AnswerProbe(mg_connection* connection, const absl::Status& state) {
  if (state.ok()) return Answer(connection, 200, kText, "ok\n");
  return Answer(connection, 503, kText, absl::StrCat(state.message(), "\n"));
}

int Health(mg_connection* connection, const HttpContent& content) {
  return AnswerProbe(connection, content.alive());
}

int Readiness(mg_connection* connection, const HttpContent& content) {
  return AnswerProbe(connection, content.ready());
}

int Missing(mg_connection* connection, const HttpContent&) {
  return Answer(connection, 404, kText, "there are /metrics, /healthz and /readyz\n");
}

// What civetweb calls with the content as its data.
template <int (*handler)(mg_connection*, const HttpContent&)>
int Handle(mg_connection* connection, void* data) {
  if (!IsRead(connection)) return Answer(connection, 405, kText, "only GET and HEAD\n");
  return handler(connection, *static_cast<const HttpContent*>(data));
}

// civetweb says in a message, not in a code, why it does not start. Messages of later are about clients that
// broke off: not worth a line of the log.
struct StartMessages {
  std::atomic<bool> starting{true};
  std::string first;
};

int KeepMessage(const mg_connection* connection, const char* message) {
  auto* kept = static_cast<StartMessages*>(mg_get_user_data(mg_get_context(connection)));
  if (kept->starting && kept->first.empty()) kept->first = message;
  return 1;  // not printed
}

// civetweb looks every 2 s whether it is to stop, and at every new connection: these make it look at once.
void Stop(mg_context* context, const std::string& host, int port) {
  std::atomic<bool> stopped{false};
  std::thread caller([&] {
    while (!stopped) {
      char error[128];
      mg_connection* connection = mg_connect_client(host.c_str(), port, 0, error, sizeof(error));
      if (connection != nullptr) mg_close_connection(connection);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  mg_stop(context);
  stopped = true;
  caller.join();
}

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(HttpContent content) : content_(std::move(content)) {}

  ~Impl() {
    if (context_ == nullptr) return;
    Stop(context_, host_ == "0.0.0.0" ? "127.0.0.1" : host_, port_);
  }

  absl::Status Start(const std::string& listen) {
    const size_t colon = listen.rfind(':');
    if (colon == std::string::npos || colon == 0) {
      return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                       absl::StrCat("'", listen, "' is not ADDRESS:PORT"));
    }
    const char* options[] = {
        "listening_ports",   listen.c_str(), "num_threads", "4", "request_timeout_ms", "5000",
        "enable_keep_alive", "no",           nullptr};
    mg_callbacks callbacks = {};
    callbacks.log_message = KeepMessage;
    context_ = mg_start(&callbacks, &messages_, options);
    messages_.starting = false;
    if (context_ == nullptr) {
      return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                       absl::StrCat("cannot serve metrics on ", listen, ": ", messages_.first));
    }
    mg_server_port port = {};
    mg_get_server_ports(context_, 1, &port);
    host_ = listen.substr(0, colon);
    port_ = port.port;
    address_ = absl::StrCat(host_, ":", port_);
    mg_set_request_handler(context_, "/metrics$", Handle<Metrics>, &content_);
    mg_set_request_handler(context_, "/healthz$", Handle<Health>, &content_);
    mg_set_request_handler(context_, "/readyz$", Handle<Readiness>, &content_);
    mg_set_request_handler(context_, "/**", Handle<Missing>, &content_);
    return absl::OkStatus();
  }

  const std::string& address() const { return address_; }

 private:
  HttpContent content_;
  StartMessages messages_;
  mg_context* context_ = nullptr;
  std::string host_, address_;
  int port_ = 0;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;
const std::string& HttpServer::address() const { return impl_->address(); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const std::string& listen,
                                                               HttpContent content) {
  auto impl = std::make_unique<Impl>(std::move(content));
  SEQPAR_RETURN_IF_ERROR(impl->Start(listen));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

}  // namespace seqpar
