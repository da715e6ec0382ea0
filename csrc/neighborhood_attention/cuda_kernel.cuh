// The wall between torch and the CUDA kernels of neighborhood attention: raw pointers, sizes,
// strides and a stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "neighborhood_attention/cuda_window.cuh"

namespace saccade::na {

enum class Dtype { kFloat, kHalf, kBfloat16 };

// Element strides of [B, X, Y, Z, h, D], D innermost with stride 1; additional keys [B, S, h_kv, D]
// use token[2] for S.
struct View {
  const void* data;
  int64_t batch, token[3], head;
};

struct Problem {
  Dtype dtype;
  int batch, heads, kv_heads, dim, extra;
  Axis axis[3];
  float scale;
  bool aligned;  // every row of every input starts at a multiple of 16 bytes, and is one
  View query, key, value, extra_key, extra_value;
  const void* bias;  // [h, 2 K0 - 1, 2 K1 - 1, 2 K2 - 1] contiguous, or null

  SACCADE_HD int64_t tokens() const {
    return int64_t{axis[0].length} * axis[1].length * axis[2].length;
  }
  SACCADE_HD int64_t bias_entries() const {
    return int64_t{2 * axis[0].kernel - 1} * (2 * axis[1].kernel - 1) * (2 * axis[2].kernel - 1);
  }
};

struct Forward {
  Problem problem;
  void* out;   // [B, X, Y, Z, h, D] contiguous
  float* lse;  // [B, X, Y, Z, h] contiguous
};

struct Backward {
  Problem problem;
  View grad_out, out;
  const float* lse;       // contiguous
  const float* grad_lse;  // contiguous
  float* delta;           // [B, X, Y, Z, h], scratch: rowsum(grad_out * out) - grad_lse
  float* bias_slots;      // [slots, h, bias entries], scratch, or null
  float* extra_slots;     // [2, slots, B, S, h_kv, D], scratch, or null
  void *grad_query, *grad_key, *grad_value;             // contiguous
  void *grad_bias, *grad_extra_key, *grad_extra_value;  // contiguous, or null
};

// Partial sums of gradients that every query adds to go to slots, whose number depends on the sizes
// alone, and are then added in the order of the slots: the same bits on every device.
int64_t bias_slots(const Problem& problem);
int64_t extra_slots(const Problem& problem);

cudaError_t forward(const Forward& arguments, cudaStream_t stream);
cudaError_t backward(const Backward& arguments, cudaStream_t stream);

// The stages of backward, in this order.
cudaError_t backward_query(const Backward& arguments,
                           cudaStream_t stream);  // grad_query, delta, bias_slots
cudaError_t backward_key(const Backward& arguments, cudaStream_t stream);    // grad_key, grad_value
cudaError_t backward_extra(const Backward& arguments, cudaStream_t stream);  // extra_slots
cudaError_t sum_slots(const float* slots, void* sum, int64_t entries, int64_t count, Dtype dtype,
                      cudaStream_t stream);

}  // namespace saccade::na
