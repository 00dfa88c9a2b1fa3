#include "worker/executor/tensor_reader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "common/tensor/seeded.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

class TensorReaderTest : public ::testing::Test {
 protected:
  // A file with `tensor` in `dtype`, element i of value i / 8 - 3: exact in every type here.
  std::string Write(const WeightInfo& tensor, DType dtype) {
    SafetensorsHeader layout;
    std::string bytes = BuildSafetensorsHeader(
        {{"other", DType::kF32, {5}}, {tensor.name, dtype, tensor.shape}}, {}, &layout);
    bytes.resize(static_cast<size_t>(layout.file_bytes));
    const TensorInfo& info = layout.tensors.at(tensor.name);
    for (int64_t i = 0; i < info.elements(); ++i) {
      const float value = Value(i);
      ConvertElements(&value, DType::kF32, &bytes[static_cast<size_t>(info.offset + i * SizeOf(dtype))],
                      dtype, 1);
    }
    const std::string path = folder_ / "weights.safetensors";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  static float Value(int64_t i) { return static_cast<float>(i) / 8 - 3; }

  static std::vector<float> Read(TensorReader* reader, const WeightInfo& tensor, const TensorBlock& block) {
    std::vector<float> out(static_cast<size_t>(block.row_count() * block.cols.size()), NAN);
    const absl::Status read = reader->Read(tensor, block, DType::kF32, out.data());
    EXPECT_TRUE(read.ok()) << read;
    return out;
  }

  // The block cut out of the whole tensor.
  static std::vector<float> Cut(const std::vector<float>& whole, const MatrixShape& shape,
                                const TensorBlock& block) {
    std::vector<float> out;
    for (int64_t row = block.rows.begin; row < block.rows.end; row += block.row_stride) {
      for (int64_t col = block.cols.begin; col < block.cols.end; ++col)
        out.push_back(whole[row * shape.cols + col]);
    }
    return out;
  }

  TempFolder folder_;
};

const WeightInfo kMatrix{"model.layers.0.self_attn.o_proj.weight", {7, 6}, 1.0 / 6, 0};
const WeightInfo kVector{"model.layers.0.input_layernorm.weight", {9}, 0, 1};
const WeightInfo kTokens{"hidden_states", {2, 5, 3}, 1, 0};

std::vector<TensorBlock> BlocksOf(const MatrixShape& shape) {
  return {{{0, shape.rows}, 1, {0, shape.cols}},  // whole
          {{2, 5}, 1, {0, shape.cols}},           // rows: q, k, v, gate, up and their biases
          {{0, shape.rows}, 1, {0, 1}},           // columns: o, down
          {{1, 6}, 1, {0, 1}},                    // both
          {{1, shape.rows}, 3, {0, shape.cols}},  // every third row: striped tokens
          {{3, 3}, 1, {0, shape.cols}}};          // nothing
}

TEST_F(TensorReaderTest, APartOfAFileIsThatPartOfTheWhole) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const WeightInfo& tensor : {kMatrix, kVector, kTokens}) {
      auto reader = OpenTensorReader(Write(tensor, dtype));
      ASSERT_TRUE(reader.ok()) << reader.status();
      const MatrixShape shape = MatrixShapeOf(tensor.shape);
      std::vector<float> whole;
      for (int64_t i = 0; i < shape.rows * shape.cols; ++i) whole.push_back(Value(i));
      for (const TensorBlock& block : BlocksOf(shape)) {
        EXPECT_EQ(Read(reader->get(), tensor, block), Cut(whole, shape, block)) << tensor.name;
      }
    }
  }
}

TEST_F(TensorReaderTest, APartOfASeedIsThatPartOfTheWhole) {
  const auto reader = MakeSeededReader(7);
  for (const WeightInfo& tensor : {kMatrix, kTokens}) {
    const MatrixShape shape = MatrixShapeOf(tensor.shape);
    std::vector<float> whole(static_cast<size_t>(shape.rows * shape.cols));
    SeededUniform(7, tensor.name, tensor.seeded_variance, 0, shape.rows * shape.cols, whole.data());
    for (const TensorBlock& block : BlocksOf(shape)) {
      EXPECT_EQ(Read(reader.get(), tensor, block), Cut(whole, shape, block)) << tensor.name;
    }
  }
  EXPECT_EQ(Read(reader.get(), kVector, {{0, 9}, 1, {0, 1}}), std::vector<float>(9, 1.0f));
}

// Of a million values a handful lies so near the middle between two numbers of bfloat16 that rounding to
// float32 first would choose the farther one.
TEST_F(TensorReaderTest, SeededValuesAreRoundedOnceToTheType) {
  const auto reader = MakeSeededReader(7);
  const WeightInfo large{kTokens.name, {1, 1024, 1024}, 1, 0};
  const TensorBlock all{{0, 1024}, 1, {0, 1024}};
  std::vector<double> exact(1024 * 1024);
  SeededUniform(7, large.name, 1, 0, 1024 * 1024, exact.data());
  std::vector<BF16> rounded(exact.size());
  ASSERT_TRUE(reader->Read(large, all, DType::kBF16, rounded.data()).ok());
  const std::vector<float> single = Read(reader.get(), large, all);
  int twice_is_farther = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto distance = [&](int steps) {
      const BF16 there{static_cast<uint16_t>(rounded[i].bits + steps)};
      return std::fabs(static_cast<double>(ToFloat(there)) - exact[i]);
    };
    ASSERT_LE(distance(0), distance(1)) << i;
    ASSERT_LE(distance(0), distance(-1)) << i;
    ASSERT_EQ(single[i], static_cast<float>(exact[i])) << i;
    twice_is_farther += ToBF16(single[i]).bits != rounded[i].bits;
  }
  EXPECT_GT(twice_is_farther, 0) << "no value of these tells once from twice";
}

TEST_F(TensorReaderTest, WhatIsMissingOrMisshapenIsRefusedByName) {
  auto reader = OpenTensorReader(Write(kMatrix, DType::kF32));
  ASSERT_TRUE(reader.ok());
  float out[64];
  const absl::Status missing = (*reader)->Read(kVector, {{0, 9}, 1, {0, 1}}, DType::kF32, out);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.message().find(kVector.name), absl::string_view::npos);
  WeightInfo other = kMatrix;
  other.shape = {6, 7};
  const absl::Status misshapen = (*reader)->Read(other, {{0, 6}, 1, {0, 7}}, DType::kF32, out);
  EXPECT_EQ(misshapen.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(misshapen.message().find("[7, 6], not [6, 7]"), absl::string_view::npos) << misshapen;
  EXPECT_FALSE(OpenTensorReader(folder_ / "absent").ok());
}

}  // namespace
}  // namespace seqpar
