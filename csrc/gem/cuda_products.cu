// Products of rows, each column read from memory once. A block of threads owns a slot of columns
// and a pair of blocks of 8 rows: every thread sums 64 products over its own columns in registers,
// a warp adds up its lanes with 64 shuffles and keeps the sums in float64, two a lane. Blocks that
// share columns are neighbours in the grid, so that the second one finds them in the cache. Nothing
// is added in an order that depends on timing.
#include "gem/cuda_columns.cuh"

namespace saccade::gem {
namespace {

// Columns a thread sums in float32.
constexpr int kSummed = 64;

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    gram_kernel(const __grid_constant__ Pieces p, double* partials) {
  using Owned = cuda::Owner<kBlock * kBlock, 32>;
  const int blocks = (p.rows + kBlock) / kBlock, pairs = blocks * (blocks + 1) / 2;
  const int slots = p.first_slot[p.count];
  const int pair = static_cast<int>(blockIdx.x % pairs);
  const int slot = static_cast<int>(blockIdx.x / pairs % slots);
  const int64_t b = blockIdx.x / pairs / slots;
  int upper = 0;
  while ((upper + 1) * (upper + 2) / 2 <= pair) ++upper;
  const int lower = pair - upper * (upper + 1) / 2;
  const int piece = piece_of(p, slot);
  int64_t begin, end;
  range_of(p, piece, slot, begin, end);

  const T* left[kBlock];
  const T* right[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    // rows beyond the last one repeat it; nobody reads their sums
    const int a = upper * kBlock + i, c = lower * kBlock + i;
    left[i] = row_of<T>(p, piece, a < p.rows ? a : p.rows, b);
    right[i] = row_of<T>(p, piece, c < p.rows ? c : p.rows, b);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  double total[Owned::kOwned] = {};
  for (int64_t from = begin; from < end; from += int64_t{kSummed} * kThreads) {
    float sum[kBlock * kBlock];
#pragma unroll
    for (int i = 0; i < kBlock * kBlock; ++i) sum[i] = 0.f;
    const int64_t stop =
        from + int64_t{kSummed} * kThreads < end ? from + int64_t{kSummed} * kThreads : end;
    for (int64_t x = from + threadIdx.x; x < stop; x += kThreads) {
      float value[kBlock];
#pragma unroll
      for (int j = 0; j < kBlock; ++j) {
        const int64_t at = lower * kBlock + j < p.rows ? x * p.stride : x;
        value[j] = right[j] != nullptr ? cuda::to_float(right[j][at]) : 0.f;
      }
#pragma unroll
      for (int i = 0; i < kBlock; ++i) {
        const int64_t at = upper * kBlock + i < p.rows ? x * p.stride : x;
        const float a = left[i] != nullptr ? cuda::to_float(left[i][at]) : 0.f;
#pragma unroll
        for (int j = 0; j < kBlock; ++j)
          sum[i * kBlock + j] = fmaf(a, value[j], sum[i * kBlock + j]);
      }
    }
    cuda::team_reduce<kBlock * kBlock, 32>(sum, lane);
#pragma unroll
    for (int i = 0; i < Owned::kOwned; ++i) total[i] += static_cast<double>(sum[i]);
  }
  double* const shared = cuda::dynamic_shared<double>();
#pragma unroll
  for (int i = 0; i < Owned::kOwned; ++i) {
    shared[warp * kBlock * kBlock + lane * Owned::kOwned + i] = total[i];
  }
  __syncthreads();
  const int entry = static_cast<int>(threadIdx.x);
  if (entry >= kBlock * kBlock) return;
  double sum = 0.0;
  for (int w = 0; w < kWarps; ++w) sum += shared[w * kBlock * kBlock + entry];
  partials[((b * pairs + pair) * p.slots + p.slots_before + slot) * kBlock * kBlock + entry] = sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dot_kernel(const __grid_constant__ Pieces p, const double* dual, double lower,
               double* partials) {
  const int blocks = (p.rows + kBlock - 1) / kBlock;
  const int slots = p.first_slot[p.count];
  const int block = static_cast<int>(blockIdx.x % blocks);
  const int slot = static_cast<int>(blockIdx.x / blocks % slots);
  const int64_t b = blockIdx.x / blocks / slots;
  const int piece = piece_of(p, slot);
  int64_t begin, end;
  range_of(p, piece, slot, begin, end);

  const T* row[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    const int r = block * kBlock + i;
    const bool wanted = r < p.rows && dual[b * p.rows + r] > lower;
    row[i] = wanted ? row_of<T>(p, piece, r, b) : nullptr;
  }
  const T* const grad = row_of<T>(p, piece, p.rows, b);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  double total[kBlock] = {};
  for (int64_t from = begin; from < end; from += int64_t{kSummed} * kThreads) {
    float sum[kBlock] = {};
    const int64_t stop =
        from + int64_t{kSummed} * kThreads < end ? from + int64_t{kSummed} * kThreads : end;
    for (int64_t x = from + threadIdx.x; x < stop; x += kThreads) {
      const float g = cuda::to_float(grad[x]);
#pragma unroll
      for (int i = 0; i < kBlock; ++i) {
        if (row[i] != nullptr) sum[i] = fmaf(cuda::to_float(row[i][x * p.stride]), g, sum[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kBlock; ++i) total[i] += static_cast<double>(sum[i]);
  }
  double* const shared = cuda::dynamic_shared<double>();
#pragma unroll
  for (int i = 0; i < kBlock; ++i) {
    double sum = total[i];
    for (int bit = 16; bit > 0; bit /= 2) sum += __shfl_xor_sync(cuda::kFullWarp, sum, bit);
    if (lane == 0) shared[warp * kBlock + i] = sum;
  }
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x), r = block * kBlock + i;
  if (i >= kBlock || r >= p.rows) return;
  double sum = 0.0;
  for (int w = 0; w < kWarps; ++w) sum += shared[w * kBlock + i];
  partials[(b * p.slots + p.slots_before + slot) * p.rows + r] = sum;
}

}  // namespace

cudaError_t gram(const Pieces& p, double* partials, cudaStream_t stream) {
  const int64_t blocks = pairs_of(p.rows) * p.first_slot[p.count] * p.batch;
  const size_t shared = sizeof(double) * kWarps * kBlock * kBlock;
  return for_type(p.dtype, [&](auto zero) {
    return cuda::launch(gram_kernel<decltype(zero)>, blocks, kThreads, shared, stream, p, partials);
  });
}

cudaError_t dot(const Pieces& p, const double* dual, double lower, double* partials,
                cudaStream_t stream) {
  const int64_t blocks = int64_t{(p.rows + kBlock - 1) / kBlock} * p.first_slot[p.count] * p.batch;
  const size_t shared = sizeof(double) * kWarps * kBlock;
  return for_type(p.dtype, [&](auto zero) {
    return cuda::launch(dot_kernel<decltype(zero)>, blocks, kThreads, shared, stream, p, dual,
                        lower, partials);
  });
}

}  // namespace saccade::gem
