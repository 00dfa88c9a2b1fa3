// The HTTP port of a process: /metrics, /healthz and /readyz.
#ifndef SEQPAR_COMMON_METRICS_HTTP_SERVER_H_
#define SEQPAR_COMMON_METRICS_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// In place of an address: nothing is served.
inline constexpr char kMetricsOff[] = "off";

// Called from the server's threads, several at a time; they must not wait for anything.
struct HttpContent {
  std::function<std::string()> metrics;  // Prometheus's text format
  std::function<absl::Status()> alive;   // OK: its work goes on; else why it is to be ended and started anew
  std::function<absl::Status()> ready;   // OK: it serves; else why it does not
};

// GET and HEAD of /metrics, /healthz and /readyz (200, or 503 with the reason); 404 for any other path, 405
// for any other method. Over civetweb, which prometheus-cpp's own Exposer is made of; that one adds series
// whose names and units are not ours, and has no other paths.
class HttpServer {
 public:
  // `listen`: ADDRESS:PORT; port 0 takes any. UNAVAILABLE where the address cannot be bound, with the cause.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const std::string& listen, HttpContent content);
  // Waits for requests that are being answered.
  ~HttpServer();

  // "127.0.0.1:7701", with the port that was taken.
  const std::string& address() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_HTTP_SERVER_H_
