#include "coordinator/api/rpc_observer.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_interceptor.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace seqpar {
namespace {

using grpc::experimental::InterceptionHookPoints;

// One call, from its arrival to its status.
class Interceptor : public grpc::experimental::Interceptor {
 public:
  Interceptor(RpcObserver* observer, std::string method)
      : observer_(observer), method_(std::move(method)), begin_(std::chrono::steady_clock::now()) {
    observer_->Begun(method_);
  }
  ~Interceptor() override { End(absl::StatusCode::kCancelled); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      // The codes of gRPC and of Abseil are the same numbers.
      End(static_cast<absl::StatusCode>(methods->GetSendStatus().error_code()));
    }
    methods->Proceed();
  }

 private:
  void End(absl::StatusCode code) {
    if (observer_ == nullptr) return;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_;
    std::exchange(observer_, nullptr)->Ended(method_, absl::StatusCodeToString(code), seconds.count());
  }

  RpcObserver* observer_;  // null: it has been told the end
  const std::string method_;
  const std::chrono::steady_clock::time_point begin_;
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(RpcObserver* observer) : observer_(observer) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const std::string path = info->method();  // "/seqpar.v1.JobService/GetJob"
    return new Interceptor(observer_, path.empty() ? path : path.substr(1));
  }

 private:
  RpcObserver* const observer_;
};

}  // namespace

void ObserveRpcs(RpcObserver* observer, grpc::ServerBuilder* builder) {
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(std::make_unique<Factory>(observer));
  builder->experimental().SetInterceptorCreators(std::move(factories));
}

}  // namespace seqpar
