#include "tests/oracle/layer_oracle.h"

#include <cmath>
#include <cstdlib>

namespace seqpar {
namespace {

template <typename T>
using Values = std::vector<T>;

template <typename T>
class LayerOracle {
 public:
  LayerOracle(const LayerProblem& problem, const NamedValues<T>& weights)
      : p_(problem),
        c_(problem.config),
        weights_(weights),
        rows_(problem.rows()),
        d_(problem.config.hidden_size) {
    attention_ = {p_.batch, p_.tokens, c_.heads, c_.kv_heads, c_.head_dim, p_.mask, p_.range_ends};
  }

  LayerTrace<T> Forward(const Values<T>& x) {
    LayerTrace<T> t;
    t.x = x;
    t.h1 = Norm("input_layernorm", x);
    t.q = Linear("self_attn.q_proj", t.h1, d_, attention_.q_cols());
    t.k = Linear("self_attn.k_proj", t.h1, d_, attention_.kv_cols());
    t.v = Linear("self_attn.v_proj", t.h1, d_, attention_.kv_cols());
    Rotate(&t.q, attention_.q_cols(), false);
    Rotate(&t.k, attention_.kv_cols(), false);
    t.attention = AttentionForwardOracle<T>(attention_, t.q, t.k, t.v, p_.dtype);
    t.x1 = Sum(x, Linear("self_attn.o_proj", t.attention.out, attention_.q_cols(), d_));
    if (c_.mlp == MlpKind::kNone) {
      t.y = t.x1;
      return t;
    }
    const int64_t f = c_.intermediate_size;
    t.h2 = Norm("post_attention_layernorm", t.x1);
    if (Gated()) t.gate = Linear("mlp.gate_proj", t.h2, d_, f);
    t.up = Linear("mlp.up_proj", t.h2, d_, f);
    t.activated = t.up;
    for (size_t i = 0; i < t.up.size(); ++i) {
      t.activated[i] = Gated() ? Silu(t.gate[i]) * t.up[i] : Gelu(t.up[i]);
    }
    RoundTo(p_.dtype, &t.activated);
    t.y = Sum(t.x1, Linear("mlp.down_proj", t.activated, f, d_));
    return t;
  }

  LayerGrads<T> Backward(const LayerTrace<T>& t, const Values<T>& dy) {
    Values<T> dx1 = dy;
    if (c_.mlp != MlpKind::kNone) {
      const int64_t f = c_.intermediate_size;
      Values<T> dactivated(rows_ * f), dgate(Gated() ? rows_ * f : 0), dup(rows_ * f), dh(rows_ * d_);
      LinearBackward("mlp.down_proj", t.activated, dy, f, d_, &dactivated);
      RoundTo(p_.dtype, &dactivated);
      for (size_t i = 0; i < dup.size(); ++i) {
        dup[i] = Gated() ? dactivated[i] * Silu(t.gate[i]) : dactivated[i] * GeluSlope(t.up[i]);
        if (Gated()) dgate[i] = dactivated[i] * t.up[i] * SiluSlope(t.gate[i]);
      }
      RoundTo(p_.dtype, &dup);
      RoundTo(p_.dtype, &dgate);
      if (Gated()) LinearBackward("mlp.gate_proj", t.h2, dgate, d_, f, &dh);
      LinearBackward("mlp.up_proj", t.h2, dup, d_, f, &dh);
      RoundTo(p_.dtype, &dh);
      dx1 = NormBackward("post_attention_layernorm", t.x1, dh, dy);
    }
    Values<T> dout(t.q.size()), dh(rows_ * d_);
    LinearBackward("self_attn.o_proj", t.attention.out, dx1, attention_.q_cols(), d_, &dout);
    RoundTo(p_.dtype, &dout);
    AttentionGrads<T> a = AttentionBackwardOracle<T>(attention_, t.q, t.k, t.v, t.attention, dout, p_.dtype);
    Rotate(&a.dq, attention_.q_cols(), true);
    Rotate(&a.dk, attention_.kv_cols(), true);
    LinearBackward("self_attn.q_proj", t.h1, a.dq, d_, attention_.q_cols(), &dh);
    LinearBackward("self_attn.k_proj", t.h1, a.dk, d_, attention_.kv_cols(), &dh);
    LinearBackward("self_attn.v_proj", t.h1, a.dv, d_, attention_.kv_cols(), &dh);
    RoundTo(p_.dtype, &dh);
    grads_.dx = NormBackward("input_layernorm", t.x, dh, dx1);
    return std::move(grads_);
  }

