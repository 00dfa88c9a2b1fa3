// What P ranks write is what one rank writes, byte for byte, and every byte has one writer.
#include "worker/executor/merge.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "common/job/tensors.h"
#include "tests/support/temp_folder.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/executor/shard.h"

namespace seqpar {
namespace {

JobSpec MakeJob() {
  JobSpec job;
  job.config.hidden_size = 12;
  job.config.heads = 7;
  job.config.kv_heads = 1;
  job.config.head_dim = 4;
  job.config.intermediate_size = 10;
  job.config.layers = 2;
  job.config.qkv_bias = job.config.mlp_bias = true;
  job.pass = JobPass::kForwardBackward;
  job.batch = 2;
  job.tokens = 31;
  job.output_hidden_states = job.output_hidden_grad = job.output_weight_grads = true;
  return job;
}

class MergeTest : public ::testing::Test {
 protected:
  MergeTest() : device_(*MakeCpuDevice({})), stream_(device_->CreateStream("test")) {}

  // A staging file full of `fill`.
  std::string MakeFile(const JobSpec& job, char fill) {
    SafetensorsHeader layout;
    std::string bytes = BuildOutputHeader(job, &layout);
    bytes.resize(static_cast<size_t>(layout.file_bytes), fill);
    const std::string path = folder_ / "staging";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // Writes the part of `rank`: values come from seeds, so that every mesh means the same tensors.
  void WriteRank(const JobSpec& job, const Mesh& mesh, LayoutKind layout, int rank, const std::string& path) {
    Transfers transfers(device_.get(), stream_.get(), [] {});
    const TokenShare tokens = TokenLayout(mesh, layout, job.tokens).OfRank(rank);
    auto writer = OutputWriter::Open(job, tokens, roots_, path, &transfers);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const auto reader = MakeSeededReader(5);
    for (const char* name : {kHiddenStates, kHiddenStatesGrad}) {
      const int64_t rows = tokens.size() * job.batch;
      Buffer buffer = *device_->Allocate(rows * job.config.hidden_size * 4, "test");
      const Matrix matrix(buffer.data(), DType::kF32, rows, job.config.hidden_size);
      ASSERT_TRUE(transfers.LoadTokens(reader.get(), TokenTensor(job, name), tokens, matrix).ok());
      ASSERT_TRUE(writer->WriteTokens(name, matrix).ok());
    }
    const HeadLayout heads(mesh, job.config.heads, job.config.kv_heads);
    const WeightTable table(job.config, mesh, heads, rank);
    for (int layer = 0; layer < job.config.layers; ++layer) {
      const WeightSet set = *WeightSet::Create(&table, device_.get(), DType::kF32, "test");
      ASSERT_TRUE(LoadLayer(job.config, layer, reader.get(), set, &transfers).ok());
      ASSERT_TRUE(writer->WriteWeightGradients(layer, set).ok());
    }
    ASSERT_TRUE(writer->Sync().ok());
  }

  TempFolder folder_;
  const DataRoots roots_ = *DataRoots::Create({{"data", folder_.path()}});
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
};

TEST_F(MergeTest, AnyMeshWritesTheSameFileAsOneRankInAnyOrder) {
  const JobSpec job = MakeJob();
  const std::string path = MakeFile(job, '\x55');
  WriteRank(job, {1, 1, 1, 1}, LayoutKind::kContiguous, 0, path);
  const std::string want = Contents(path);
  const std::pair<Mesh, LayoutKind> cases[] = {{{1, 1, 4, 4}, LayoutKind::kZigzag},
                                               {{1, 1, 5, 5}, LayoutKind::kStriped},
                                               {{3, 1, 1, 1}, LayoutKind::kContiguous},
                                               {{7, 1, 1, 1}, LayoutKind::kContiguous},
                                               {{2, 3, 2, 2}, LayoutKind::kZigzag}};
  for (const auto& [mesh, layout] : cases) {
    SCOPED_TRACE(mesh.ToString());
    MakeFile(job, '\xaa');
    for (int rank = mesh.size() - 1; rank >= 0; --rank) WriteRank(job, mesh, layout, rank, path);
    EXPECT_TRUE(Contents(path) == want);
  }
}

TEST_F(MergeTest, NoByteIsWrittenTwice) {
  const JobSpec job = MakeJob();
  const Mesh mesh{2, 2, 2, 2};
  // A byte that a rank writes differs from the fill of at least one of two runs.
  std::map<size_t, int> writers;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    std::string contents[2];
    for (const int fill : {0, 1}) {
      const std::string path = MakeFile(job, static_cast<char>(fill == 0 ? '\x55' : '\xaa'));
      WriteRank(job, mesh, LayoutKind::kZigzag, rank, path);
      contents[fill] = Contents(path);
    }
    for (size_t i = 0; i < contents[0].size(); ++i) writers[i] += contents[0][i] == contents[1][i];
  }
  SafetensorsHeader layout;
  const size_t header = BuildOutputHeader(job, &layout).size();
  for (auto byte = writers.lower_bound(header); byte != writers.end(); ++byte) {
    ASSERT_EQ(byte->second, 1) << "byte " << byte->first;
  }
}

TEST_F(MergeTest, AStagingFileThatIsNotTheJobsIsRefused) {
  const JobSpec job = MakeJob();
  Transfers transfers(device_.get(), stream_.get(), [] {});
  const TokenShare all({{0, job.tokens, 1}});
  EXPECT_EQ(OutputWriter::Open(job, all, roots_, folder_ / "gone", &transfers).status().code(),
            absl::StatusCode::kNotFound);
  std::ofstream(folder_ / "short") << "too short";
  EXPECT_EQ(OutputWriter::Open(job, all, roots_, folder_ / "short", &transfers).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(OutputWriter::Open(job, all, roots_, "", &transfers).ok()) << "no output: nothing to open";
}

}  // namespace
}  // namespace seqpar
