// The system of the implicit gradient: a problem's vectors, and the steps of conjugate gradients on
// the columns as a block makes them.
#pragma once

#include "transport/cuda_side.cuh"

namespace saccade::transport {

constexpr double kTolerance = 1e-6;

// The vectors of one problem.
struct Vectors {
  float *row_sums, *p, *inverse, *x, *t;
  float *column_sums, *q, *y, *r, *d, *s;

  __device__ __forceinline__ Vectors(const AdjointProblem& a, int64_t b) {
    const int64_t rows = a.batch * a.n, columns = a.batch * a.m;
    float* const row = a.rows + b * a.n;
    float* const column = a.columns + b * a.m;
    row_sums = row, p = row + rows, inverse = row + 2 * rows, x = row + 3 * rows;
    t = row + 4 * rows;
    column_sums = column, q = column + columns, y = column + 2 * columns;
    r = column + 3 * columns, d = column + 4 * columns, s = column + 5 * columns;
  }
};

// Whether only the value is asked for, whose gradient needs no system of equations.
__host__ __device__ __forceinline__ bool envelope(const AdjointProblem& a) {
  return a.of_plan == nullptr && a.of_f == nullptr && a.of_g == nullptr && a.of_linear == nullptr;
}

__device__ __forceinline__ float or_zero(const float* x, int64_t i) {
  return x == nullptr ? 0.f : x[i];
}

// 1 + eps / rho; 1 where the side is balanced.
__device__ __forceinline__ float alpha(double eps, double rho) {
  return static_cast<float>(1.0 + eps / rho);
}

__device__ __forceinline__ bool is_balanced(const DeviceOptions& o) {
  return o.rho_a - o.rho_a != 0.0 && o.rho_b - o.rho_b != 0.0;
}

// Right-hand sides and the first x, from the sums of P and of P W.
template <int kBlockThreads>
__device__ __forceinline__ void prepare(const AdjointProblem& a, const Vectors& v, int64_t b) {
  const bool system = !envelope(a);
  const float eps = static_cast<float>(a.options.eps);
  const float of_rows = alpha(a.options.eps, a.options.rho_a);
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) {
    const float sum = v.row_sums[i];
    const float inverse = sum == 0.f ? 0.f : 1.f / (of_rows * sum);
    if (sum != 0.f) v.p[i] += eps * or_zero(a.of_f, b * a.n + i);
    v.inverse[i] = inverse;
    v.x[i] = system ? inverse * v.p[i] : 0.f;
  }
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    if (v.column_sums[j] != 0.f) v.q[j] += eps * or_zero(a.of_g, b * a.m + j);
    v.y[j] = 0.f;
  }
}

// Where both sides are balanced the system determines y up to a constant, and what has a mean is
// not in its range.
template <int kBlockThreads>
__device__ __forceinline__ void remove_mean(const AdjointProblem& a, const Vectors& v,
                                            double* scratch) {
  if (!is_balanced(a.options)) return;
  double total = 0.0, mass = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    total += v.r[j];
    mass += v.column_sums[j];
  }
  total = block_sum<kBlockThreads>(total, scratch);
  mass = block_sum<kBlockThreads>(mass, scratch);
  if (mass == 0.0) return;
  const float mean = static_cast<float>(total / mass);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) v.r[j] -= mean * v.column_sums[j];
}

__device__ __forceinline__ float preconditioned(float r, float diagonal) {
  return r == 0.f ? 0.f : __fdividef(r, diagonal);
}

template <int kBlockThreads>
__device__ __forceinline__ double size_of(const AdjointProblem& a, const Vectors& v,
                                          float of_columns, double* scratch) {
  double size = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    const double r = v.r[j];
    size += r * preconditioned(v.r[j], of_columns * v.column_sums[j]);
  }
  return block_sum<kBlockThreads>(size, scratch);
}

// The first residual and direction; s is P' x.
template <int kBlockThreads>
__device__ __forceinline__ Descent begin(const AdjointProblem& a, const Vectors& v,
                                         double* scratch) {
  const float of_columns = alpha(a.options.eps, a.options.rho_b);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.r[j] = v.column_sums[j] != 0.f ? v.q[j] - v.s[j] : 0.f;
  }
  remove_mean<kBlockThreads>(a, v, scratch);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.d[j] = preconditioned(v.r[j], of_columns * v.column_sums[j]);
  }
  const double size = size_of<kBlockThreads>(a, v, of_columns, scratch);
  const double target = kTolerance * kTolerance * size;
  return {size, target, size > target ? 0 : 1};
}

