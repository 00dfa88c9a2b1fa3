// Movement, sums, products and the small kernels of attention against float64, over odd shapes, strides and
// types.
#include <random>

#include "tests/worker/device/kernel_fixture.h"

namespace seqpar {
namespace {

TEST_P(KernelsTest, CopyConvertsBetweenTypesAndStrides) {
  for (const Shape& shape : kShapes) {
    for (DType from_type : {DType::kF32, DType::kBF16}) {
      const auto from = New(1, shape, from_type);
      const Shape target{shape.rows, shape.cols, 5};
      const Values copied = Run(2, target, Type(), [&](Device& device, Stream& s, const Matrix& to) {
        device.Copy(s, from->matrix(), to);
      });
      Values expected = from->Values();
      if (Type() == DType::kBF16) {
        for (double& value : expected) value = ToFloat(ToBF16(static_cast<float>(value)));
      }
      EXPECT_EQ(copied, expected);
    }
  }
}

TEST_P(KernelsTest, SumsAreInOrderAndRoundedOnce) {
  for (const Shape& shape : kShapes) {
    const auto a = New(1, shape), b = New(2, shape, DType::kF32), c = New(3, shape);
    const Values va = a->Values(), vb = b->Values(), vc = c->Values();
    Values expected;
    for (size_t i = 0; i < va.size(); ++i) {
      float sum = static_cast<float>(va[i]);
      sum += static_cast<float>(vb[i]);
      sum += static_cast<float>(vc[i]);
      expected.push_back(Type() == DType::kBF16 ? ToFloat(ToBF16(sum)) : sum);
    }
    EXPECT_EQ(Run(4, shape, Type(),
                  [&](Device& device, Stream& s, const Matrix& to) {
                    device.SumInOrder(s, {*a, *b, *c}, to);
                  }),
              expected);
    // The target may be any of the terms, the last one too.
    EXPECT_EQ(Run(3, shape, Type(),
                  [&](Device& device, Stream& s, const Matrix& to) {
                    device.SumInOrder(s, {*a, *b, to}, to);
                  }),
              expected);
    const Values sum = Run(1, shape, Type(),
                           [&](Device& device, Stream& s, const Matrix& to) { device.Add(s, to, *c, to); });
    for (size_t i = 0; i < sum.size(); ++i) {
      const float exact = static_cast<float>(va[i]) + static_cast<float>(vc[i]);
      EXPECT_EQ(sum[i], Type() == DType::kBF16 ? ToFloat(ToBF16(exact)) : exact);
    }
  }
}

TEST_P(KernelsTest, ColumnSumsAreAdded) {
  for (const Shape& shape : kShapes) {
    const auto x = New(1, shape);
    const Values sums =
        Run(2, {1, shape.cols, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
          device.AddColumnSums(s, *x, static_cast<float*>(to.data));
        });
    Values expected;
    const Values values = x->Values();
    for (int64_t col = 0; col < shape.cols; ++col) {
      double sum = static_cast<float>(Wave(2, 0, col));
      for (int64_t row = 0; row < shape.rows; ++row) sum += values[row * shape.cols + col];
      expected.push_back(sum);
    }
    ExpectNear(sums, expected, DType::kF32);
  }
}

TEST_P(KernelsTest, LongColumnsKeepTheirDigits) {
  const int64_t rows = 40'000;
  const GuardedMatrix x(DType::kF32, rows, 1, 0, Guard::kAfter, [](int64_t, int64_t) { return 0.1; });
  const Values sum = Run(0, {1, 1, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
    device.Zero(s, to.data, 4);
    device.AddColumnSums(s, x, static_cast<float*>(to.data));
  });
  EXPECT_NEAR(sum[0], static_cast<double>(0.1f) * rows, 1e-6 * 4000);
}

TEST_P(KernelsTest, ProductsOfEveryTranspositionAndStride) {
  struct Product {
    int64_t m, n, k;
  };
  for (const Product& p :
       std::vector<Product>{{1, 1, 1}, {3, 5, 7}, {257, 33, 40}, {40, 515, 520}, {300, 70, 1030}}) {
    for (int flags = 0; flags < 16; ++flags) {
      const bool ta = flags & 1, tb = flags & 2, accumulate = flags & 4, with_bias = flags & 8;
      if (p.k > 500 && flags % 5 != 0) continue;  // the large ones in four of sixteen ways
      SCOPED_TRACE(absl::StrCat(p.m, " x ", p.n, " x ", p.k, " flags ", flags));
      const auto a = New(1, ta ? Shape{p.k, p.m, 2} : Shape{p.m, p.k, 0});
      const auto b = New(2, tb ? Shape{p.n, p.k, 1} : Shape{p.k, p.n, 3});
      const auto bias = New(3, {1, p.n, 0});
      const Values va = a->Values(), vb = b->Values(), vbias = bias->Values();
      for (DType type : {DType::kF32, Type()}) {
        const Values initial = New(4, {p.m, p.n, 1}, type)->Values();
        Values expected;
        for (int64_t i = 0; i < p.m; ++i) {
          for (int64_t j = 0; j < p.n; ++j) {
            double sum = (accumulate ? initial[i * p.n + j] : 0) + (with_bias ? vbias[j] : 0);
            for (int64_t k = 0; k < p.k; ++k) {
              sum += va[ta ? k * p.m + i : i * p.k + k] * vb[tb ? j * p.k + k : k * p.n + j];
            }
            expected.push_back(sum);
          }
        }
        const Values c = Run(4, {p.m, p.n, 1}, type, [&](Device& device, Stream& s, const Matrix& to) {
          device.Gemm(s, *a, ta, *b, tb, to, accumulate, with_bias ? &bias->matrix() : nullptr);
        });
        ExpectNear(c, expected, type, type == DType::kF32 ? 10 : 2);
      }
    }
  }
}

TEST_P(KernelsTest, ProductsPlusAnotherMatrix) {
  for (const Shape& shape : std::vector<Shape>{{1, 1, 0}, {33, 70, 2}, {300, 24, 0}}) {
    const int64_t depth = 130;
    const auto a = New(1, {shape.rows, depth, 1}), b = New(2, {shape.cols, depth, 0});
    const auto addend = New(3, {shape.rows, shape.cols, 4});
    const Values va = a->Values(), vb = b->Values();
    Values expected = addend->Values();
    for (int64_t i = 0; i < shape.rows; ++i) {
      for (int64_t j = 0; j < shape.cols; ++j) {
        for (int64_t k = 0; k < depth; ++k)
          expected[i * shape.cols + j] += va[i * depth + k] * vb[j * depth + k];
      }
    }
    const Values c = Run(4, shape, Type(), [&](Device& device, Stream& s, const Matrix& to) {
      device.GemmPlus(s, *a, false, *b, true, *addend, to);
    });
    ExpectNear(c, expected, Type(), Type() == DType::kF32 ? 10 : 2);
  }
}

// A GPU tries several algorithms for large ones, unless it is to be deterministic: the bits are the same.
TEST(GradientsOfWeightsTest, AreTheSameBitsWhicheverAlgorithmIsFastest) {
  const auto tried = MakeTestDevice("cuda"), fixed = MakeTestDevice("cuda_deterministic");
  if (!tried.ok() || !fixed.ok()) GTEST_SKIP() << "no GPU";
  struct Product {
    int64_t rows, cols, tokens;
  };
  for (const Product& p : std::vector<Product>{{2048, 4096, 4096}, {6144, 2048, 3000}}) {
    std::vector<Values> results;
    for (Device* device : {tried->get(), fixed->get()}) {
      const auto random = [&](int64_t cols_of) {
        std::mt19937 bits(1);
        std::normal_distribution<double> normal;
        return GuardedMatrix(DType::kBF16, p.tokens, cols_of, 0, Guard::kAfter,
                             [&](int64_t, int64_t) { return normal(bits); });
      };
      const GuardedMatrix dy = random(p.rows), x = random(p.cols);
      const GuardedMatrix sums(DType::kF32, p.rows, p.cols, 0, Guard::kAfter,
                               [](int64_t, int64_t) { return 0; });
      const auto stream = device->CreateStream("products");
      device->Gemm(*stream, dy, true, x, false, sums, false, nullptr);
      device->Gemm(*stream, dy, true, x, false, sums, true, nullptr);
      ASSERT_TRUE(stream->Synchronize().ok());
      results.push_back(sums.Values());
    }
    EXPECT_EQ(results[0], results[1]);
  }
}

// Bits may depend on the shape of the call, values may not.
TEST_P(KernelsTest, AnElementOfAProductDoesNotDependOnItsNeighbours) {
  const int64_t m = 150, n = 800, k = 2500;
  const auto a = New(1, {m, k, 0}), b = New(2, {n, k, 0});
  const Values whole = Run(3, {m, n, 0}, Type(), [&](Device& device, Stream& s, const Matrix& to) {
    device.Gemm(s, *a, false, *b, true, to, false, nullptr);
  });
  const int64_t row = 61, rows = 13, col = 701, cols = 57;
  const Values part = Run(3, {rows, cols, 0}, Type(), [&](Device& device, Stream& s, const Matrix& to) {
    device.Gemm(s, a->matrix().Rows(row, row + rows), false, b->matrix().Rows(col, col + cols), true, to,
                false, nullptr);
  });
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const double of_part = part[i * cols + j], of_whole = whole[(row + i) * n + col + j];
      ASSERT_NEAR(of_part, of_whole, Tolerance(Type()) * (1 + std::abs(of_whole)) * 100);
    }
  }
}

