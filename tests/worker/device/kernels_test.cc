// Every kernel but attention, against float64, over odd shapes, strides and both storage types.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/worker/device/attention_case.h"
#include "tests/worker/device/guarded_matrix.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/simd.h"

namespace seqpar {
namespace {

using Values = std::vector<double>;

double Wave(int stream, int64_t row, int64_t col) {
  return std::sin(0.7 * static_cast<double>(row) + 1.3 * static_cast<double>(col) + stream) + 0.1 * stream;
}

struct Shape {
  int64_t rows, cols, gap;
};

// Runs on devices of one and of three threads and asserts that both give the same bits.
class KernelsTest : public testing::TestWithParam<std::tuple<DType, std::string>> {
 protected:
  KernelsTest() {
    for (int threads : {1, 3}) {
      devices_.push_back(std::move(MakeCpuDevice({threads, 0, std::get<std::string>(GetParam())})).value());
    }
  }

  static DType Type() { return std::get<DType>(GetParam()); }
  std::unique_ptr<GuardedMatrix> New(int stream, const Shape& s) { return New(stream, s, Type()); }
  std::unique_ptr<GuardedMatrix> New(int stream, const Shape& s, DType type) {
    return std::make_unique<GuardedMatrix>(type, s.rows, s.cols, s.gap, Guard::kAfter,
                                           [=](int64_t row, int64_t col) { return Wave(stream, row, col); });
  }

  // What `kernel(device, stream, target)` leaves in a matrix like New(target_stream, shape, type).
  template <typename Kernel>
  Values Run(int target_stream, const Shape& shape, DType type, const Kernel& kernel) {
    std::vector<Values> results;
    for (const auto& device : devices_) {
      const auto target = New(target_stream, shape, type);
      const auto stream = device->CreateStream("kernel");
      kernel(*device, *stream, target->matrix());
      EXPECT_TRUE(stream->Synchronize().ok());
      EXPECT_TRUE(target->GapsIntact());
      results.push_back(target->Values());
    }
    EXPECT_EQ(results[0], results[1]) << "threads change the result";
    return results[0];
  }

  // One rounding to storage, or some float32 arithmetic.
  double Tolerance(DType type) const { return type == DType::kBF16 ? 1.0 / 256 : 2e-6; }
  void ExpectNear(const Values& values, const Values& expected, DType type, double slack = 1) {
    ASSERT_EQ(values.size(), expected.size());
    double largest = 1e-30;
    for (double value : expected) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i],
                  slack * Tolerance(type) * std::max(std::abs(expected[i]), 0.1 * largest))
          << "element " << i;
    }
  }

  std::vector<std::unique_ptr<Device>> devices_;
};

const std::vector<Shape> kShapes = {{1, 1, 0},   {1, 7, 2},    {3, 513, 1},
                                    {67, 24, 0}, {130, 65, 3}, {5, 1500, 0}};

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

struct NormReference {
  Values y, stats, dx, dweight, dbias;
};

NormReference ReferenceNorm(NormKind kind, const Shape& s, const Values& x, const Values& w, const Values& b,
                            const Values& dy, double eps) {
  NormReference r;
  r.dweight.assign(s.cols, 0);
  r.dbias.assign(s.cols, 0);
  const double n = static_cast<double>(s.cols);
  for (int64_t row = 0; row < s.rows; ++row) {
    const double* at = x.data() + row * s.cols;
    const double* g = dy.data() + row * s.cols;
    double mean = 0, square = 0, mean_g = 0, mean_gh = 0;
    if (kind == NormKind::kLayerNorm) {
      for (int64_t i = 0; i < s.cols; ++i) mean += at[i] / n;
    }
    for (int64_t i = 0; i < s.cols; ++i) square += (at[i] - mean) * (at[i] - mean) / n;
    const double inverse = 1 / std::sqrt(square + eps);
    r.stats.push_back(mean);
    r.stats.push_back(inverse);
    for (int64_t i = 0; i < s.cols; ++i) {
      const double h = (at[i] - mean) * inverse;
      r.y.push_back(h * w[i] + (kind == NormKind::kLayerNorm ? b[i] : 0));
      r.dweight[i] += g[i] * h;
      r.dbias[i] += g[i];
      if (kind == NormKind::kLayerNorm) mean_g += g[i] * w[i] / n;
      mean_gh += g[i] * w[i] * h / n;
    }
    for (int64_t i = 0; i < s.cols; ++i) {
      const double h = (at[i] - mean) * inverse;
      r.dx.push_back(inverse * (g[i] * w[i] - mean_g - h * mean_gh));
    }
  }
  return r;
}