 private:
  bool Gated() const { return c_.mlp == MlpKind::kSwiglu; }
  const Values<T>& Weight(const std::string& name) const { return weights_.at(name + ".weight"); }
  const Values<T>* Bias(const std::string& name) const {
    const auto found = weights_.find(name + ".bias");
    return found == weights_.end() ? nullptr : &found->second;
  }

  static T Silu(T x) { return x / (1 + std::exp(-x)); }
  static T SiluSlope(T x) {
    const T s = 1 / (1 + std::exp(-x));
    return s * (1 + x * (1 - s));
  }
  static T TanhArgument(T x) { return T(std::sqrt(2 / M_PI)) * (x + T(0.044715) * x * x * x); }
  T Gelu(T x) const {
    if (c_.mlp == MlpKind::kGelu) return T(0.5) * x * (1 + std::erf(x / T(std::sqrt(2.0))));
    return T(0.5) * x * (1 + std::tanh(TanhArgument(x)));
  }
  T GeluSlope(T x) const {
    if (c_.mlp == MlpKind::kGelu) {
      return T(0.5) * (1 + std::erf(x / T(std::sqrt(2.0)))) +
             x * std::exp(-x * x / 2) / T(std::sqrt(2 * M_PI));
    }
    const T t = std::tanh(TanhArgument(x));
    const T inner = T(std::sqrt(2 / M_PI)) * (1 + 3 * T(0.044715) * x * x);
    return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * inner;
  }

  Values<T> Sum(const Values<T>& a, Values<T> b) const {
    for (size_t i = 0; i < b.size(); ++i) b[i] += a[i];
    RoundTo(p_.dtype, &b);
    return b;
  }

