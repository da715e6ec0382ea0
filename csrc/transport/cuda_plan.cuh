// Passes over a plan, a tile at a time: sums over rows, and products with a vector.
#pragma once

#include "transport/cuda_adjoint.cuh"

namespace saccade::transport {

// P and what is upstream of it, a tile at a time: given, or computed from points.
template <class Matrix>
struct GivenPlan {
  static constexpr int kRows = Matrix::kRows, kShared = Matrix::kShared;
  Matrix plan, cost, upstream;  // cost and upstream: null where they are not asked for
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& p, Tile<kRows>& c, Tile<kRows>& w) const {
    plan.load(b, first, j0, shared, p);
    if (cost.matrix != nullptr) cost.load(b, first, j0, shared, c);
    if (upstream.matrix != nullptr) upstream.load(b, first, j0, shared, w);
  }
};

struct PointPlan {
  static constexpr int kRows = PointRows::kRows, kShared = PointRows::kShared;
  PointRows points;
  const float *own, *other;
  float inverse;
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& p, Tile<kRows>& c, Tile<kRows>&) const {
    points.load(b, first, j0, shared, c);
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int64_t i = first + warp * kRows + k;
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        p[k][u] = i < rows && j < columns
                      ? expf((own[b * rows + i] + other[b * columns + j] - c[k][u]) * inverse)
                      : 0.f;
      }
    }
  }
};

// The plan between points, by its rows and by its columns.
inline PointPlan rows_of_points(const AdjointProblem& a) {
  const DeviceCost& c = a.cost;
  const float inverse = static_cast<float>(1.0 / a.options.eps);
  return {{c.x, c.y, c.dim, c.metric, a.n, a.m}, a.f, a.g, inverse, a.n, a.m};
}
inline PointPlan columns_of_points(const AdjointProblem& a) {
  const DeviceCost& c = a.cost;
  const float inverse = static_cast<float>(1.0 / a.options.eps);
  return {{c.y, c.x, c.dim, c.metric, a.m, a.n}, a.g, a.f, inverse, a.m, a.n};
}

// Sums of P and of P (W + of_linear C) over a row.
struct WeighPass {
  float *sums, *weighted;
  const float* of_linear;

  __device__ __forceinline__ bool skip(int64_t) const { return false; }
  __device__ __forceinline__ void add(float (&total)[2], int64_t b, int64_t, float p, float c,
                                      float w) const {
    total[0] += p;
    const float factor = or_zero(of_linear, b);
    const float upstream = factor == 0.f ? w : w + factor * c;
    total[1] += p == 0.f ? 0.f : p * upstream;
  }
  __device__ __forceinline__ void store(int64_t at, float sum, float other) const {
    sums[at] = sum;
    weighted[at] = other;
  }
};

// out = scale * (P vector); nothing where the system is solved.
struct ProductPass {
  const float* vector;
  const float* scale;  // or null
  float* out;
  const Descent* descent;  // or null
  int64_t columns;

  __device__ __forceinline__ bool skip(int64_t b) const {
    return descent != nullptr && descent[b].done != 0;
  }
  __device__ __forceinline__ void add(float (&total)[2], int64_t b, int64_t j, float p, float,
                                      float) const {
    total[0] += p * vector[b * columns + j];
  }
  __device__ __forceinline__ void store(int64_t at, float sum, float) const {
    out[at] = scale == nullptr ? sum : scale[at] * sum;
  }
};

template <class Plan, class Pass>
__global__ void __launch_bounds__(kThreads)
    plan_kernel(const __grid_constant__ Plan plan, const __grid_constant__ Pass pass) {
  constexpr int K = Plan::kRows;
  const int64_t tiles = tiles_of(plan), b = blockIdx.x / tiles;
  const int64_t block = blockIdx.x % tiles * kWarps * K;
  const int64_t first = block + static_cast<int>(threadIdx.x) / 32 * K;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (pass.skip(b)) return;
  float* const shared = cuda::dynamic_shared<float>();
  float total[K][2] = {};
  for (int64_t j0 = 0; j0 < plan.columns; j0 += kTileColumns) {
    Tile<K> p, c = {}, w = {};
    plan.load(b, block, j0, shared, p, c, w);
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        if (first + k < plan.rows && j < plan.columns) {
          pass.add(total[k], b, j, p[k][u], c[k][u], w[k][u]);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const float sum = warp_sum(total[k][0]), other = warp_sum(total[k][1]);
    if (lane == 0 && first + k < plan.rows) pass.store(b * plan.rows + first + k, sum, other);
  }
}

template <class Plan, class Pass>
cudaError_t run(const Plan& plan, const Pass& pass, int64_t batch, cudaStream_t stream) {
  const int64_t blocks = batch * tiles_of(plan);
  if (blocks == 0) return cudaSuccess;
  return cuda::launch(plan_kernel<Plan, Pass>, blocks, kThreads, Plan::kShared * sizeof(float),
                      stream, plan, pass);
}

}  // namespace saccade::transport