TEST_P(KernelsTest, AProductWithoutDepthIsItsBias) {
  const GuardedMatrix a(Type(), 0, 3, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  const GuardedMatrix b(Type(), 0, 4, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  const auto bias = New(3, {1, 4, 0});
  const Values c = Run(4, {3, 4, 0}, Type(), [&](Device& device, Stream& s, const Matrix& to) {
    device.Gemm(s, a, true, b, false, to, false, &bias->matrix());
  });
  for (int i = 0; i < 12; ++i) EXPECT_EQ(c[i], bias->Values()[i % 4]);
  const Values kept = Run(4, {3, 4, 0}, Type(), [&](Device& device, Stream& s, const Matrix& to) {
    device.Gemm(s, a, true, b, false, to, true, nullptr);
  });
  EXPECT_EQ(kept, New(4, {3, 4, 0})->Values());
}

TEST_P(KernelsTest, RotaryTurnsHalvesAgainstEachOther) {
  for (int head_dim : {2, 10, 64, 1100}) {
    const int64_t tokens = 9, batch = 2, heads = 3;
    const Shape shape{tokens * batch, heads * head_dim, 3};
    const int64_t half = head_dim / 2;
    const GuardedMatrix table(
        DType::kF32, tokens, head_dim, 0, Guard::kAfter, [=](int64_t token, int64_t col) {
          const double angle = static_cast<double>(token) * (0.3 + static_cast<double>(col % half));
          return col < half ? std::cos(angle) : std::sin(angle);
        });
    const Values angles = table.Values(), x = New(1, shape)->Values();
    for (bool inverse : {false, true}) {
      Values expected = x;
      for (int64_t row = 0; row < shape.rows; ++row) {
        for (int64_t head = 0; head < heads; ++head) {
          for (int64_t i = 0; i < half; ++i) {
            const double cosine = angles[row / batch * head_dim + i];
            const double sine = angles[row / batch * head_dim + half + i] * (inverse ? -1 : 1);
            const int64_t low = row * shape.cols + head * head_dim + i, high = low + half;
            expected[low] = x[low] * cosine - x[high] * sine;
            expected[high] = x[high] * cosine + x[low] * sine;
          }
        }
      }
      ExpectNear(Run(1, shape, Type(),
                     [&](Device& device, Stream& s, const Matrix& to) {
                       device.Rotary(s, to, batch, head_dim, table.floats(), inverse);
                     }),
                 expected, Type());
    }
  }
}

TEST_P(KernelsTest, DeltaIsTheDotProductOfEachHead) {
  for (int head_dim : {1, 5, 64, 600}) {
    const int64_t rows = 31, heads = 3;
    const auto dout = New(1, {rows, heads * head_dim, 2});
    for (DType out_type : {DType::kF32, Type()}) {
      const auto out = New(2, {rows, heads * head_dim, 0}, out_type);
      const Values a = dout->Values(), b = out->Values();
      Values expected(rows * heads, 0);
      for (size_t i = 0; i < a.size(); ++i) expected[i / head_dim] += a[i] * b[i];
      ExpectNear(Run(3, {rows, heads, 1}, DType::kF32,
                     [&](Device& device, Stream& s, const Matrix& to) {
                       device.AttentionDelta(s, head_dim, *dout, *out, to);
                     }),
                 expected, DType::kF32);
    }
  }
}

TEST_P(KernelsTest, EmptyMatricesAreLeftAlone) {
  for (const auto& device : devices_) {
    const auto stream = device->CreateStream("empty");
    const Matrix none(nullptr, Type(), 0, 8);
    device->Copy(*stream, none, none);
    device->SumInOrder(*stream, {none, none}, none);
    device->ActivationForward(*stream, MlpKind::kGelu, nullptr, none, none);
    device->Rotary(*stream, none, 1, 4, nullptr, false);
    device->Zero(*stream, nullptr, 0);
    device->CopyToHost(*stream, nullptr, nullptr, 0);
    device->Gemm(*stream, none, false, Matrix(nullptr, Type(), 8, 0), false, Matrix(nullptr, Type(), 0, 0),
                 false, nullptr);
    EXPECT_TRUE(stream->Synchronize().ok());
  }
}

TEST_P(KernelsTest, BytesGoToTheDeviceAndBack) {
  const int64_t bytes = (int64_t{1} << 18) * 3 + 17;  // several pieces and a bit
  std::string from(bytes, '\0'), back(bytes, '\0');
  for (int64_t i = 0; i < bytes; ++i) from[i] = static_cast<char>(i * 31 + i / 255);
  for (const auto& device : devices_) {
    auto buffer = device->Allocate(bytes, "test");
    ASSERT_TRUE(buffer.ok());
    const auto stream = device->CreateStream("bytes");
    device->CopyFromHost(*stream, from.data(), buffer->data(), bytes);
    device->CopyToHost(*stream, buffer->data(), back.data(), bytes);
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(back, from);
    device->Zero(*stream, buffer->data(), bytes);
    device->CopyToHost(*stream, buffer->data(), back.data(), bytes);
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(back, std::string(bytes, '\0'));
  }
}

SEQPAR_INSTANTIATE_KERNEL_TESTS(KernelsTest);

}  // namespace
}  // namespace seqpar
