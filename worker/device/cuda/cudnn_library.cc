#include "worker/device/cuda/cudnn_library.h"

#include <cudnn.h>
#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar::cuda {
namespace {

// The oldest that our tests ran on: others are known for wrong results in shapes of ours.
constexpr size_t kVersionMin = 91900;

struct CudnnCalls {
  decltype(&cudnnGetVersion) get_version;
  decltype(&cudnnGetErrorString) get_error_string;
  decltype(&cudnnGetLastErrorString) get_last_error_string;
  decltype(&cudnnCreate) create;
  decltype(&cudnnDestroy) destroy;
  decltype(&cudnnSetStream) set_stream;
  decltype(&cudnnGetStream) get_stream;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&cudnnBackendSetAttribute) set_attribute;
  decltype(&cudnnBackendGetAttribute) get_attribute;
  decltype(&cudnnBackendFinalize) finalize;
  decltype(&cudnnBackendExecute) execute;
};
CudnnCalls calls;  // of the library that was opened

std::string TextOf(size_t version) {
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status Missing(const std::string& what) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                   absl::StrCat("cuDNN ", TextOf(kVersionMin), " or newer is needed: ", what,
                                " (SEQPAR_CUDNN_LIBRARY names another file)"));
}

absl::Status OpenOnce() {
  const char* override_path = std::getenv("SEQPAR_CUDNN_LIBRARY");
  const char* path = override_path != nullptr && *override_path != '\0' ? override_path : "libcudnn.so.9";
  // Never closed: what it started may outlive every use of it.
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return Missing(dlerror());
  std::string absent;
  const auto find = [&](auto* call, const char* name) {
    *call = reinterpret_cast<std::remove_reference_t<decltype(*call)>>(dlsym(handle, name));
    if (*call == nullptr) absl::StrAppend(&absent, absent.empty() ? "" : ", ", name);
  };
  find(&calls.get_version, "cudnnGetVersion");
  find(&calls.get_error_string, "cudnnGetErrorString");
  find(&calls.get_last_error_string, "cudnnGetLastErrorString");
  find(&calls.create, "cudnnCreate");
  find(&calls.destroy, "cudnnDestroy");
  find(&calls.set_stream, "cudnnSetStream");
  find(&calls.get_stream, "cudnnGetStream");
  find(&calls.create_descriptor, "cudnnBackendCreateDescriptor");
  find(&calls.destroy_descriptor, "cudnnBackendDestroyDescriptor");
  find(&calls.set_attribute, "cudnnBackendSetAttribute");
  find(&calls.get_attribute, "cudnnBackendGetAttribute");
  find(&calls.finalize, "cudnnBackendFinalize");
  find(&calls.execute, "cudnnBackendExecute");
  if (!absent.empty()) return Missing(absl::StrCat(path, " lacks ", absent));
  const size_t version = calls.get_version();
  if (version < kVersionMin) return Missing(absl::StrCat(path, " is ", TextOf(version)));
  return absl::OkStatus();
}

}  // namespace

absl::Status OpenCudnn() {
  static const auto* const opened = new absl::Status(OpenOnce());
  return *opened;
}

}  // namespace seqpar::cuda

using seqpar::cuda::calls;

size_t cudnnGetVersion() { return calls.get_version(); }
const char* cudnnGetErrorString(cudnnStatus_t status) { return calls.get_error_string(status); }
void cudnnGetLastErrorString(char* message, size_t max_size) {
  calls.get_last_error_string(message, max_size);
}
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return calls.create(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return calls.destroy(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return calls.set_stream(handle, stream);
}
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  return calls.get_stream(handle, stream);
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* descriptor) {
  return calls.create_descriptor(type, descriptor);
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return calls.destroy_descriptor(descriptor);
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* elements) {
  return calls.set_attribute(descriptor, name, type, count, elements);
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t* count,
                                       void* elements) {
  return calls.get_attribute(descriptor, name, type, requested, count, elements);
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) { return calls.finalize(descriptor); }
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t variant_pack) {
  return calls.execute(handle, plan, variant_pack);
}
