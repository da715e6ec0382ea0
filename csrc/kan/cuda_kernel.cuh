// The wall between torch and the CUDA kernels of KAN layers: raw pointers, sizes, strides and a
// stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::kan_gpu {

enum class Dtype { kFloat, kHalf, kBfloat16 };

// The schema's codes; the silu term is a basis of one function.
enum Code { kBspline, kGaussian, kRswaf, kChebyshev, kFourier, kWavelet, kSilu };
enum Range { kZero, kClamp, kExtend };

struct Basis {
  int code;
  int option;           // order of a spline, mode of rswaf, include_dc, kind of a wavelet
  int range;            // of a spline
  int count;            // n, functions of an input
  int knots;            // of an input
  int64_t stride;       // from the knots of an input to those of the next
  int scale_step;       // from the width of a function to that of the next
  const float* points;  // knots [1 | I, m], centres [n], or shift [h, O, I]
  const float* scales;  // widths [1 | n], or scale [h, O, I]
};

// [h, O, I, n] by strides, or null.
struct Edges {
  void* data;
  int64_t stride[4];
};

struct Layer {
  Dtype dtype, x_dtype;  // of weights, y and grad_out; of x and grad_x
  int heads, rows, inputs, outputs;
  Basis basis;
  const void* x;  // [h, M, I] contiguous
  Edges weight, base_weight;
};

// Scratch that a call needs, in elements of its type; 0: none. "T" is the layer's type.
struct Sizes {
  int64_t forward_weight;  // T
  int64_t forward_slots;   // float, as are all slots
  int64_t weight;          // T: the weight as grad_x reads it
  int64_t grad_rows;       // T
  int64_t grad_columns;    // T
  int64_t weight_slots, base_slots, bias_slots, point_slots, scale_slots;
  int64_t base_grad;  // float [h, M, I]
};

struct Forward {
  Layer layer;
  const void* bias;  // [h, O] contiguous, or null
  void* weight;
  float* slots;
  void* y;  // [h, M, O] contiguous
};

// Null gradients are not wanted.
struct Backward {
  Layer layer;
  const void* grad_out;  // [h, M, O] contiguous
  void *weight, *grad_rows, *grad_columns;
  float *weight_slots, *base_slots, *bias_slots, *point_slots, *scale_slots, *base_grad;
  void* grad_x;  // [h, M, I] contiguous
  Edges grad_weight, grad_base_weight;
  void* grad_bias;     // [h, O] contiguous
  float* grad_points;  // contiguous, the shape of points
  float* grad_scales;
};

// x [N, G, L] contiguous; a [1 | G, m] and b [1 | G, n], contiguous, m at most 9 and n at most 8.
struct Rational {
  Dtype dtype;
  int64_t batch, length;
  int groups, numerator, denominator;
  bool shared_numerator, shared_denominator;
  const void *x, *a, *b;
  void* y;
  const void* grad_out;
  void *grad_x, *grad_a, *grad_b;
  float *slots_a, *slots_b;  // [rational_slots, G, m], [rational_slots, G, n]
};

constexpr int kMostNumerator = 9, kMostDenominator = 8, kMostOrder = 5;

// Partial sums go to slots, whose number depends on the sizes alone, and are added in the order of
// the slots: the same bits on every device.
Sizes sizes(const Layer& layer);
int64_t rational_slots(const Rational& problem);

cudaError_t forward(const Forward& call, cudaStream_t stream);
cudaError_t backward(const Backward& call, cudaStream_t stream);
cudaError_t rational_forward(const Rational& call, cudaStream_t stream);
cudaError_t rational_backward(const Rational& call, cudaStream_t stream);

}  // namespace saccade::kan_gpu
