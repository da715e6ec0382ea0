// Costs in tiles of rows by 128 columns, four columns a lane, for passes over the rows of a matrix,
// of its transpose, or of pairs of points. A row's numbers are added up in an order that its
// length alone decides.
#pragma once

#include "common/cuda_device.cuh"
#include "transport/cuda_sinkhorn.cuh"

namespace saccade::transport {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kLaneColumns = 4;
constexpr int kTileColumns = 32 * kLaneColumns;
// What a block may use on every device from compute capability 8.0 on.
constexpr int64_t kMostShared = 96 * 1024;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

__device__ __forceinline__ float warp_sum(float x) {
  return cuda::lanes_reduce<1, 32>(x, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float warp_max(float x) {
  return cuda::lanes_reduce<1, 32>(x, [](float a, float b) { return fmaxf(a, b); });
}

// Sum over the block, on every thread.
template <int kBlockThreads>
__device__ __forceinline__ double block_sum(double x, double* scratch) {
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) x += __shfl_xor_sync(cuda::kFullWarp, x, bit);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0.0;
  for (int warp = 0; warp < kBlockThreads / 32; ++warp) total += scratch[warp];
  __syncthreads();
  return total;
}

template <int kRowsAWarp>
using Tile = float[kRowsAWarp][kLaneColumns];

// Rows of a matrix.
struct MatrixRows {
  static constexpr int kRows = 1;
  static constexpr int kShared = 1;
  const float* matrix;
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float*,
                                       Tile<kRows>& c) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t i = first + warp;
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) {
      const int64_t j = j0 + lane + 32 * u;
      c[0][u] = i < rows && j < columns ? matrix[(b * rows + i) * columns + j] : 0.f;
    }
  }
};

// Columns of a matrix, as rows.
struct MatrixColumns {
  static constexpr int kRows = 1;
  static constexpr int kStride = kTileColumns + 4;  // no bank conflict at 8 by 4 numbers a warp
  static constexpr int kShared = kWarps * kStride;
  const float* matrix;
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& c) const {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
#pragma unroll
    for (int e = thread; e < kWarps * kTileColumns; e += kThreads) {
      const int64_t i = first + e % kWarps, j = j0 + e / kWarps;
      shared[e % kWarps * kStride + e / kWarps] =
          i < rows && j < columns ? matrix[(b * columns + j) * rows + i] : 0.f;
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) c[0][u] = shared[warp * kStride + lane + 32 * u];
    __syncthreads();
  }
};

// Costs of points. Differences are summed as such, so near points keep their digits.
struct PointRows {
  static constexpr int kRows = 4;
  static constexpr int kDepth = 16;
  static constexpr int kStride = kTileColumns + 2;
  static constexpr int kShared = kDepth * (kWarps * kRows + kStride);
  const float *x, *y;
  int dim;
  Metric metric;
  int64_t rows, columns;

  __device__ __forceinline__ void load(int64_t b, int64_t first, int64_t j0, float* shared,
                                       Tile<kRows>& c) const {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
    float* const xs = shared;
    float* const ys = shared + kWarps * kRows * kDepth;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) c[k][u] = 0.f;
    }
    for (int d0 = 0; d0 < dim; d0 += kDepth) {
      for (int e = thread; e < kWarps * kRows * kDepth; e += kThreads) {
        const int64_t i = first + e / kDepth;
        const int d = d0 + e % kDepth;
        xs[e] = i < rows && d < dim ? x[(b * rows + i) * dim + d] : 0.f;
      }
      for (int e = thread; e < kTileColumns * kDepth; e += kThreads) {
        const int64_t j = j0 + e / kDepth;
        const int d = d0 + e % kDepth;
        ys[e % kDepth * kStride + e / kDepth] =
            j < columns && d < dim ? y[(b * columns + j) * dim + d] : 0.f;
      }
      __syncthreads();
#pragma unroll 4
      for (int d = 0; d < kDepth; ++d) {
        float of_y[kLaneColumns];
#pragma unroll
        for (int u = 0; u < kLaneColumns; ++u) of_y[u] = ys[d * kStride + lane + 32 * u];
#pragma unroll
        for (int k = 0; k < kRows; ++k) {
          const float of_x = xs[(warp * kRows + k) * kDepth + d];
#pragma unroll
          for (int u = 0; u < kLaneColumns; ++u) {
            const float distance = of_x - of_y[u];
            c[k][u] = metric == kOneMinusDot ? fmaf(of_x, of_y[u], c[k][u])
                                             : fmaf(distance, distance, c[k][u]);
          }
        }
      }
      __syncthreads();
    }
    if (metric == kSquared) return;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
#pragma unroll
      for (int u = 0; u < kLaneColumns; ++u) {
        c[k][u] = metric == kDistance ? sqrtf(c[k][u]) : 1.f - c[k][u];
      }
    }
  }
};

template <class Rows>
__host__ __device__ int64_t tiles_of(const Rows& rows) {
  constexpr int kBlockRows = kWarps * Rows::kRows;
  return (rows.rows + kBlockRows - 1) / kBlockRows;
}

// Sums of rows, a warp a group of rows: pass.begin(b) says whether there is anything to do and
// what for, pass.add takes four numbers of a row, pass.finish the lanes' sums.
template <class Rows, class Pass>
__global__ void __launch_bounds__(kThreads)
    pass_kernel(const __grid_constant__ Rows rows, const __grid_constant__ Pass pass) {
  constexpr int K = Rows::kRows;
  const int64_t tiles = tiles_of(rows), b = blockIdx.x / tiles;
  const int64_t block = blockIdx.x % tiles * kWarps * K;
  const int64_t first = block + static_cast<int>(threadIdx.x) / 32 * K;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const shared = cuda::dynamic_shared<float>();
  typename Pass::Setting setting;
  if (!pass.begin(b, setting)) return;
  typename Pass::Sums sums[K] = {};
  for (int64_t j0 = 0; j0 < rows.columns; j0 += kTileColumns) {
    Tile<K> c;
    rows.load(b, block, j0, shared, c);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (first + k < rows.rows) {
        pass.add(setting, sums[k], b, first + k, rows.rows, j0 + lane, rows.columns, c[k]);
      }
    }
  }
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (first + k < rows.rows) pass.finish(setting, sums[k], b, first + k, rows.rows, lane);
  }
}

template <class Rows, class Pass>
cudaError_t run_pass(const Rows& rows, const Pass& pass, int64_t batch, cudaStream_t stream) {
  const int64_t blocks = batch * tiles_of(rows);
  if (blocks == 0) return cudaSuccess;
  return cuda::launch(pass_kernel<Rows, Pass>, blocks, kThreads, Rows::kShared * sizeof(float),
                      stream, rows, pass);
}

}  // namespace saccade::transport