  // x [rows, in] times weight [out, in] transposed, plus bias.
  Values<T> Linear(const std::string& name, const Values<T>& x, int64_t in, int64_t out) const {
    const Values<T>& w = Weight(name);
    Values<T> wt(in * out), y(rows_ * out);
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i < in; ++i) wt[i * out + o] = w[o * in + i];
    }
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t i = 0; i < in; ++i) AddScaled(x[r * in + i], &wt[i * out], out, &y[r * out]);
      if (Bias(name) != nullptr) AddScaled(T{1}, Bias(name)->data(), out, &y[r * out]);
    }
    RoundTo(p_.dtype, &y);
    return y;
  }

  // Adds to dx; sets the gradients of weight and bias.
  void LinearBackward(const std::string& name, const Values<T>& x, const Values<T>& dy, int64_t in,
                      int64_t out, Values<T>* dx) {
    const Values<T>& w = Weight(name);
    Values<T>& dw = grads_.weights[name + ".weight"];
    dw.assign(w.size(), 0);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t o = 0; o < out; ++o) {
        AddScaled(dy[r * out + o], &w[o * in], in, &(*dx)[r * in]);
        AddScaled(dy[r * out + o], &x[r * in], in, &dw[o * in]);
      }
    }
    if (Bias(name) != nullptr) SumRows(dy, out, &grads_.weights[name + ".bias"]);
  }

  void SumRows(const Values<T>& x, int64_t cols, Values<T>* sums) const {
    sums->assign(cols, 0);
    for (int64_t r = 0; r < rows_; ++r) AddScaled(T{1}, &x[r * cols], cols, sums->data());
  }

  static void AddScaled(T factor, const T* from, int64_t n, T* to) {
    for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
  }

  void MeanAndScale(const T* row, T* mean, T* scale) const {
    *mean = 0;
    if (c_.norm == NormKind::kLayerNorm) {
      for (int64_t i = 0; i < d_; ++i) *mean += row[i];
      *mean /= d_;
    }
    T square = 0;
    for (int64_t i = 0; i < d_; ++i) square += (row[i] - *mean) * (row[i] - *mean);
    *scale = 1 / std::sqrt(square / d_ + T(c_.norm_eps));
  }

  Values<T> Norm(const std::string& name, const Values<T>& x) const {
    if (c_.norm == NormKind::kNone) return x;
    const Values<T>& w = Weight(name);
    Values<T> y(x.size());
    for (int64_t r = 0; r < rows_; ++r) {
      T mean, scale;
      MeanAndScale(&x[r * d_], &mean, &scale);
      for (int64_t i = 0; i < d_; ++i) {
        y[r * d_ + i] =
            (x[r * d_ + i] - mean) * scale * w[i] + (Bias(name) != nullptr ? (*Bias(name))[i] : 0);
      }
    }
    RoundTo(p_.dtype, &y);
    return y;
  }

  Values<T> NormBackward(const std::string& name, const Values<T>& x, const Values<T>& dy,
                         const Values<T>& residual) {
    if (c_.norm == NormKind::kNone) return Sum(residual, dy);
    const Values<T>& w = Weight(name);
    Values<T>& dw = grads_.weights[name + ".weight"];
    dw.assign(d_, 0);
    Values<T> dx(x.size());
    for (int64_t r = 0; r < rows_; ++r) {
      T mean, scale, sum = 0, dot = 0;
      MeanAndScale(&x[r * d_], &mean, &scale);
      for (int64_t i = 0; i < d_; ++i) {
        const T normed = (x[r * d_ + i] - mean) * scale, g = dy[r * d_ + i] * w[i];
        dw[i] += dy[r * d_ + i] * normed;
        sum += g;
        dot += g * normed;
      }
      if (c_.norm == NormKind::kRmsNorm) sum = 0;
      for (int64_t i = 0; i < d_; ++i) {
        const T normed = (x[r * d_ + i] - mean) * scale, g = dy[r * d_ + i] * w[i];
        dx[r * d_ + i] = scale * (g - sum / d_ - normed * dot / d_) + residual[r * d_ + i];
      }
    }
    if (Bias(name) != nullptr) SumRows(dy, d_, &grads_.weights[name + ".bias"]);
    RoundTo(p_.dtype, &dx);
    return dx;
  }

  // The two halves of each head are rotated against each other, by angles in float64.
  void Rotate(Values<T>* x, int64_t cols, bool inverse) const {
    if (!c_.rope_theta.has_value()) return;
    const int half = c_.head_dim / 2;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t first = r * cols; first < (r + 1) * cols; first += c_.head_dim) {
        for (int i = 0; i < half; ++i) {
          const double angle =
              static_cast<double>(r / p_.batch) * std::pow(*c_.rope_theta, -2.0 * i / c_.head_dim);
          const T cosine = static_cast<T>(std::cos(angle)),
                  sine = static_cast<T>(std::sin(inverse ? -angle : angle));
          const T a = (*x)[first + i], b = (*x)[first + half + i];
          (*x)[first + i] = a * cosine - b * sine;
          (*x)[first + half + i] = b * cosine + a * sine;
        }
      }
    }
    RoundTo(p_.dtype, x);
  }

  const LayerProblem& p_;
  const ModelConfig& c_;
  const NamedValues<T>& weights_;
  const int64_t rows_, d_;
  AttentionProblem attention_;
  LayerGrads<T> grads_;
};

}  // namespace

template <typename T>
LayerTrace<T> LayerForwardOracle(const LayerProblem& problem, const NamedValues<T>& weights,
                                 const std::vector<T>& x) {
  return LayerOracle<T>(problem, weights).Forward(x);
}

template <typename T>
LayerGrads<T> LayerBackwardOracle(const LayerProblem& problem, const NamedValues<T>& weights,
                                  const LayerTrace<T>& trace, const std::vector<T>& dy) {
  return LayerOracle<T>(problem, weights).Backward(trace, dy);
}

template LayerTrace<double> LayerForwardOracle(const LayerProblem&, const NamedValues<double>&,
                                               const std::vector<double>&);
template LayerTrace<float> LayerForwardOracle(const LayerProblem&, const NamedValues<float>&,
                                              const std::vector<float>&);
template LayerGrads<double> LayerBackwardOracle(const LayerProblem&, const NamedValues<double>&,
                                                const LayerTrace<double>&, const std::vector<double>&);
template LayerGrads<float> LayerBackwardOracle(const LayerProblem&, const NamedValues<float>&,
                                               const LayerTrace<float>&, const std::vector<float>&);

}  // namespace seqpar
