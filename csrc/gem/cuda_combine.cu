// Sums of rows, in float64, rounded once. The factors are read on the device: a row whose factor is
// zero is not read, and where all are zero and the gradient stays where it is nothing is.
#include "gem/cuda_columns.cuh"

namespace saccade::gem {
namespace {

constexpr int kColumnsAThread = 4;
constexpr int64_t kColumns = kThreads * kColumnsAThread;

// Which piece a block works on, which of its columns come first, and for which problem.
__device__ __forceinline__ void place(const Pieces& p, int64_t& b, int& piece, int64_t& first) {
  int64_t blocks = 0;
  for (int k = 0; k < p.count; ++k) blocks += (p.columns[k] + kColumns - 1) / kColumns;
  b = blockIdx.x / blocks;
  int64_t block = blockIdx.x % blocks;
  piece = 0;
  for (;;) {
    const int64_t own = (p.columns[piece] + kColumns - 1) / kColumns;
    if (block < own) break;
    block -= own;
    ++piece;
  }
  first = block * kColumns + threadIdx.x;
}

int64_t blocks_of(const Pieces& p) {
  int64_t blocks = 0;
  for (int k = 0; k < p.count; ++k) blocks += (p.columns[k] + kColumns - 1) / kColumns;
  return blocks * p.batch;
}

// The gradient and the sum of factor[i] memory[i] at a thread's columns.
template <class T>
__device__ __forceinline__ void sum_rows(const Pieces& p, int64_t b, int piece, int64_t first,
                                         const double* factor, double (&sum)[kColumnsAThread]) {
  const int64_t end = p.columns[piece];
  const T* const grad = row_of<T>(p, piece, p.rows, b);
#pragma unroll
  for (int u = 0; u < kColumnsAThread; ++u) {
    const int64_t x = first + u * kThreads;
    sum[u] = x < end ? static_cast<double>(cuda::to_float(grad[x])) : 0.0;
  }
  for (int i = 0; i < p.rows; ++i) {
    const double f = factor[i];
    const T* const row = row_of<T>(p, piece, i, b);
    if (f == 0.0 || row == nullptr) continue;
#pragma unroll
    for (int u = 0; u < kColumnsAThread; ++u) {
      const int64_t x = first + u * kThreads;
      if (x < end) sum[u] += f * static_cast<double>(cuda::to_float(row[x * p.stride]));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const __grid_constant__ Pieces p, const double* dual, T* out) {
  double* const factor = cuda::dynamic_shared<double>();
  int64_t b, first;
  int piece;
  place(p, b, piece, first);
  for (int i = static_cast<int>(threadIdx.x); i < p.rows; i += kThreads) {
    factor[i] = dual[b * p.rows + i];
  }
  __syncthreads();
  if (out == nullptr) {
    bool any = false;
    for (int i = 0; i < p.rows; ++i) any = any || factor[i] != 0.0;
    if (!any) return;
  }
  double sum[kColumnsAThread];
  sum_rows<T>(p, b, piece, first, factor, sum);
  T* const to =
      out != nullptr ? out + b * p.columns[piece] : const_cast<T*>(row_of<T>(p, piece, p.rows, b));
#pragma unroll
  for (int u = 0; u < kColumnsAThread; ++u) {
    const int64_t x = first + u * kThreads;
    if (x < p.columns[piece]) to[x] = cuda::from_float<T>(static_cast<float>(sum[u]));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    outer_kernel(const __grid_constant__ Pieces p, const __grid_constant__ Outer o) {
  double* const minus_y = cuda::dynamic_shared<double>();
  double* const dual = minus_y + p.rows;
  int64_t b, first;
  int piece;
  place(p, b, piece, first);
  for (int i = static_cast<int>(threadIdx.x); i < p.rows; i += kThreads) {
    minus_y[i] = o.minus_y[b * p.rows + i];
    dual[i] = o.dual[b * p.rows + i];
  }
  __syncthreads();
  double h[kColumnsAThread];
  sum_rows<T>(p, b, piece, first, minus_y, h);
  const int64_t columns = p.columns[piece];
  const T* const v = static_cast<const T*>(o.v) + b * o.v_batch;
  T* const grad = static_cast<T*>(o.grad_grad) + b * columns;
  T* const memory = static_cast<T*>(o.grad_memory) + b * p.rows * columns;
#pragma unroll
  for (int u = 0; u < kColumnsAThread; ++u) {
    const int64_t x = first + u * kThreads;
    if (x >= columns) continue;
    grad[x] = cuda::from_float<T>(static_cast<float>(h[u]));
    const double value = static_cast<double>(cuda::to_float(v[x]));
    for (int i = 0; i < p.rows; ++i) {
      // a factor of zero makes zero, whatever the other one is
      const double one = dual[i] != 0.0 ? dual[i] * h[u] : 0.0;
      const double other = minus_y[i] != 0.0 ? minus_y[i] * value : 0.0;
      memory[i * columns + x] = cuda::from_float<T>(static_cast<float>(one + other));
    }
  }
}

}  // namespace

cudaError_t combine(const Pieces& p, const double* dual, void* out, cudaStream_t stream) {
  if (blocks_of(p) == 0) return cudaSuccess;
  const size_t shared = sizeof(double) * static_cast<size_t>(p.rows);
  return for_type(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    return cuda::launch(combine_kernel<T>, blocks_of(p), kThreads, shared, stream, p, dual,
                        static_cast<T*>(out));
  });
}

cudaError_t outer(const Pieces& p, const Outer& o, cudaStream_t stream) {
  if (blocks_of(p) == 0) return cudaSuccess;
  const size_t shared = 2 * sizeof(double) * static_cast<size_t>(p.rows);
  return for_type(p.dtype, [&](auto zero) {
    return cuda::launch(outer_kernel<decltype(zero)>, blocks_of(p), kThreads, shared, stream, p, o);
  });
}

}  // namespace saccade::gem