TEST_P(KernelsTest, NormsForwardAndBackward) {
  for (NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    const bool layer_norm = kind == NormKind::kLayerNorm;
    for (const Shape& shape : kShapes) {
      const double eps = 1e-2;
      const auto x = New(1, shape), dy = New(2, shape), residual = New(3, shape);
      const auto weight = New(4, {1, shape.cols, 0}), bias = New(5, {1, shape.cols, 0});
      const NormReference r =
          ReferenceNorm(kind, shape, x->Values(), weight->Values(), bias->Values(), dy->Values(), eps);
      const Matrix* bias_or_none = layer_norm ? &bias->matrix() : nullptr;
      const GuardedMatrix stats(DType::kF32, shape.rows, 2, 0, Guard::kAfter,
                                [](int64_t, int64_t) { return 9; });
      const Values y = Run(6, shape, Type(), [&](Device& device, Stream& s, const Matrix& to) {
        device.NormForward(s, kind, *x, *weight, bias_or_none, eps, to, stats.floats());
      });
      ExpectNear(y, r.y, Type(), 5);
      ExpectNear(stats.Values(), r.stats, DType::kF32, 5);

      Values dx_with_residual = r.dx, dweight_from = r.dweight, dbias_from = r.dbias;
      for (size_t i = 0; i < r.dx.size(); ++i) dx_with_residual[i] += residual->Values()[i];
      for (int64_t i = 0; i < shape.cols; ++i) dweight_from[i] += 1, dbias_from[i] += 1;
      std::vector<Values> dweights, dbiases;
      const auto backward = [&](Device& device, Stream& s, const Matrix& dy_in, const Matrix* around,
                                const Matrix& dx) {
        const auto one = [](int64_t, int64_t) { return 1; };
        const GuardedMatrix dweight(DType::kF32, 1, shape.cols, 0, Guard::kAfter, one);
        const GuardedMatrix dbias(DType::kF32, 1, shape.cols, 0, Guard::kAfter, one);
        device.NormBackward(s, kind, *x, *weight, stats.floats(), dy_in, around, dx, dweight.floats(),
                            layer_norm ? dbias.floats() : nullptr);
        EXPECT_TRUE(s.Synchronize().ok());
        ExpectNear(dweight.Values(), dweight_from, DType::kF32, 10);
        if (layer_norm) ExpectNear(dbias.Values(), dbias_from, DType::kF32, 10);
      };
      ExpectNear(Run(7, shape, Type(),
                     [&](Device& d, Stream& s, const Matrix& to) { backward(d, s, *dy, nullptr, to); }),
                 r.dx, Type(), 20);
      ExpectNear(
          Run(7, shape, Type(),
              [&](Device& d, Stream& s, const Matrix& to) { backward(d, s, *dy, &residual->matrix(), to); }),
          dx_with_residual, Type(), 20);
      // In place, over dy.
      ExpectNear(Run(2, shape, Type(),
                     [&](Device& d, Stream& s, const Matrix& to) { backward(d, s, to, nullptr, to); }),
                 r.dx, Type(), 20);
    }
  }
}

