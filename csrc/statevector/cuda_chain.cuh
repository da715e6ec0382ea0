// Matrices of merged gates, and the derivatives of their angles, in double precision.
#pragma once

#include "statevector/cuda_kernel.cuh"

namespace saccade::statevector {

using Matrix64 = Matrix<double>;

__device__ inline Matrix64 times(const Matrix64& a, const Matrix64& b) {
  Matrix64 c;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const double *p = a.e + 4 * i, *q = b.e + 2 * j;
      c.e[4 * i + 2 * j] = p[0] * q[0] - p[1] * q[1] + (p[2] * q[4] - p[3] * q[5]);
      c.e[4 * i + 2 * j + 1] = p[0] * q[1] + p[1] * q[0] + (p[2] * q[5] + p[3] * q[4]);
    }
  }
  return c;
}

__device__ inline Matrix64 transposed(const Matrix64& a, bool conjugated) {
  Matrix64 c;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int other = i == 1 ? 2 : i == 2 ? 1 : i;
    c.e[2 * i] = a.e[2 * other];
    c.e[2 * i + 1] = conjugated ? -a.e[2 * other + 1] : a.e[2 * other + 1];
  }
  return c;
}

template <class T>
__device__ double angle_of(const Run<T>& run, const DeviceFactor& f, int64_t b) {
  if (f.source == 0) return f.offset;
  const T v = f.source == 1 ? run.params[f.index] : run.inputs[b * run.inputs_a_row + f.index];
  return f.coefficient * static_cast<double>(v) + f.offset;
}

// F = fixed + cos(rate a) even + sin(rate a) odd, and its derivative in a.
__device__ inline Matrix64 factor_matrix(const Shape& shape, double angle, Matrix64* slope) {
  Matrix64 m;
  double s = 0, c = 1;
  if (shape.rate != 0) sincos(angle * shape.rate, &s, &c);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    // a constant is no NaN, whatever its angle
    m.e[i] =
        shape.rate == 0 ? shape.fixed[i] : shape.fixed[i] + c * shape.even[i] + s * shape.odd[i];
    if (slope) slope->e[i] = shape.rate * (c * shape.odd[i] - s * shape.even[i]);
  }
  return m;
}

template <class T>
__device__ Matrix64 chain_matrix(const Run<T>& run, const DeviceChain& chain, int64_t b) {
  Matrix64 u{};
  for (int i = 0; i < chain.count; ++i) {
    const DeviceFactor& f = run.program.factors[chain.first + i];
    const Matrix64 m = factor_matrix(run.program.shapes[f.shape], angle_of(run, f, b), nullptr);
    u = i == 0 ? m : times(m, u);
  }
  return u;
}

// use(factor, dL/dv) for every factor that depends on something, where dL = Re sum K dU: backwards,
// with the product P of the earlier factors and S of the later ones, dU = S dF P.
template <class T, class F>
__device__ void chain_gradient(const Run<T>& run, const DeviceChain& chain, int64_t b,
                               const Matrix64& K, const F& use) {
  Matrix64 before = chain_matrix(run, chain, b), k = K;  // k = S^T K
  for (int i = chain.count; i-- > 0;) {
    const DeviceFactor& f = run.program.factors[chain.first + i];
    Matrix64 slope;
    const Matrix64 m = factor_matrix(run.program.shapes[f.shape], angle_of(run, f, b), &slope);
    // the 2x2 of a Pauli string is not unitary as such, but it is alone in its chain
    before = i == 0 ? Matrix64{{1, 0, 0, 0, 0, 0, 1, 0}} : times(transposed(m, true), before);
    if (f.slot >= 0) {
      const Matrix64 own = times(k, transposed(before, false));
      double sum = 0;
#pragma unroll
      for (int e = 0; e < 8; e += 2) sum += own.e[e] * slope.e[e] - own.e[e + 1] * slope.e[e + 1];
      use(f, f.coefficient * sum);
    }
    k = times(transposed(m, false), k);
  }
}

}  // namespace saccade::statevector
