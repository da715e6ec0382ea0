// Gradients of points from the pairs' gradients, which are computed a tile at a time and dropped.
#include "transport/cuda_plan.cuh"

namespace saccade::transport {
namespace {

// Gradients of the points of the rows, 32 coordinates a block: sum of G_ij dC_ij/dx_i.
struct PointGradient {
  PointPlan plan;
  const float *x, *y;  // solutions of the rows and of the columns
  float* out;
};

constexpr int kBlockPoints = kWarps * PointRows::kRows;
constexpr int kPairStride = kTileColumns + 1;
constexpr int kPointShared = PointRows::kShared + kBlockPoints * kPairStride + kTileColumns * 32;

__global__ void __launch_bounds__(kThreads)
    point_gradient_kernel(const __grid_constant__ AdjointProblem a,
                          const __grid_constant__ PointGradient of) {
  constexpr int K = PointRows::kRows;
  const PointPlan& plan = of.plan;
  const int dim = plan.points.dim, chunks = (dim + 31) / 32;
  const int64_t tiles = tiles_of(plan), b = blockIdx.x / (tiles * chunks);
  const int64_t block = blockIdx.x / chunks % tiles * kBlockPoints;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int column = static_cast<int>(blockIdx.x % chunks) * 32;
  const Metric metric = plan.points.metric;
  float* const shared = cuda::dynamic_shared<float>();
  float* const pairs = shared + PointRows::kShared;
  float* const others = pairs + kBlockPoints * kPairStride;
  const PairGradient pair(a, b);
  // differences are summed as such; a cosine's derivative has no x
  float own[K], sum[K] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t i = block + warp * K + k;
    const bool reads = metric != kOneMinusDot && i < plan.rows && column + lane < dim;
    own[k] = reads ? plan.points.x[(b * plan.rows + i) * dim + column + lane] : 0.f;
  }
  for (int64_t j0 = 0; j0 < plan.columns; j0 += kTileColumns) {
    Tile<K> p, c, w;
    plan.load(b, block, j0, shared, p, c, w);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int64_t i = block + warp * K + k;
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        const int64_t j = j0 + lane + 32 * u;
        float g = 0.f;
        if (i < plan.rows && j < plan.columns) {
          g = pair(p[k][u], 0.f, c[k][u], of.x[b * plan.rows + i] + of.y[b * plan.columns + j]);
          // the derivative of |x - y| has the distance below; where it is 0 it is taken as 0
          if (metric == kDistance) g = c[k][u] == 0.f ? 0.f : __fdividef(g, c[k][u]);
        }
        pairs[(warp * K + k) * kPairStride + lane + 32 * u] = g;
      }
    }
    for (int e = thread; e < kTileColumns * 32; e += kThreads) {
      const int64_t j = j0 + e / 32;
      const int d = column + e % 32;
      others[e] =
          j < plan.columns && d < dim ? plan.points.y[(b * plan.columns + j) * dim + d] : 0.f;
    }
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < kTileColumns; ++j) {
      const float of_y = others[j * 32 + lane];
#pragma unroll
      for (int k = 0; k < K; ++k) {
        sum[k] = fmaf(pairs[(warp * K + k) * kPairStride + j], own[k] - of_y, sum[k]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int64_t i = block + warp * K + k;
    const int d = column + lane;
    if (i >= plan.rows || d >= dim) continue;
    of.out[(b * plan.rows + i) * dim + d] = metric == kSquared ? 2.f * sum[k] : sum[k];
  }
}

cudaError_t run_points(const AdjointProblem& a, const PointGradient& of, cudaStream_t stream) {
  const int64_t chunks = (a.cost.dim + 31) / 32, blocks = a.batch * tiles_of(of.plan) * chunks;
  if (blocks == 0) return cudaSuccess;
  return cuda::launch(point_gradient_kernel, blocks, kThreads, kPointShared * sizeof(float), stream,
                      a, of);
}

}  // namespace

cudaError_t point_gradients(const AdjointProblem& a, cudaStream_t stream) {
  const float *const x = a.rows + 3 * a.batch * a.n, *const y = a.columns + 2 * a.batch * a.m;
  cudaError_t error = run_points(a, {rows_of_points(a), x, y, a.grad_x}, stream);
  if (error == cudaSuccess) {
    error = run_points(a, {columns_of_points(a), y, x, a.grad_y}, stream);
  }
  return error;
}

}  // namespace saccade::transport
