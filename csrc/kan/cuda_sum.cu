// Sums over slots and over rows, in a fixed order, and the calls that need several kernels.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

constexpr int kEntries = 32;                 // of a block of sum_kernel
constexpr int kParts = kThreads / kEntries;  // threads of an entry, each with every kParts-th slot
constexpr int kBiasRows = 512;               // of a block of bias_kernel

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float* slots, int64_t count, int64_t entries,
               const __grid_constant__ Target target) {
  float* const parts = cuda::dynamic_shared<float>();
  const int lane = static_cast<int>(threadIdx.x) % kEntries;
  const int part = static_cast<int>(threadIdx.x) / kEntries;
  for (int64_t first = int64_t{blockIdx.x} * kEntries; first < entries;
       first += int64_t{gridDim.x} * kEntries) {
    const int64_t entry = first + lane;
    float sum = 0.f;
    if (entry < entries) {
#pragma unroll 4
      for (int64_t s = part; s < count; s += kParts) sum += slots[s * entries + entry];
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (part == 0 && entry < entries) {
      for (int p = 1; p < kParts; ++p) sum += parts[p * kEntries + lane];
      int64_t rest = entry, at = 0;
#pragma unroll
      for (int axis = 3; axis >= 0; --axis) {
        at += rest % target.size[axis] * target.stride[axis];
        rest /= target.size[axis];
      }
      store_number(target.data, target.dtype, at, sum);
    }
    __syncthreads();
  }
}

// Sums of grad_out over a share of the rows.
__global__ void __launch_bounds__(kThreads)
    bias_kernel(const __grid_constant__ Backward b, int shares, int tiles) {
  const Layer& l = b.layer;
  const int tile = static_cast<int>(blockIdx.x) % tiles;
  const int rest = static_cast<int>(blockIdx.x) / tiles, share = rest % shares;
  const int head = rest / shares;
  const int o = tile * kThreads + static_cast<int>(threadIdx.x);
  if (o >= l.outputs) return;
  const int first = share * kBiasRows, last = min(l.rows, first + kBiasRows);
  float sum = 0.f;
#pragma unroll 4
  for (int r = first; r < last; ++r)
    sum += load_number(b.grad_out, l.dtype, (int64_t{head} * l.rows + r) * l.outputs + o);
  b.bias_slots[(int64_t{share} * l.heads + head) * l.outputs + o] = sum;
}

}  // namespace

Target contiguous_target(void* data, Dtype dtype, int64_t n) {
  // sizes are ints; what does not fit one is a product of two
  if (n <= INT32_MAX) return {data, dtype, {1, 1, 1, static_cast<int>(n)}, {0, 0, 0, 1}};
  constexpr int kInner = 1 << 20;
  return {data,
          dtype,
          {1, 1, static_cast<int>(ceil_div<int64_t>(n, kInner)), kInner},
          {0, 0, kInner, 1}};
}

Target edge_target(const Edges& edges, const Layer& l, int count) {
  return {edges.data,
          l.dtype,
          {l.heads, l.outputs, l.inputs, count},
          {edges.stride[0], edges.stride[1], edges.stride[2], edges.stride[3]}};
}

cudaError_t sum_slots(const float* slots, int64_t count, int64_t entries, const Target& target,
                      cudaStream_t stream) {
  const int64_t blocks = ceil_div<int64_t>(entries, kEntries);
  return cuda::launch(sum_kernel, most_blocks(blocks), kThreads, kThreads * sizeof(float), stream,
                      slots, count, entries, target);
}

int bias_splits(const Layer& l) { return ceil_div(l.rows, kBiasRows); }

cudaError_t bias_gradient(const Backward& b, cudaStream_t stream) {
  const Layer& l = b.layer;
  const int shares = bias_splits(l), tiles = ceil_div(l.outputs, kThreads);
  const int64_t entries = int64_t{l.heads} * l.outputs;
  const cudaError_t error = cuda::launch(bias_kernel, int64_t{tiles} * shares * l.heads, kThreads,
                                         0, stream, b, shares, tiles);
  if (error != cudaSuccess) return error;
  return sum_slots(b.bias_slots, shares, entries, contiguous_target(b.grad_bias, l.dtype, entries),
                   stream);
}

Sizes sizes(const Layer& l) {
  const Plan plan(l);
  const int64_t edges = int64_t{l.heads} * l.outputs * l.inputs, heads = l.heads;
  Sizes s{};
  s.bias_slots = int64_t{bias_splits(l)} * l.heads * l.outputs;
  if (l.basis.code == kWavelet) {
    s.weight_slots = int64_t{wavelet_splits(l)} * 4 * edges;
    return s;
  }
  s.forward_weight = heads * plan.output_tiles * (plan.depth + plan.base_depth) * kTile;
  if (plan.forward_splits > 1)
    s.forward_slots = int64_t{plan.forward_splits} * heads * l.rows * l.outputs;
  s.weight = heads * (plan.columns + plan.base_columns) * plan.output_depth * kTile;
  s.grad_rows = heads * plan.row_tiles * plan.output_depth * kTile;
  s.grad_columns = heads * plan.output_tiles * plan.row_depth * kTile;
  if (plan.weight_splits > 1) s.weight_slots = plan.weight_splits * edges * l.basis.count;
  if (plan.base_splits > 1) s.base_slots = plan.base_splits * edges;
  if (l.base_weight.data != nullptr) s.base_grad = heads * l.rows * l.inputs;
  const int64_t lines = heads * plan.row_tiles;
  if (l.basis.code == kBspline) {
    s.point_slots = lines * l.inputs * l.basis.knots;
  } else if (l.basis.points != nullptr) {
    s.point_slots = s.scale_slots = lines * (plan.columns / plan.passes) * l.basis.count;
  }
  return s;
}

cudaError_t backward(const Backward& b, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (b.grad_bias != nullptr) error = bias_gradient(b, stream);
  if (error != cudaSuccess) return error;
  if (b.layer.basis.code == kWavelet) return wavelet_backward(b, stream);
  if (b.grad_weight.data != nullptr || b.grad_base_weight.data != nullptr)
    error = weight_gradient(b, stream);
  const bool functions =
      b.grad_x != nullptr || b.grad_points != nullptr || b.grad_scales != nullptr;
  if (error == cudaSuccess && functions) error = input_gradient(b, stream);
  return error;
}

}  // namespace saccade::kan_gpu
