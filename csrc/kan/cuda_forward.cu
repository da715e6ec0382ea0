// Forward. A block owns 128 rows and 128 outputs of a head and walks the functions of all inputs:
// the threads make the features of a chunk straight into shared memory while tensor cores multiply
// the chunk before it. Features are never in global memory. Where the tiles are too few to fill a
// GPU, the functions are split over blocks, whose sums are added in order.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

// Features of a chunk as rows: 128 rows, 4 units each.
template <class T>
__device__ __forceinline__ void fill_features(const Layer& l, const Plan& plan, int head,
                                              int first_row, int chunk, T* tile) {
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < kRows * kUnits; at += kThreads) {
    const int row = at / kUnits, t = at % kUnits, r = first_row + row;
    const int64_t line = (int64_t{head} * l.rows + r) * l.inputs;
    float phi[kUnit];
#pragma unroll
    for (int j = 0; j < kUnit; ++j) phi[j] = 0.f;
    if (chunk < plan.depth) {
      const int unit = chunk * kUnits + t, input = unit / plan.per_input;
      if (r < l.rows && input < l.inputs)
        evaluate<false>(l.basis, input, unit % plan.per_input * kUnit,
                        load_number(l.x, l.x_dtype, line + input), phi);
    } else {
      const int input = (chunk - plan.depth) * kDepth + t * kUnit;
#pragma unroll
      for (int j = 0; j < kUnit; ++j) {
        if (r < l.rows && input + j < l.inputs)
          phi[j] = silu(load_number(l.x, l.x_dtype, line + input + j));
      }
    }
    store_unit(tile, row, t, phi);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    forward_kernel(const __grid_constant__ Forward f, const __grid_constant__ Plan plan) {
  const Layer& l = f.layer;
  int block = static_cast<int>(blockIdx.x);
  const int column = block % plan.output_tiles;
  block /= plan.output_tiles;
  const int first_row = block % plan.row_tiles * kRows;
  block /= plan.row_tiles;
  const int head = block % l.heads, split = block / l.heads;
  const int chunks = plan.depth + plan.base_depth;
  const int first = static_cast<int>(int64_t{chunks} * split / plan.forward_splits);
  const int last = static_cast<int>(int64_t{chunks} * (split + 1) / plan.forward_splits);
  const T* const weight = static_cast<const T*>(f.weight) +
                          (int64_t{head} * plan.output_tiles + column) * chunks * kTile;
  Results results;
  accumulate<T>(
      cuda::dynamic_shared<T>(), first, last,
      [&](int chunk, T* a, T* b) {
        copy_tile(b, weight + int64_t{chunk} * kTile);
        fill_features(l, plan, head, first_row, chunk, a);
      },
      results);
  for_each_result(results, [&](int down, int across, float value) {
    const int r = first_row + down, o = column * kRows + across;
    if (r >= l.rows || o >= l.outputs) return;
    const int64_t at = (int64_t{head} * l.rows + r) * l.outputs + o;
    if (split == 0 && f.bias != nullptr)
      value += cuda::to_float(static_cast<const T*>(f.bias)[int64_t{head} * l.outputs + o]);
    if (plan.forward_splits == 1) {
      static_cast<T*>(f.y)[at] = cuda::from_float<T>(value);
    } else {
      f.slots[int64_t{split} * l.heads * l.rows * l.outputs + at] = value;
    }
  });
}

}  // namespace

cudaError_t forward(const Forward& f, cudaStream_t stream) {
  const Layer& l = f.layer;
  if (l.basis.code == kWavelet) return wavelet_forward(f, stream);
  const Plan plan(l);
  cudaError_t error = pack_forward_weight(l, f.weight, stream);
  if (error != cudaSuccess) return error;
  const int64_t blocks =
      int64_t{plan.output_tiles} * plan.row_tiles * l.heads * plan.forward_splits;
  error = dispatch(l.dtype, [&]<class T>(T) {
    return cuda::launch(forward_kernel<T>, blocks, kThreads, 4 * kTile * sizeof(T), stream, f,
                        plan);
  });
  if (error != cudaSuccess || plan.forward_splits == 1) return error;
  const int64_t entries = int64_t{l.heads} * l.rows * l.outputs;
  return sum_slots(f.slots, plan.forward_splits, entries, contiguous_target(f.y, l.dtype, entries),
                   stream);
}

}  // namespace saccade::kan_gpu
