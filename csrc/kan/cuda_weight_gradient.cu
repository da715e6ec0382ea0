// Gradients of weights. A block owns 128 outputs and 128 functions (of 16 inputs, where an input
// has at most 8), or 128 inputs of the silu term, and walks the rows: features are made again,
// turned, so that k runs along the rows. Where the tiles are too few to fill a GPU, the rows are
// split.
#include "kan/cuda_plan.cuh"

namespace saccade::kan_gpu {
namespace {

// Features of 32 rows as columns.
template <class T>
__device__ __forceinline__ void fill_features(const Layer& l, const Plan& plan, int head,
                                              int column, int chunk, T* tile) {
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < kColumnUnits * kDepth; at += kThreads) {
    const int b = at % kDepth, number = at / kDepth, r = chunk * kDepth + b;
    const int64_t line = (int64_t{head} * l.rows + r) * l.inputs;
    float phi[kUnit];
#pragma unroll
    for (int j = 0; j < kUnit; ++j) phi[j] = 0.f;
    if (column < plan.columns) {
      const ColumnUnit unit = column_unit(plan, l, column, number);
      if (r < l.rows && unit.present)
        evaluate<false>(l.basis, unit.input, unit.first,
                        load_number(l.x, l.x_dtype, line + unit.input), phi);
    } else {
      const int input = (column - plan.columns) * kRows + number * kUnit;
#pragma unroll
      for (int j = 0; j < kUnit; ++j) {
        if (r < l.rows && input + j < l.inputs)
          phi[j] = silu(load_number(l.x, l.x_dtype, line + input + j));
      }
    }
#pragma unroll
    for (int j = 0; j < kUnit; ++j)
      tile[place<T>(number * kUnit + j, b / kUnit, b % kUnit)] = cuda::from_float<T>(phi[j]);
  }
}

// Blocks of the columns [first_column, first_column + columns).
template <class T>
__global__ void __launch_bounds__(kThreads, kResident<T>)
    weight_gradient_kernel(const __grid_constant__ Backward b, const __grid_constant__ Plan plan,
                           int first_column, int columns, int splits) {
  const Layer& l = b.layer;
  T* const shared = cuda::dynamic_shared<T>();
  int64_t block = blockIdx.x;
  const int row = static_cast<int>(block % plan.output_tiles);
  block /= plan.output_tiles;
  const int column = first_column + static_cast<int>(block % columns);
  block /= columns;
  const int head = static_cast<int>(block % l.heads), split = static_cast<int>(block / l.heads);
  const int first = static_cast<int>(int64_t{plan.row_depth} * split / splits);
  const int last = static_cast<int>(int64_t{plan.row_depth} * (split + 1) / splits);
  const T* const grad = static_cast<const T*>(b.grad_columns) +
                        (int64_t{head} * plan.output_tiles + row) * plan.row_depth * kTile;
  Results results;
  accumulate<T>(
      shared, first, last,
      [&](int chunk, T* left, T* right) {
        copy_tile(left, grad + int64_t{chunk} * kTile);
        fill_features(l, plan, head, column, chunk, right);
      },
      results);
  const bool base = column >= plan.columns;
  const Edges& target = base ? b.grad_base_weight : b.grad_weight;
  float* const slots = base ? b.base_slots : b.weight_slots;
  const int count = base ? 1 : l.basis.count;
  for_each_result(results, [&](int down, int across, float value) {
    const int o = row * kRows + down;
    int input = (column - plan.columns) * kRows + across, n = 0;
    bool present = o < l.outputs;
    if (base) {
      present = present && input < l.inputs;
    } else {
      const ColumnUnit unit = column_unit(plan, l, column, across / kUnit);
      input = unit.input, n = unit.first + across % kUnit;
      present = present && unit.present && n < count;
    }
    if (!present) return;
    if (splits == 1) {
      static_cast<T*>(target.data)[head * target.stride[0] + o * target.stride[1] +
                                   input * target.stride[2] + n * target.stride[3]] =
          cuda::from_float<T>(value);
    } else {
      slots[(((int64_t{split} * l.heads + head) * l.outputs + o) * l.inputs + input) * count + n] =
          value;
    }
  });
}

cudaError_t run(const Backward& b, const Plan& plan, int first_column, int columns, int splits,
                const Edges& target, int count, float* slots, cudaStream_t stream) {
  const Layer& l = b.layer;
  const int64_t blocks = int64_t{plan.output_tiles} * columns * l.heads * splits;
  const cudaError_t error = dispatch(l.dtype, [&]<class T>(T) {
    return cuda::launch(weight_gradient_kernel<T>, blocks, kThreads, 4 * kTile * sizeof(T), stream,
                        b, plan, first_column, columns, splits);
  });
  if (error != cudaSuccess || splits == 1) return error;
  const int64_t entries = int64_t{l.heads} * l.outputs * l.inputs * count;
  return sum_slots(slots, splits, entries, edge_target(target, l, count), stream);
}

}  // namespace

cudaError_t weight_gradient(const Backward& b, cudaStream_t stream) {
  const Plan plan(b.layer);
  cudaError_t error = pack_grad_columns(b.layer, b.grad_out, b.grad_columns, stream);
  if (error == cudaSuccess && b.grad_weight.data != nullptr && plan.columns > 0)
    error = run(b, plan, 0, plan.columns, plan.weight_splits, b.grad_weight, b.layer.basis.count,
                b.weight_slots, stream);
  if (error == cudaSuccess && b.grad_base_weight.data != nullptr)
    error = run(b, plan, plan.columns, plan.base_columns, plan.base_splits, b.grad_base_weight, 1,
                b.base_slots, stream);
  return error;
}

}  // namespace saccade::kan_gpu
