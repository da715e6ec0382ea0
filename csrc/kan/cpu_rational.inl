// Grouped rational functions, P(x) / Q(x) with Q = 1 + sum_j |b_j| |x|^j.
#pragma once

#include "kan/cpu_pack.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

// Vectors whose coefficient gradients are summed in T before they join the sums in double.
constexpr int64_t kRationalRun = 256;

template <typename T>
struct Coefficients {
  T a[kMaxCoefficients], b[kMaxCoefficients];  // b[j] of x^(j + 1), without its sign
  explicit Coefficients(const Rational<T>& r) {
    for (int i = 0; i < r.numerators; ++i) a[i] = r.numerator[i];
    for (int j = 0; j < r.denominators; ++j) {
      b[j] = r.denominator[j] < T(0) ? -r.denominator[j] : r.denominator[j];
    }
  }
};

template <typename T, int M, int N>
inline void rational_run(const Rational<T>& f, const T* x, int64_t count, T* y) {
  constexpr int W = kWidth<T>;
  const int m = M > 0 ? M : f.numerators, n = M > 0 ? N : f.denominators;
  const Coefficients<T> c(f);
  for (int64_t k = 0; k < count; k += W) {
    const Vec<T> u = load_partial(x + k, count - k), v = abs<T>(u);
    Vec<T> p = broadcast<T>(c.a[m - 1]), q{};
    for (int i = m - 2; i >= 0; --i) p = p * u + c.a[i];
    for (int j = n - 1; j >= 0; --j) q = (q + c.b[j]) * v;
    store_partial<T>(y + k, p / (T(1) + q), count - k);
  }
}

template <typename T, int M, int N>
inline void rational_backward_run(const Rational<T>& f, const T* grad_out, const T* x,
                                  int64_t count, T* grad_x, double* sums) {
  constexpr int W = kWidth<T>;
  constexpr int kSums = M > 0 ? M : kMaxCoefficients, kOthers = M > 0 ? N : kMaxCoefficients;
  const int m = M > 0 ? M : f.numerators, n = M > 0 ? N : f.denominators;
  const Coefficients<T> c(f);
  for (int64_t run = 0; run < count; run += kRationalRun * W) {
    const int64_t end = least(count, run + kRationalRun * W);
    Vec<T> of_a[kSums] = {}, of_b[kOthers] = {};
    for (int64_t k = run; k < end; k += W) {
      const Vec<T> u = load_partial(x + k, end - k), v = abs<T>(u);
      const Vec<T> g = load_partial(grad_out + k, end - k);
      Vec<T> p = broadcast<T>(c.a[m - 1]), dp{}, q{}, dq{};
      for (int i = m - 2; i >= 0; --i) dp = dp * u + p, p = p * u + c.a[i];
      for (int j = n - 1; j >= 0; --j) dq = dq * v + (q + c.b[j]), q = (q + c.b[j]) * v;
      const Vec<T> r = T(1) / (T(1) + q);
      const Vec<T> y = p * r, scaled = g * r;
      dq = u < T(0) ? -dq : dq;
      store_partial<T>(grad_x + k, scaled * (dp - y * dq), end - k);
      Vec<T> power = scaled;
      for (int i = 0; i < m; ++i) of_a[i] += power, power *= u;
      power = -scaled * y;
      for (int j = 0; j < n; ++j) power *= v, of_b[j] += power;
    }
    for (int i = 0; i < m; ++i) sums[i] += static_cast<double>(horizontal_sum<T>(of_a[i]));
    for (int j = 0; j < n; ++j) {
      const double sum = static_cast<double>(horizontal_sum<T>(of_b[j]));
      sums[m + j] += f.denominator[j] < T(0) ? -sum : sum;
    }
  }
}

template <typename T>
void rational(const Rational<T>& f, const T* x, int64_t count, T* y) {
  if (f.numerators == 6 && f.denominators == 4) {
    rational_run<T, 6, 4>(f, x, count, y);
  } else {
    rational_run<T, 0, 0>(f, x, count, y);
  }
}

template <typename T>
void rational_backward(const Rational<T>& f, const T* grad_out, const T* x, int64_t count,
                       T* grad_x, double* sums) {
  if (f.numerators == 6 && f.denominators == 4) {
    rational_backward_run<T, 6, 4>(f, grad_out, x, count, grad_x, sums);
  } else {
    rational_backward_run<T, 0, 0>(f, grad_out, x, count, grad_x, sums);
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
