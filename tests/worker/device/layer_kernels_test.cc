// Norms and activations against float64, over odd shapes, strides and types.
#include "tests/worker/device/kernel_fixture.h"

namespace seqpar {
namespace {

using LayerKernelsTest = KernelsTest;

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

TEST_P(LayerKernelsTest, NormsForwardAndBackward) {
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

TEST_P(LayerKernelsTest, ActivationsForwardAndBackward) {
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
      // dgate in place of the gate, dup in place of up, y in place of dy.
      for (const bool again : {false, true}) {
        ExpectNear(Run(2, shape, Type(),
                       [&](Device& device, Stream& s, const Matrix& to) {
                         const auto own_gate = New(1, shape), own_dy = New(3, shape);
                         const Matrix* own_gate_or_none = gated ? &own_gate->matrix() : nullptr;
                         device.ActivationBackward(s, kind, own_gate_or_none, to, *own_dy, own_gate_or_none,
                                                   to, again ? &own_dy->matrix() : nullptr);
                         EXPECT_TRUE(s.Synchronize().ok());
                         if (gated) ExpectNear(own_gate->Values(), dgate, Type());
                         ExpectNear(own_dy->Values(), again ? y : d, Type());
                         EXPECT_TRUE(own_dy->GapsIntact());
                       }),
                   dup, Type());
      }
      // y in memory of its own.
      ExpectNear(Run(4, shape, Type(),
                     [&](Device& device, Stream& s, const Matrix& to) {
                       const auto dg = New(5, shape), du = New(6, shape);
                       device.ActivationBackward(s, kind, gate_or_none, *up, *dy,
                                                 gated ? &dg->matrix() : nullptr, *du, &to);
                       EXPECT_TRUE(s.Synchronize().ok());
                     }),
                 y, Type());
    }
  }
}

// Matrices of both storage types at once, which take another way through memory.
TEST_P(LayerKernelsTest, ActivationsOfBothTypesForwardAndBackward) {
  const DType other = Type() == DType::kF32 ? DType::kBF16 : DType::kF32;
  const MlpKind kind = MlpKind::kSwiglu;
  for (const Shape& shape : kShapes) {
    const auto gate = New(1, shape), up = New(2, shape), dy = New(3, shape, other);
    const Values g = gate->Values(), u = up->Values(), d = dy->Values();
    Values y, dup, dgate;
    for (size_t i = 0; i < u.size(); ++i) {
      y.push_back(Activated(kind, g[i]) * u[i]);
      dup.push_back(d[i] * Activated(kind, g[i]));
      dgate.push_back(d[i] * u[i] * Slope(kind, g[i]));
    }
    ExpectNear(Run(4, shape, other,
                   [&](Device& device, Stream& s, const Matrix& to) {
                     device.ActivationForward(s, kind, &gate->matrix(), *up, to);
                   }),
               y, other);
    ExpectNear(Run(4, shape, other,
                   [&](Device& device, Stream& s, const Matrix& to) {
                     const auto to_gate = New(5, shape);
                     device.ActivationBackward(s, kind, &gate->matrix(), *up, *dy, &to_gate->matrix(), to,
                                               nullptr);
                     EXPECT_TRUE(s.Synchronize().ok());
                     ExpectNear(to_gate->Values(), dgate, Type());
                   }),
               dup, other);
    // y over dy, and in memory of its own of either type.
    ExpectNear(Run(3, shape, other,
                   [&](Device& device, Stream& s, const Matrix& to) {
                     const auto dg = New(5, shape), du = New(6, shape, other);
                     device.ActivationBackward(s, kind, &gate->matrix(), *up, to, &dg->matrix(), *du, &to);
                     EXPECT_TRUE(s.Synchronize().ok());
                     ExpectNear(dg->Values(), dgate, Type());
                     ExpectNear(du->Values(), dup, other);
                   }),
               y, other);
    for (const DType type : {Type(), other}) {
      ExpectNear(Run(4, shape, type,
                     [&](Device& device, Stream& s, const Matrix& to) {
                       const auto same_dy = New(3, shape), dg = New(5, shape), du = New(6, shape);
                       device.ActivationBackward(s, kind, &gate->matrix(), *up, *same_dy, &dg->matrix(), *du,
                                                 &to);
                       EXPECT_TRUE(s.Synchronize().ok());
                     }),
                 y, type);
    }
  }
}

TEST_P(LayerKernelsTest, ActivationsAtTheirTails) {
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
                                gated ? &to : nullptr, gated ? ignored.matrix() : to, nullptr);
      EXPECT_TRUE(s.Synchronize().ok());
    });
    for (int64_t i = 0; i < n; ++i) {
      SCOPED_TRACE(points[i]);
      EXPECT_NEAR(y[i], Activated(kind, points[i]), 3e-6 * std::abs(Activated(kind, points[i])) + 1e-6);
      EXPECT_NEAR(slope[i], Slope(kind, points[i]), 2e-6);
    }
  }
}

// Every bfloat16 number of [2^-8, 16) and its negative: polynomials of few terms are off somewhere between
// the points of other tests, if they are.
TEST_P(LayerKernelsTest, ActivationsOfEveryBfloat16) {
  const Shape shape{2 * 12, 128, 0};  // a binade a row
  const auto point = [](int64_t row, int64_t col) {
    const double size = std::ldexp(1 + static_cast<double>(col) / 128, static_cast<int>(row / 2) - 8);
    return row % 2 == 0 ? size : -size;
  };
  const GuardedMatrix x(Type(), shape.rows, shape.cols, 0, Guard::kAfter, point);
  const GuardedMatrix one(Type(), shape.rows, shape.cols, 0, Guard::kAfter,
                          [](int64_t, int64_t) { return 1; });
  const Values points = x.Values();
  const bool bf16 = Type() == DType::kBF16;
  const auto is_near = [&](double value, double expected) {
    const double half_unit = bf16 && expected != 0 ? std::ldexp(1, std::ilogb(expected) - 8) : 0;
    return std::abs(value - expected) <= half_unit + (bf16 ? 3e-4 : 1e-5) * std::max(std::abs(expected), 0.1);
  };
  for (MlpKind kind : {MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
    const bool gated = kind == MlpKind::kSwiglu;
    const Values y = Run(4, shape, Type(), [&](Device& device, Stream& s, const Matrix& to) {
      device.ActivationForward(s, kind, gated ? &x.matrix() : nullptr, gated ? one : x, to);
    });
    const Values slope = Run(4, shape, Type(), [&](Device& device, Stream& s, const Matrix& to) {
      const auto ignored = New(5, shape);
      device.ActivationBackward(s, kind, gated ? &x.matrix() : nullptr, gated ? one : x, one,
                                gated ? &to : nullptr, gated ? ignored->matrix() : to, nullptr);
      EXPECT_TRUE(s.Synchronize().ok());
    });
    for (size_t i = 0; i < y.size(); ++i) {
      const double at = points[i], f = Activated(kind, at), df = Slope(kind, at);
      ASSERT_TRUE(is_near(y[i], f)) << y[i] << " for " << f << " at " << at;
      ASSERT_TRUE(is_near(slope[i], df)) << slope[i] << " for " << df << " at " << at;
    }
  }
}

SEQPAR_INSTANTIATE_KERNEL_TESTS(LayerKernelsTest);

}  // namespace
}  // namespace seqpar
