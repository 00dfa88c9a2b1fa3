// Products, norms and activations where kernels break: around block edges, beside pages that fault, with
// values at the ends of their range.
#include <limits>

#include "tests/worker/device/kernel_fixture.h"

namespace seqpar {
namespace {

class KernelEdgesTest : public KernelsTest {
 protected:
  struct Product {
    int64_t m, n, k;
  };

  // c = a b^T with every matrix against a page that faults; values by `value`.
  void CheckProduct(const Product& p, Guard guard, double magnitude = 1) {
    SCOPED_TRACE(absl::StrCat(p.m, " x ", p.n, " x ", p.k));
    const auto value = [=](int stream) {
      return [=](int64_t row, int64_t col) { return magnitude * Wave(stream, row, col); };
    };
    const GuardedMatrix a(Type(), p.m, p.k, 0, guard, value(1)), b(Type(), p.n, p.k, 0, guard, value(2));
    const Values va = a.Values(), vb = b.Values();
    // Of float32 sums, some of which are made term by term: roundings go either way.
    const double rounding = 1e-6 + 0x1p-24 * std::sqrt(static_cast<double>(p.k));
    // Processors that multiply bfloat16 take denormal terms for zero.
    const double smallest = Type() == DType::kBF16 ? std::numeric_limits<float>::min() : 1e-46;
    for (const auto& device : devices_) {
      const GuardedMatrix c(DType::kF32, p.m, p.n, 0, guard, [](int64_t, int64_t) { return NAN; });
      const auto stream = device->CreateStream("product");
      device->Gemm(*stream, a, false, b, true, c, false, nullptr);
      ASSERT_TRUE(stream->Synchronize().ok());
      const Values got = c.Values();
      for (int64_t i = 0; i < p.m; ++i) {
        for (int64_t j = 0; j < p.n; ++j) {
          double sum = 0, size = 0;
          for (int64_t k = 0; k < p.k; ++k) {
            const double term = va[i * p.k + k] * vb[j * p.k + k];
            sum += term;
            size += std::abs(term);
          }
          ASSERT_NEAR(got[i * p.n + j], sum, rounding * size + p.k * smallest) << i << ", " << j;
        }
      }
    }
  }
};

// Groups are 4 rows, blocks 128 or 256; panels 12, 24 or 48 columns, slabs 512 or 768; blocks of depth 192 or
// 512, and 12 of them before sums go to memory.
TEST_P(KernelEdgesTest, ProductsAroundEveryBlockEdge) {
  for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
    for (const int64_t edge : {4, 128, 256}) {
      for (const int64_t m : {edge - 1, edge, edge + 1}) CheckProduct({m, 5, 6}, guard);
    }
    for (const int64_t edge : {12, 24, 48, 96, 512, 768}) {
      for (const int64_t n : {edge - 1, edge, edge + 1}) CheckProduct({5, n, 6}, guard);
    }
    for (const int64_t edge : {192, 384, 512, 2304}) {
      for (const int64_t k : {edge - 1, edge, edge + 1}) CheckProduct({5, 13, k}, guard);
    }
  }
}

TEST_P(KernelEdgesTest, ProductsOfTheSmallestAndLargestValues) {
  CheckProduct({9, 50, 70}, Guard::kAfter, 1e-20);  // sums are denormal
  CheckProduct({9, 50, 70}, Guard::kAfter, 1e-39);  // elements are
  CheckProduct({9, 50, 70}, Guard::kAfter, 1e18);   // sums are near the largest number
}

// A row of infinity or NaN stays in its row: what fills a block up is not multiplied with it.
TEST_P(KernelEdgesTest, WhatIsNotFiniteStaysInItsRow) {
  const double infinity = std::numeric_limits<double>::infinity();
  const GuardedMatrix a(Type(), 7, 9, 0, Guard::kAfter, [=](int64_t row, int64_t) {
    return row == 3 ? infinity : row == 4 ? NAN : 1;
  });
  const GuardedMatrix b(Type(), 50, 9, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  const Values c = Run(3, {7, 50, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
    // Only rows that are finite: NaN is not equal to itself, which Run asks for.
    device.Gemm(s, a.matrix().Rows(0, 4), false, b, true, to.Rows(0, 4), false, nullptr);
    device.Gemm(s, a.matrix().Rows(5, 7), false, b, true, to.Rows(5, 7), false, nullptr);
  });
  for (int64_t col = 0; col < 50; ++col) {
    for (const int64_t row : {0, 1, 2, 5, 6}) EXPECT_EQ(c[row * 50 + col], 9);
    EXPECT_EQ(c[3 * 50 + col], infinity);
  }
  const GuardedMatrix whole(DType::kF32, 7, 50, 0, Guard::kAfter, [](int64_t, int64_t) { return 0; });
  const auto stream = devices_[0]->CreateStream("product");
  devices_[0]->Gemm(*stream, a, false, b, true, whole, false, nullptr);
  ASSERT_TRUE(stream->Synchronize().ok());
  for (int64_t col = 0; col < 50; ++col) {
    EXPECT_TRUE(std::isnan(whole.Values()[4 * 50 + col]));
    EXPECT_EQ(whole.Values()[5 * 50 + col], 9);
  }
}

double Silu(double x) { return x / (1 + std::exp(-x)); }
double Gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double GeluTanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

TEST_P(KernelEdgesTest, ActivationsOfEveryLength) {
  for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
    for (int64_t n = 1; n <= 70; ++n) {
      const GuardedMatrix x(Type(), 1, n, 0, guard,
                            [=](int64_t, int64_t col) { return 0.37 * static_cast<double>(col - n / 2); });
      const GuardedMatrix y(Type(), 1, n, 0, guard, [](int64_t, int64_t) { return NAN; });
      const Values values = x.Values();
      for (const MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
        const bool gated = kind == MlpKind::kSwiglu;
        const auto stream = devices_[0]->CreateStream("activation");
        devices_[0]->ActivationForward(*stream, kind, gated ? &x.matrix() : nullptr, x, y);
        ASSERT_TRUE(stream->Synchronize().ok());
        Values expected;
        for (const double v : values) {
          expected.push_back(gated ? v * Silu(v) : kind == MlpKind::kGelu ? Gelu(v) : GeluTanh(v));
        }
        ExpectNear(y.Values(), expected, Type(), 2);
        // Backward, where each result has an operand's memory, leaves the same.
        const auto of_x = [&](int64_t, int64_t col) { return values[col]; };
        const GuardedMatrix gate(Type(), 1, n, 0, guard, of_x), up(Type(), 1, n, 0, guard, of_x);
        const GuardedMatrix dy(Type(), 1, n, 0, guard, [](int64_t, int64_t) { return 1; });
        const Matrix* gate_or_none = gated ? &gate.matrix() : nullptr;
        devices_[0]->ActivationBackward(*stream, kind, gate_or_none, up, dy, gate_or_none, up, &dy.matrix());
        ASSERT_TRUE(stream->Synchronize().ok());
        EXPECT_EQ(dy.Values(), y.Values());
      }
    }
  }
}

// Also in the steps of two vectors, and in what is left over after them.
TEST_P(KernelEdgesTest, ActivationsKeepNaNWhereItIs) {
  const int64_t n = 75;
  const auto is_nan = [](int64_t col) { return col % 9 == 4 || col == 74; };
  const GuardedMatrix x(Type(), 1, n, 0, Guard::kAfter, [&](int64_t, int64_t col) {
    return is_nan(col) ? std::copysign(NAN, col % 2 == 0 ? 1 : -1) : 0.1 * static_cast<double>(col - n / 2);
  });
  const GuardedMatrix one(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  for (const MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
    const bool gated = kind == MlpKind::kSwiglu;
    const GuardedMatrix y(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
    const GuardedMatrix dx(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
    const GuardedMatrix dup(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
    const GuardedMatrix again(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
    const auto stream = devices_[0]->CreateStream("activation");
    const Matrix* gate = gated ? &x.matrix() : nullptr;
    devices_[0]->ActivationForward(*stream, kind, gate, gated ? one : x, y);
    devices_[0]->ActivationBackward(*stream, kind, gate, gated ? one : x, one, gated ? &dx.matrix() : nullptr,
                                    gated ? dup : dx, &again.matrix());
    ASSERT_TRUE(stream->Synchronize().ok());
    for (int64_t col = 0; col < n; ++col) {
      EXPECT_EQ(std::isnan(y.Values()[col]), is_nan(col)) << col;
      EXPECT_EQ(std::isnan(again.Values()[col]), is_nan(col)) << col;
      EXPECT_EQ(std::isnan(dx.Values()[col]), is_nan(col)) << col;
      EXPECT_EQ(std::isnan(dup.Values()[col]), gated && is_nan(col)) << col;
    }
  }
}

TEST_P(KernelEdgesTest, ActivationsOfDenormals) {
  const int64_t n = 40;
  const GuardedMatrix x(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t col) {
    return (col % 2 == 0 ? 1e-40 : -3e-39) * static_cast<double>(col + 1);
  });
  const GuardedMatrix one(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  const Values values = x.Values();
  for (const MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
    const bool gated = kind == MlpKind::kSwiglu;
    const Values y = Run(4, {1, n, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
      device.ActivationForward(s, kind, gated ? &x.matrix() : nullptr, gated ? one : x, to);
    });
    const double units = 4 * std::numeric_limits<float>::epsilon() / 2;
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y[i], values[i] / 2, 1e-44 + units * std::abs(values[i]) / 2) << values[i];
    }
  }
}

// One of three rows has a NaN: its own results are, those of others are not, wherever vectors end.
TEST_P(KernelEdgesTest, NormsOfEveryLengthWithANaNInARow) {
  const auto seven = [](int64_t, int64_t) { return 7; };
  for (const Guard guard : {Guard::kBefore, Guard::kAfter}) {
    for (const int64_t n : {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 70, 127, 130, 511, 513, 530}) {
      for (const NormKind kind : {NormKind::kRmsNorm, NormKind::kLayerNorm}) {
        SCOPED_TRACE(n);
        const bool layer_norm = kind == NormKind::kLayerNorm;
        const GuardedMatrix x(Type(), 3, n, 0, guard, [&](int64_t row, int64_t col) {
          return row == 1 && col == n - 1 ? NAN : Wave(1, row, col);
        });
        const GuardedMatrix weight(Type(), 1, n, 0, guard,
                                   [](int64_t, int64_t col) { return Wave(2, 0, col); });
        const GuardedMatrix dy(Type(), 3, n, 0, guard, seven), around(Type(), 3, n, 0, guard, seven);
        const GuardedMatrix y(Type(), 3, n, 0, guard, seven), dx(Type(), 3, n, 0, guard, seven);
        const GuardedMatrix stats(DType::kF32, 3, 2, 0, guard, seven),
            sums(DType::kF32, 2, n, 0, guard, seven);
        const auto stream = devices_[0]->CreateStream("norm");
        devices_[0]->NormForward(*stream, kind, x, weight, layer_norm ? &weight.matrix() : nullptr, 1e-5f, y,
                                 stats.floats());
        devices_[0]->NormBackward(*stream, kind, x, weight, stats.floats(), dy, &around.matrix(), dx,
                                  sums.floats(), layer_norm ? sums.floats() + n : nullptr);
        ASSERT_TRUE(stream->Synchronize().ok());
        const Values ys = y.Values(), dxs = dx.Values();
        for (int64_t i = 0; i < 3 * n; ++i) {
          EXPECT_EQ(std::isnan(ys[i]), i / n == 1) << i;
          EXPECT_EQ(std::isnan(dxs[i]), i / n == 1) << i;
        }
      }
    }
  }
}

// A row far from zero, and one whose first number is far from the others: the sums are not about the mean.
TEST_P(KernelEdgesTest, LayerNormOfRowsFarFromTheirBeginning) {
  const int64_t n = 2000;
  const GuardedMatrix x(Type(), 3, n, 0, Guard::kAfter, [](int64_t row, int64_t col) {
    const double value = Wave(1, row, col);
    return row == 0               ? 1000 + 8 * value
           : row == 1 && col == 0 ? 1e4
           : row == 2 && col < 64 ? 3e3 + value
                                  : value;
  });
  const GuardedMatrix weight(Type(), 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  const GuardedMatrix y(Type(), 3, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
  const GuardedMatrix stats(DType::kF32, 3, 2, 0, Guard::kAfter, [](int64_t, int64_t) { return 7; });
  const auto stream = devices_[0]->CreateStream("norm");
  devices_[0]->NormForward(*stream, NormKind::kLayerNorm, x, weight, nullptr, 1e-5f, y, stats.floats());
  ASSERT_TRUE(stream->Synchronize().ok());
  const Values values = x.Values(), got = stats.Values();
  for (int64_t row = 0; row < 3; ++row) {
    double mean = 0, square = 0;
    for (int64_t i = 0; i < n; ++i) mean += values[row * n + i] / n;
    for (int64_t i = 0; i < n; ++i) square += std::pow(values[row * n + i] - mean, 2) / n;
    const double deviation = std::sqrt(square + 1e-5);
    EXPECT_NEAR(got[2 * row], mean, 1e-7 * std::abs(mean) + 1e-5 * deviation) << row;
    EXPECT_NEAR(got[2 * row + 1] * deviation, 1, 5e-6) << row;
  }
}

SEQPAR_INSTANTIATE_KERNEL_TESTS(KernelEdgesTest);

}  // namespace
}  // namespace seqpar