// A step of conjugate gradients; s is P' diag(inverse) P d.
template <int kBlockThreads>
__device__ __forceinline__ Descent step(const AdjointProblem& a, const Vectors& v, Descent now,
                                        double* scratch) {
  const float of_columns = alpha(a.options.eps, a.options.rho_b);
  double curvature = 0.0;
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.s[j] = of_columns * v.column_sums[j] * v.d[j] - v.s[j];
    curvature += static_cast<double>(v.d[j]) * v.s[j];
  }
  curvature = block_sum<kBlockThreads>(curvature, scratch);
  if (!(curvature > 0.0)) {
    now.done = 1;
    return now;
  }
  const float length = static_cast<float>(now.size / curvature);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.y[j] += length * v.d[j];
    v.r[j] -= length * v.s[j];
  }
  remove_mean<kBlockThreads>(a, v, scratch);
  const double next = size_of<kBlockThreads>(a, v, of_columns, scratch);
  const float turn = static_cast<float>(next / now.size);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    v.d[j] = preconditioned(v.r[j], of_columns * v.column_sums[j]) + turn * v.d[j];
  }
  now.size = next;
  now.done = next > now.target ? 0 : 1;
  return now;
}

// The gradient of a weight from the solution and from the value's envelope.
__device__ __forceinline__ float weight_gradient(const DeviceSide& side, int64_t at, double eps,
                                                 double other_total, float x, float potential,
                                                 float sum, float of_value) {
  const float weight = side.weight_at(at);
  if (weight == 0.f || potential == -infinity()) return 0.f;
  const double base = side.kl ? eps * logf(weight) : 0.0;
  const double share = static_cast<double>(sum) / weight;
  double of_solution = x, slope = potential - base;
  if (!side.balanced()) {
    of_solution *= expf(static_cast<float>((base - potential) / side.rho)) *
                   (side.kl ? 1.0 + eps / side.rho : 1.0);
    slope = side.rho * (1.0 - share);
  }
  if (side.kl) slope += eps * (other_total - share);
  return static_cast<float>(of_solution + of_value * slope);
}

// The last x and the gradients of the weights; t is P y.
template <int kBlockThreads>
__device__ __forceinline__ void conclude(const AdjointProblem& a, const Vectors& v, int64_t b,
                                         double* scratch) {
  const DeviceOptions& o = a.options;
  const DeviceSide rows{a.a + b * a.n, o.rho_a, o.kl}, columns{a.b + b * a.m, o.rho_b, o.kl};
  double total_a = 0.0, total_b = 0.0;
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) total_a += rows.weight_at(i);
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) total_b += columns.weight_at(j);
  total_a = block_sum<kBlockThreads>(total_a, scratch);
  total_b = block_sum<kBlockThreads>(total_b, scratch);
  const float of_value = or_zero(a.of_value, b);
  const bool system = !envelope(a);
  for (int64_t i = threadIdx.x; i < a.n; i += kBlockThreads) {
    if (system) v.x[i] = v.inverse[i] * (v.p[i] - v.t[i]);
    a.grad_a[b * a.n + i] =
        weight_gradient(rows, i, o.eps, total_b, v.x[i], a.f[b * a.n + i], v.row_sums[i], of_value);
  }
  for (int64_t j = threadIdx.x; j < a.m; j += kBlockThreads) {
    a.grad_b[b * a.m + j] = weight_gradient(columns, j, o.eps, total_a, v.y[j], a.g[b * a.m + j],
                                            v.column_sums[j], of_value);
  }
}

// G of a pair from P, W + of_linear C and x + y.
struct PairGradient {
  float inverse, of_linear, constant;

  __device__ __forceinline__ PairGradient(const AdjointProblem& a, int64_t b)
      : inverse(static_cast<float>(1.0 / a.options.eps)),
        of_linear(or_zero(a.of_linear, b)),
        constant(of_linear + or_zero(a.of_value, b)) {}
  __device__ __forceinline__ float upstream(float w, float c) const {
    return of_linear == 0.f ? w : w + of_linear * c;
  }
  __device__ __forceinline__ float operator()(float p, float w, float c, float sum) const {
    return p == 0.f ? 0.f : p * ((sum - upstream(w, c)) * inverse + constant);
  }
};

// Gradients of the points of both sides, behind the solution of the system.
cudaError_t point_gradients(const AdjointProblem& a, cudaStream_t stream);

}  // namespace saccade::transport
