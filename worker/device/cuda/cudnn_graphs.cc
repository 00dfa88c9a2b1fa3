#include "worker/device/cuda/cudnn_graphs.h"

// Its writing of graphs as JSON is not used, and takes half of the time to compile.
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cuda_runtime.h>
#include <cudnn_frontend.h>

#include <exception>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/device/cuda/cudnn_library.h"

namespace seqpar::cuda {

namespace fe = cudnn_frontend;

class CudnnGraph {
 public:
  fe::graph::Graph graph;
};

namespace {

using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;
enum Uid : int64_t { kQ = 1, kK, kV, kO, kLse, kDout, kDq, kDk, kDv };

// [outer][heads][tokens][width] in dimensions, anywhere in memory.
template <typename Attributes>
void Describe(Attributes* tensor, Uid uid, fe::DataType_t type, const CudnnShape& s, int64_t tokens,
              int64_t width, const CudnnStrides& strides) {
  tensor->set_uid(uid)
      .set_data_type(type)
      .set_dim({s.outer, s.heads, tokens, width})
      .set_stride({strides.outer, strides.head, strides.token, 1});
}

// [outer][tokens][heads][head_dim] and [outer][heads][tokens] without gaps.
CudnnStrides PackedRows(const CudnnShape& s, int64_t tokens) {
  return {tokens * s.heads * s.head_dim, s.head_dim, s.heads * s.head_dim};
}
CudnnStrides PackedLines(const CudnnShape& s) { return {s.heads * s.queries, s.queries, 1}; }

// cuDNN's band is i - left < j <= i + right, shifted by keys - queries where it is aligned at the end.
template <typename Attributes>
void SetMask(const CudnnShape& s, Attributes* attributes) {
  attributes->set_attn_scale(s.scale);
  const bool band = s.mask == CudnnMask::kBand;
  attributes->set_diagonal_alignment(band ? fe::DiagonalAlignment_t::BOTTOM_RIGHT
                                          : fe::DiagonalAlignment_t::TOP_LEFT);
  if (band || s.mask == CudnnMask::kCausal) attributes->set_diagonal_band_right_bound(0);
  if (band) attributes->set_diagonal_band_left_bound(static_cast<int>(s.keys - s.queries + 1));
  if (s.mask == CudnnMask::kAfter) attributes->set_diagonal_band_left_bound(1);
}

void Build(const CudnnShape& s, fe::graph::Graph* graph) {
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto input = [&](Uid uid, fe::DataType_t type, int64_t tokens, int64_t width,
                         const CudnnStrides& strides) {
    fe::graph::Tensor_attributes tensor;
    Describe(&tensor, uid, type, s, tokens, width, strides);
    return graph->tensor(tensor);
  };
  const auto rows = [&](Uid uid, int64_t tokens, const CudnnStrides& strides) {
    return input(uid, fe::DataType_t::BFLOAT16, tokens, s.head_dim, strides);
  };
  const auto output = [&](const Tensor& tensor, Uid uid, int64_t tokens) {
    tensor->set_output(true);
    Describe(tensor.get(), uid, fe::DataType_t::BFLOAT16, s, tokens, s.head_dim, PackedRows(s, tokens));
  };
  const Tensor q = rows(kQ, s.queries, s.q), k = rows(kK, s.keys, s.k), v = rows(kV, s.keys, s.v);
  if (s.pass == CudnnPass::kForward) {
    auto attributes = fe::graph::SDPA_attributes().set_generate_stats(true);
    SetMask(s, &attributes);
    const auto outputs = graph->sdpa(q, k, v, std::move(attributes));
    output(outputs[0], kO, s.queries);
    outputs[1]->set_output(true);
    Describe(outputs[1].get(), kLse, fe::DataType_t::FLOAT, s, s.queries, 1, PackedLines(s));
    return;
  }
  const Tensor o = rows(kO, s.queries, PackedRows(s, s.queries)), dout = rows(kDout, s.queries, s.dout);
  const Tensor lse = input(kLse, fe::DataType_t::FLOAT, s.queries, 1, PackedLines(s));
  auto attributes =
      fe::graph::SDPA_backward_attributes().set_deterministic_algorithm(s.pass == CudnnPass::kBackwardFixed);
  SetMask(s, &attributes);
  const auto outputs = graph->sdpa_backward(q, k, v, o, dout, lse, std::move(attributes));
  output(outputs[0], kDq, s.queries);
  output(outputs[1], kDk, s.keys);
  output(outputs[2], kDv, s.keys);
}

absl::Status Failed(const std::string& what) {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal, absl::StrCat("cuDNN: ", what));
}

class Graphs : public CudnnGraphs {
 public:
  explicit Graphs(cudnnHandle_t handle) : handle_(handle) {}
  ~Graphs() override { cudnnDestroy(handle_); }

  // cudnn-frontend reports most errors and throws the others.
  CudnnKernel Make(const CudnnShape& shape) override {
    auto made = std::make_shared<CudnnGraph>();
    fe::graph::Graph& graph = made->graph;
    CudnnKernel kernel;
    try {
      Build(shape, &graph);
      if (graph.validate().is_bad() || graph.build_operation_graph(handle_).is_bad() ||
          graph.create_execution_plans({fe::HeurMode_t::A}).is_bad() ||
          graph.check_support(handle_).is_bad() || graph.build_plans(handle_).is_bad() ||
          graph.get_workspace_size(kernel.workspace_bytes).is_bad()) {
        return {};
      }
    } catch (const std::exception&) {
      return {};
    }
    kernel.graph = std::move(made);
    return kernel;
  }

  absl::Status Forward(cudaStream_t stream, const CudnnGraph& graph, const CudnnForwardCall& c,
                       void* workspace) override {
    return Execute(stream, graph, {{kQ, c.q}, {kK, c.k}, {kV, c.v}, {kO, c.out}, {kLse, c.lse}}, workspace);
  }
  absl::Status Backward(cudaStream_t stream, const CudnnGraph& graph, const CudnnBackwardCall& c,
                        void* workspace) override {
    return Execute(stream, graph,
                   {{kQ, c.q},
                    {kK, c.k},
                    {kV, c.v},
                    {kO, c.o},
                    {kLse, c.lse},
                    {kDout, c.dout},
                    {kDq, c.dq},
                    {kDk, c.dk},
                    {kDv, c.dv}},
                   workspace);
  }

 private:
  absl::Status Execute(cudaStream_t stream, const CudnnGraph& graph,
                       const std::vector<std::pair<Uid, const void*>>& operands, void* workspace) {
    std::unordered_map<int64_t, void*> pack;
    for (const auto& [uid, data] : operands) pack.emplace(uid, const_cast<void*>(data));
    try {
      const cudnnStatus_t set = cudnnSetStream(handle_, stream);
      if (set != CUDNN_STATUS_SUCCESS) return Failed(cudnnGetErrorString(set));
      auto status = graph.graph.execute(handle_, pack, workspace);
      if (status.is_bad()) return Failed(status.get_message());
    } catch (const std::exception& error) {
      return Failed(error.what());
    }
    return absl::OkStatus();
  }

  const cudnnHandle_t handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudnnGraphs>> CudnnGraphs::Create() {
  SEQPAR_RETURN_IF_ERROR(OpenCudnn());
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = cudnnCreate(&handle);
  if (status != CUDNN_STATUS_SUCCESS) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                     absl::StrCat("cuDNN: ", cudnnGetErrorString(status)));
  }
  return std::unique_ptr<CudnnGraphs>(std::make_unique<Graphs>(handle));
}

}  // namespace seqpar::cuda
