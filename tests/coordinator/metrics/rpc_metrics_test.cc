// RPCs of a real server, seen by the observer and counted.
#include "coordinator/metrics/rpc_metrics.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/service.grpc.pb.h"
#include "tests/support/scrape.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

TEST(RpcMetricsTest, CountsByMethodAndCode) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  RpcMetrics metrics(&registry);
  metrics.Begun("seqpar.v1.JobService/GetJob");
  metrics.Begun("seqpar.v1.JobService/GetJob");
  EXPECT_EQ(SeriesOf(registry.Scrape()).at("seqpar_rpcs_open{method=\"JobService/GetJob\"}"), 2);
  metrics.Ended("seqpar.v1.JobService/GetJob", "NOT_FOUND", 0.5);
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.at("seqpar_rpcs_open{method=\"JobService/GetJob\"}"), 1);
  EXPECT_EQ(series.at(R"(seqpar_rpcs_total{code="NOT_FOUND",method="JobService/GetJob"})"), 1);
  EXPECT_EQ(series.at(R"(seqpar_rpcs_total{code="OK",method="JobService/GetJob"})"), 0);
  EXPECT_EQ(series.at(R"(seqpar_rpc_seconds_sum{code="NOT_FOUND",method="JobService/GetJob"})"), 0.5);
  EXPECT_EQ(series.at(R"(seqpar_rpc_seconds_count{code="OK",method="JobService/GetJob"})"), 0);
}

// Every coordinator serves them at every scrape, from its start: a histogram of each method with each code
// were 3,570, most of a whole scrape. Numbers are there from the start, so that no first error is missed.
TEST(RpcMetricsTest, EveryCodeIsCountedFromZeroAndTimedOnceSeen) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  RpcMetrics metrics(&registry);
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_LT(series.size(), 400u);
  for (const std::string& method : InfoOf(Metric::kRpcs).labels[0].values) {
    for (const std::string& code : InfoOf(Metric::kRpcs).labels[1].values) {
      const std::string labels = "{code=\"" + code + "\",method=\"" + method + "\"}";
      EXPECT_EQ(series.count("seqpar_rpcs_total" + labels), 1u) << labels;
      EXPECT_EQ(series.count("seqpar_rpc_seconds_count" + labels), code == "OK" ? 1u : 0u) << labels;
    }
  }
}

TEST(RpcMetricsTest, EveryMethodOfTheContractIsKnown) {
  std::set<std::string> methods = {"other"};
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetJobRequest::descriptor()->file(), v1::Hello::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor* service = file->service(i);
      for (int m = 0; m < service->method_count(); ++m) {
        methods.insert(service->name() + "/" + service->method(m)->name());
      }
    }
  }
  const std::vector<std::string>& known = InfoOf(Metric::kRpcsOpen).labels[0].values;
  EXPECT_EQ(std::set<std::string>(known.begin(), known.end()), methods);
}

TEST(RpcMetricsTest, ACallerCannotMakeSeries) {
  MetricRegistry registry(MetricProcess::kCoordinator);
  RpcMetrics metrics(&registry);
  metrics.Begun("a/a");
  metrics.Ended("a/a", "OUT_OF_RANGE", 0);
  const size_t before = SeriesOf(registry.Scrape()).size();
  for (const char* method : {"a/b", "seqpar.v1.JobService/Nope", "", "grpc.health.v1.Health/Check"}) {
    metrics.Begun(method);
    metrics.Ended(method, "DATA_LOSS", 0);
  }
  const auto series = SeriesOf(registry.Scrape());
  EXPECT_EQ(series.size(), before);
  EXPECT_EQ(series.at(R"(seqpar_rpcs_total{code="UNKNOWN",method="other"})"), 5);
  EXPECT_EQ(series.at(R"(seqpar_rpc_seconds_count{code="UNKNOWN",method="other"})"), 5);
}

class Recorder : public RpcObserver {
 public:
  void Begun(const std::string& method) override { Add("begun " + method); }
  void Ended(const std::string& method, const std::string& code, double seconds) override {
    EXPECT_GE(seconds, 0);
    Add("ended " + method + " " + code);
  }
  std::vector<std::string> WaitFor(size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, TestSeconds(30), [&] { return seen_.size() >= count; }));
    return seen_;
  }

 private:
  void Add(std::string what) {
    std::lock_guard<std::mutex> lock(mutex_);
    seen_.push_back(std::move(what));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> seen_;
};

// Knows one job; its stream stays open.
class Service : public v1::JobService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job*) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(request->id() == "j-1" ? grpc::Status::OK
                                           : grpc::Status(grpc::StatusCode::NOT_FOUND, ""));
    return reactor;
  }
  grpc::ServerWriteReactor<v1::JobEvent>* WatchJob(grpc::CallbackServerContext*,
                                                   const v1::WatchJobRequest*) override {
    class Stream : public grpc::ServerWriteReactor<v1::JobEvent> {
     public:
      Stream() { StartWrite(&event_); }
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override { delete this; }

     private:
      const v1::JobEvent event_;
    };
    return new Stream();
  }
};

class RpcObserverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    ObserveRpcs(&recorder_, &builder);
    builder.RegisterService(&service_);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    jobs_ = v1::JobService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port_), grpc::InsecureChannelCredentials()));
  }
  void TearDown() override { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::StatusCode Get(const std::string& id) {
    grpc::ClientContext context;
    v1::GetJobRequest request;
    request.set_id(id);
    v1::Job job;
    return jobs_->GetJob(&context, request, &job).error_code();
  }

  Recorder recorder_;
  Service service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
};

TEST_F(RpcObserverTest, SeesEachCallAndItsCode) {
  EXPECT_EQ(Get("j-1"), grpc::StatusCode::OK);
  EXPECT_EQ(Get("j-2"), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(recorder_.WaitFor(4),
            (std::vector<std::string>{
                "begun seqpar.v1.JobService/GetJob", "ended seqpar.v1.JobService/GetJob OK",
                "begun seqpar.v1.JobService/GetJob", "ended seqpar.v1.JobService/GetJob NOT_FOUND"}));
}

TEST_F(RpcObserverTest, AStreamThatItsClientLeavesEndsOnce) {
  {
    grpc::ClientContext context;
    auto stream = jobs_->WatchJob(&context, v1::WatchJobRequest());
    v1::JobEvent event;
    ASSERT_TRUE(stream->Read(&event));
    context.TryCancel();
    stream->Finish();
  }
  EXPECT_EQ(recorder_.WaitFor(2),
            (std::vector<std::string>{"begun seqpar.v1.JobService/WatchJob",
                                      "ended seqpar.v1.JobService/WatchJob CANCELLED"}));
}

}  // namespace
}  // namespace seqpar
