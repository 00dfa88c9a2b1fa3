#include "worker/executor/calibrate.h"

#include <google/protobuf/util/json_util.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "common/comm/measure_link.h"
#include "common/job/proto.h"
#include "common/job/tensors.h"
#include "worker/backend/backend.h"
#include "worker/device/cpu/calibrate.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/executor/die_with_parent.h"
#include "worker/executor/measure_device.h"
#include "worker/executor/tensor_reader.h"

namespace seqpar {
namespace {

constexpr int64_t kSeededRows = 512, kSeededCols = 512;
constexpr std::chrono::milliseconds kConnectDeadline{20'000};

struct Arguments {
  int threads = 0, slot = -1, slots = 0, by_cpu_time = 0, gpu = -1;
};

bool ParseArguments(int argc, char** argv, Arguments* arguments) {
  for (int i = 0; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    int* value = flag == "--threads"       ? &arguments->threads
                 : flag == "--slot"        ? &arguments->slot
                 : flag == "--slots"       ? &arguments->slots
                 : flag == "--by-cpu-time" ? &arguments->by_cpu_time
                 : flag == "--gpu"         ? &arguments->gpu
                                           : nullptr;
    if (value == nullptr || !absl::SimpleAtoi(argv[i + 1], value)) return false;
  }
  return argc % 2 == 0 && arguments->threads > 0 && arguments->slot >= 0 &&
         arguments->slot < arguments->slots;
}

// A device, and its transport where there is one.
struct Measured {
  std::unique_ptr<Device> alone;
  std::unique_ptr<RankBackend> backend;
  Device* device() const { return backend != nullptr ? backend->device() : alone.get(); }

  static absl::StatusOr<Measured> Create(const Arguments& arguments) {
    BackendConfig config;
    config.kind = arguments.gpu >= 0 ? "cuda" : "cpu";
    config.ordinal = std::max(0, arguments.gpu);
    config.threads = arguments.threads;
    absl::StatusOr<std::unique_ptr<RankBackend>> backend = MakeRankBackend(config);
    Measured measured;
    if (backend.ok()) {
      measured.backend = std::move(backend).value();
    } else if (arguments.gpu >= 0) {
      return backend.status();
    } else {
      std::cerr << "calibration: " << backend.status().message() << "\n";
      SEQPAR_ASSIGN_OR_RETURN(measured.alone, MakeCpuDevice({.threads = arguments.threads}));
    }
    return measured;
  }
};

// The devices of the node as one group; null where they are not connected.
class Group {
 public:
  // Tells the daemon this device's part of a bootstrap and connects with those that it answers.
  static absl::StatusOr<Group> Create(const Arguments& arguments, const Measured& measured) {
    Group group;
    absl::StatusOr<std::string> blob = absl::UnavailableError("no transport");
    if (measured.backend != nullptr) blob = measured.backend->Blob(arguments.slot);
    std::cout << "blob " << (blob.ok() ? absl::BytesToHexString(*blob) : "-") << std::endl;
    if (arguments.slots == 1) return absl::StatusOr<Group>(std::move(group));
    std::vector<std::string> blobs;
    std::string line;
    while (static_cast<int>(blobs.size()) < arguments.slots && std::getline(std::cin, line)) {
      if (line == "alone" || !blob.ok()) return absl::StatusOr<Group>(std::move(group));
      blobs.push_back(absl::HexStringToBytes(line));
    }
    if (static_cast<int>(blobs.size()) != arguments.slots) {
      return absl::UnavailableError("the daemon gave no table of addresses");
    }
    SEQPAR_ASSIGN_OR_RETURN(group.world_,
                            measured.backend->Connect(arguments.slot, blobs, kConnectDeadline, nullptr));
    group.comm_ = measured.device()->CreateStream("comm");
    SEQPAR_RETURN_IF_ERROR(group.Meet());
    std::cout << "connected" << std::endl;
    return absl::StatusOr<Group>(std::move(group));
  }

  // Returns when every device has come.
  absl::Status Meet() {
    if (world_ == nullptr) return absl::OkStatus();
    world_->Barrier(*comm_);
    return comm_->Synchronize();
  }
  Communicator* world() { return world_.get(); }
  Stream* comm() { return comm_.get(); }

 private:
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Stream> comm_;
};

absl::StatusOr<double> SeededValuesPerSecond() {
  const std::unique_ptr<TensorReader> reader = MakeSeededReader(1);
  const WeightInfo tensor{"calibration", {kSeededRows, kSeededCols}, 1, 0};
  std::vector<float> values(kSeededRows * kSeededCols);
  const TensorBlock all{{0, kSeededRows}, 1, {0, kSeededCols}};
  const auto start = std::chrono::steady_clock::now();
  SEQPAR_RETURN_IF_ERROR(reader->Read(tensor, all, DType::kF32, values.data()));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(values.size()) / took.count();
}

absl::Status Measure(const Arguments& arguments) {
  SEQPAR_ASSIGN_OR_RETURN(const Measured it, Measured::Create(arguments));
  SEQPAR_ASSIGN_OR_RETURN(Group group, Group::Create(arguments, it));
  Device* const device = it.device();
  DeviceRates rates;
  if (arguments.gpu >= 0) {
    SEQPAR_ASSIGN_OR_RETURN(rates, MeasureDeviceRates(*device));
  } else {
    CpuCalibration how;
    how.by_cpu_time = arguments.by_cpu_time != 0;
    how.together = [&group] { return group.Meet(); };
    SEQPAR_ASSIGN_OR_RETURN(rates, MeasureCpuRates(*device, how));
  }
  SEQPAR_ASSIGN_OR_RETURN(rates.seeded_values, SeededValuesPerSecond());
  v1::NodeSpec measured;
  DeviceSpec spec;
  spec.rates = rates;
  *measured.add_devices() = DeviceToProto(spec);
  if (group.world() != nullptr) {
    const auto compute = device->CreateStream("compute");
    SEQPAR_ASSIGN_OR_RETURN(const MeasuredLink link,
                            MeasureLink(*device, *group.world(), *compute, *group.comm()));
    *measured.mutable_local() = LinkToProto({link.latency, link.bandwidth});
    SEQPAR_RETURN_IF_ERROR(group.Meet());  // nobody leaves while another may wait for its messages
  }
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(measured, &json);
  if (!printed.ok()) return absl::InternalError(printed.ToString());
  std::cout << json << std::endl;
  return absl::OkStatus();
}

}  // namespace

int CalibrateMain(int argc, char** argv) {
  DieWithParent();
  EndWithPipe(STDOUT_FILENO);
  prctl(PR_SET_PTRACER, getppid());  // as executors do: UCX's CMA between the daemon's children
  Arguments arguments;
  if (!ParseArguments(argc, argv, &arguments)) return 2;
  const absl::Status measured = Measure(arguments);
  if (measured.ok()) return 0;
  std::cerr << "calibration: " << measured.message() << "\n";
  std::cout << "error " << absl::StrReplaceAll(measured.message(), {{"\n", " "}}) << std::endl;
  return 1;
}

}  // namespace seqpar
