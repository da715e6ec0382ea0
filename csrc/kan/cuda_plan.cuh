// How a layer is cut into tiles: units of 8 functions, chunks of k, blocks of columns, splits. All
// of it depends on the sizes alone.
#pragma once

#include "kan/cuda_basis.cuh"
#include "kan/cuda_tile.cuh"

namespace saccade::kan_gpu {

constexpr int kWantedBlocks = 264;  // two a multiprocessor of a large GPU
constexpr int kLeastChunks = 4;     // of a split
constexpr int kColumnUnits = kRows / kUnit;

template <class N>
__host__ __device__ constexpr N ceil_div(N a, N b) {
  return (a + b - 1) / b;
}

// Units of an input: 8 functions each, the last padded with zeros.
struct Plan {
  int per_input;   // units
  int depth;       // chunks of the forward's k: units in the order of inputs
  int base_depth;  // and of the silu term's, whose units are 8 inputs
  int row_tiles, output_tiles, output_depth, row_depth;
  // Blocks of 16 units as columns: several inputs, or one input in several passes.
  int inputs_per_block, passes, columns, base_columns;
  int forward_splits, weight_splits, base_splits;

  __host__ __device__ explicit Plan(const Layer& l) {
    const bool dense = l.basis.code != kWavelet;
    const bool base = l.base_weight.data != nullptr;
    per_input = ceil_div(l.basis.count, kUnit);
    depth = dense ? static_cast<int>(ceil_div(int64_t{l.inputs} * per_input, int64_t{kUnits})) : 0;
    base_depth = base ? ceil_div(l.inputs, kDepth) : 0;
    row_tiles = ceil_div(l.rows, kRows);
    output_tiles = ceil_div(l.outputs, kRows);
    output_depth = ceil_div(l.outputs, kDepth);
    row_depth = ceil_div(l.rows, kDepth);
    inputs_per_block = per_input <= kColumnUnits ? kColumnUnits / per_input : 1;
    passes = ceil_div(per_input, kColumnUnits);
    columns = dense ? ceil_div(l.inputs, inputs_per_block) * passes : 0;
    base_columns = base ? ceil_div(l.inputs, kRows) : 0;
    forward_splits = splits(int64_t{l.heads} * row_tiles * output_tiles, depth + base_depth);
    weight_splits = splits(int64_t{l.heads} * output_tiles * columns, row_depth);
    base_splits = splits(int64_t{l.heads} * output_tiles * base_columns, row_depth);
  }

  __host__ __device__ static int splits(int64_t blocks, int chunks) {
    if (blocks == 0) return 1;
    const int64_t wanted = kWantedBlocks / blocks;
    const int64_t most = chunks / kLeastChunks;
    const int64_t chosen = wanted < most ? wanted : most;
    return chosen < 1 ? 1 : static_cast<int>(chosen);
  }
};

// What unit `unit` of column block `block` stands for.
struct ColumnUnit {
  int input, first;  // input and first function
  bool present;
};

__device__ __forceinline__ ColumnUnit column_unit(const Plan& plan, const Layer& l, int block,
                                                  int unit) {
  const int group = block / plan.passes, pass = block % plan.passes;
  const int within = plan.passes > 1 ? 0 : unit / plan.per_input;
  const int number = plan.passes > 1 ? pass * kColumnUnits + unit : unit % plan.per_input;
  const int input = group * plan.inputs_per_block + within;
  const bool present =
      within < plan.inputs_per_block && input < l.inputs && number < plan.per_input;
  return {input, number * kUnit, present};
}

// A number of blocks that a grid can have.
inline int64_t most_blocks(int64_t blocks) { return blocks < (1 << 30) ? blocks : (1 << 30); }

// Stages of forward and backward.
cudaError_t pack_forward_weight(const Layer& layer, void* packed, cudaStream_t stream);
cudaError_t pack_weight(const Layer& layer, void* packed, cudaStream_t stream);
cudaError_t pack_grad_rows(const Layer& layer, const void* grad_out, void* packed,
                           cudaStream_t stream);
cudaError_t pack_grad_columns(const Layer& layer, const void* grad_out, void* packed,
                              cudaStream_t stream);
cudaError_t input_gradient(const Backward& call, cudaStream_t stream);
cudaError_t weight_gradient(const Backward& call, cudaStream_t stream);
cudaError_t bias_gradient(const Backward& call, cudaStream_t stream);
cudaError_t wavelet_forward(const Forward& call, cudaStream_t stream);
cudaError_t wavelet_backward(const Backward& call, cudaStream_t stream);

int bias_splits(const Layer& layer);
int wavelet_splits(const Layer& layer);

// Adds slots [count, entries] in their order; entry e of the sum goes to element
// e / inner % outer ... of a target given by sizes and strides, in its type.
struct Target {
  void* data;
  Dtype dtype;
  int size[4];
  int64_t stride[4];
};
cudaError_t sum_slots(const float* slots, int64_t count, int64_t step, const Target& target,
                      cudaStream_t stream);
// Of the sum over slots [count, n].
Target contiguous_target(void* data, Dtype dtype, int64_t n);
Target edge_target(const Edges& edges, const Layer& layer, int count);

}  // namespace saccade::kan_gpu
