#include "tests/bench/kernel_timeline.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#ifdef SEQPAR_CUPTI_LIBRARY
#include <cupti.h>
#include <dlfcn.h>

#include "common/base/status.h"
#endif

namespace seqpar {

#ifdef SEQPAR_CUPTI_LIBRARY
namespace {

#if CUPTI_API_VERSION >= 130000
using KernelRecord = CUpti_ActivityKernel10;
using CopyRecord = CUpti_ActivityMemcpy6;
#else
using KernelRecord = CUpti_ActivityKernel9;
using CopyRecord = CUpti_ActivityMemcpy5;
#endif
using FillRecord = CUpti_ActivityMemset4;

constexpr size_t kBufferBytes = size_t{4} << 20;
constexpr size_t kAlignment = 8;  // CUPTI asks for it
constexpr CUpti_ActivityKind kKinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                         CUPTI_ACTIVITY_KIND_MEMSET};

// What is called of the library; types by its header.
struct Cupti {
  decltype(&cuptiGetVersion) get_version;
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks;
  decltype(&cuptiActivityEnable) enable;
  decltype(&cuptiActivityDisable) disable;
  decltype(&cuptiActivityFlushAll) flush;
  decltype(&cuptiActivityGetNextRecord) next;
  decltype(&cuptiActivityGetNumDroppedRecords) dropped;
};

// CUPTI's callbacks take no argument of ours. Written by its thread while records are flushed, which Stop
// waits for.
struct Recorded {
  Cupti cupti{};
  std::vector<DeviceWork> work;
  size_t dropped = 0;
};
Recorded recorded;

void CUPTIAPI GiveBuffer(uint8_t** buffer, size_t* size, size_t* records_max) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, kBufferBytes));
  *size = kBufferBytes;
  *records_max = 0;
}

void Add(const CUpti_Activity* record) {
  const auto add = [](const auto* r, const char* name) {
    recorded.work.push_back(
        {static_cast<int64_t>(r->start), static_cast<int64_t>(r->end), r->streamId, name});
  };
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto* kernel = reinterpret_cast<const KernelRecord*>(record);
      return add(kernel, kernel->name == nullptr ? "?" : kernel->name);
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY:
      return add(reinterpret_cast<const CopyRecord*>(record), "copy");
    case CUPTI_ACTIVITY_KIND_MEMSET:
      return add(reinterpret_cast<const FillRecord*>(record), "fill");
    default:
      return;
  }
}

void CUPTIAPI TakeBuffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t, size_t valid) {
  CUpti_Activity* record = nullptr;
  while (recorded.cupti.next(buffer, valid, &record) == CUPTI_SUCCESS) Add(record);
  size_t dropped = 0;
  recorded.cupti.dropped(context, stream, &dropped);
  recorded.dropped += dropped;
  std::free(buffer);
}

class CuptiTimeline : public KernelTimeline {
 public:
  absl::Status Start() override {
    recorded.cupti.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    recorded.work.clear();
    recorded.dropped = 0;
    for (const CUpti_ActivityKind kind : kKinds) {
      if (recorded.cupti.enable(kind) != CUPTI_SUCCESS) return absl::InternalError("CUPTI records nothing");
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<DeviceWork>> Stop() override {
    for (const CUpti_ActivityKind kind : kKinds) recorded.cupti.disable(kind);
    recorded.cupti.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    if (recorded.dropped > 0) {
      return absl::DataLossError(absl::StrCat("CUPTI lost ", recorded.dropped, " records"));
    }
    std::vector<DeviceWork> work = std::move(recorded.work);
    std::sort(work.begin(), work.end(),
              [](const DeviceWork& a, const DeviceWork& b) { return a.begin_ns < b.begin_ns; });
    return work;
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelTimeline>> KernelTimeline::Create() {
  void* library = dlopen(SEQPAR_CUPTI_LIBRARY, RTLD_NOW | RTLD_LOCAL);  // for the life of the process
  if (library == nullptr) return absl::UnavailableError(dlerror());
  bool whole = true;
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_reference_t<decltype(*function)>>(dlsym(library, name));
    whole = whole && *function != nullptr;
  };
  Cupti& c = recorded.cupti;
  find("cuptiGetVersion", &c.get_version);
  find("cuptiActivityRegisterCallbacks", &c.register_callbacks);
  find("cuptiActivityEnable", &c.enable);
  find("cuptiActivityDisable", &c.disable);
  find("cuptiActivityFlushAll", &c.flush);
  find("cuptiActivityGetNextRecord", &c.next);
  find("cuptiActivityGetNumDroppedRecords", &c.dropped);
  if (!whole) return absl::UnavailableError(absl::StrCat(SEQPAR_CUPTI_LIBRARY, " lacks functions"));
  uint32_t version = 0;
  // Records are laid out as its own header says.
  if (c.get_version(&version) != CUPTI_SUCCESS || version != CUPTI_API_VERSION) {
    return absl::UnavailableError(
        absl::StrCat(SEQPAR_CUPTI_LIBRARY, " has version ", version, ", built for ", CUPTI_API_VERSION));
  }
  if (c.register_callbacks(GiveBuffer, TakeBuffer) != CUPTI_SUCCESS) {
    return absl::UnavailableError("CUPTI takes no buffers");
  }
  return std::unique_ptr<KernelTimeline>(std::make_unique<CuptiTimeline>());
}
#else
absl::StatusOr<std::unique_ptr<KernelTimeline>> KernelTimeline::Create() {
  return absl::UnavailableError("built without CUPTI");
}
#endif

StreamGaps GapsOf(const std::vector<DeviceWork>& work, int64_t longer_than_ns) {
  std::map<uint32_t, int64_t> busy;
  for (const DeviceWork& w : work) busy[w.stream] += w.end_ns - w.begin_ns;
  StreamGaps gaps;
  if (busy.empty()) return gaps;
  const auto busiest = std::max_element(busy.begin(), busy.end(), [](const auto& a, const auto& b) {
                         return a.second < b.second;
                       })->first;
  int64_t first_ns = 0, end_ns = 0;
  const DeviceWork* before = nullptr;
  for (const DeviceWork& w : work) {
    if (w.stream != busiest) continue;
    ++gaps.operations;
    if (before == nullptr) first_ns = w.begin_ns;
    const int64_t gap = before == nullptr ? 0 : std::max<int64_t>(0, w.begin_ns - end_ns);
    gaps.idle_ns += gap;
    gaps.longer += gap > longer_than_ns;
    if (gap > gaps.longest_ns) {
      gaps.longest_ns = gap;
      gaps.longest_after = before->name;
      gaps.longest_before = w.name;
    }
    before = &w;
    end_ns = std::max(end_ns, w.end_ns);
  }
  gaps.span_ns = end_ns - first_ns;
  return gaps;
}

std::string ShortName(const std::string& name) {
  return absl::StrReplaceAll(name.substr(0, 60), {{" ", "_"}});
}

std::vector<std::pair<std::string, int64_t>> TimesByName(const std::vector<DeviceWork>& work) {
  std::map<std::string, int64_t> sums;
  for (const DeviceWork& w : work) sums[w.name] += w.end_ns - w.begin_ns;
  std::vector<std::pair<std::string, int64_t>> sorted(sums.begin(), sums.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

}  // namespace seqpar