double Activated(MlpKind kind, double x) {
  if (kind == MlpKind::kGelu) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  if (kind == MlpKind::kSwiglu) return x / (1 + std::exp(-x));
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double Slope(MlpKind kind, double x) {
  if (kind == MlpKind::kGelu) {
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
  }
  if (kind == MlpKind::kSwiglu) {
    const double s = 1 / (1 + std::exp(-x));
    return s + x * s * (1 - s);
  }
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), t = std::tanh(u);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

TEST_P(KernelsTest, ActivationsForwardAndBackward) {
  for (MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
    for (const Shape& shape : kShapes) {
      const auto gate = New(1, shape), up = New(2, shape), dy = New(3, shape);
      const bool gated = kind == MlpKind::kSwiglu;
      const Matrix* gate_or_none = gated ? &gate->matrix() : nullptr;
      const Values g = gate->Values(), u = up->Values(), d = dy->Values();
      Values y, dup, dgate;
      for (size_t i = 0; i < u.size(); ++i) {
        y.push_back(gated ? Activated(kind, g[i]) * u[i] : Activated(kind, u[i]));
        dup.push_back(gated ? d[i] * Activated(kind, g[i]) : d[i] * Slope(kind, u[i]));
        dgate.push_back(d[i] * u[i] * Slope(kind, g[i]));
      }
      ExpectNear(Run(4, shape, Type(),
                     [&](Device& device, Stream& s, const Matrix& to) {
                       device.ActivationForward(s, kind, gate_or_none, *up, to);
                     }),
                 y, Type());
      // dgate in place of the gate, dup in place of up.
      ExpectNear(Run(2, shape, Type(),
                     [&](Device& device, Stream& s, const Matrix& to) {
                       const auto own_gate = New(1, shape);
                       device.ActivationBackward(s, kind, gated ? &own_gate->matrix() : nullptr, to, *dy,
                                                 gated ? &own_gate->matrix() : nullptr, to);
                       EXPECT_TRUE(s.Synchronize().ok());
                       if (gated) ExpectNear(own_gate->Values(), dgate, Type());
                     }),
                 dup, Type());
    }
  }
}

TEST_P(KernelsTest, ActivationsAtTheirTails) {
  const Values points = {-1e20, -200,  -89,  -30, -12, -9, -6, -4, -3,  -1e-3, -1e-20,
                         0,     1e-20, 1e-3, 3,   6,   9,  12, 89, 200, 1e20};
  const int64_t n = static_cast<int64_t>(points.size());
  const GuardedMatrix x(DType::kF32, 1, n, 0, Guard::kAfter,
                        [&](int64_t, int64_t col) { return points[col]; });
  const GuardedMatrix one(DType::kF32, 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 1; });
  for (MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
    const bool gated = kind == MlpKind::kSwiglu;
    const Values y = Run(4, {1, n, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
      device.ActivationForward(s, kind, gated ? &x.matrix() : nullptr, gated ? one : x, to);
    });
    const Values slope = Run(4, {1, n, 0}, DType::kF32, [&](Device& device, Stream& s, const Matrix& to) {
      const GuardedMatrix ignored(DType::kF32, 1, n, 0, Guard::kAfter, [](int64_t, int64_t) { return 0; });
      device.ActivationBackward(s, kind, gated ? &x.matrix() : nullptr, gated ? one : x, one,
                                gated ? &to : nullptr, gated ? ignored.matrix() : to);
      EXPECT_TRUE(s.Synchronize().ok());
    });
    for (int64_t i = 0; i < n; ++i) {
      SCOPED_TRACE(points[i]);
      EXPECT_NEAR(y[i], Activated(kind, points[i]), 3e-6 * std::abs(Activated(kind, points[i])) + 1e-6);
      EXPECT_NEAR(slope[i], Slope(kind, points[i]), 2e-6);
    }
  }
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

std::vector<std::string> Kernels() {
  std::vector<std::string> kernels = cpu::SimdNames();
  kernels.push_back("scalar");
  return kernels;
}

INSTANTIATE_TEST_SUITE_P(Types, KernelsTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::ValuesIn(Kernels())),
                         [](const auto& info) {
                           const bool single = std::get<DType>(info.param) == DType::kF32;
                           return absl::StrCat(single ? "F32_" : "BF16_", std::get<std::string>(info.param));
                         });

}  // namespace
}  // namespace seqpar
