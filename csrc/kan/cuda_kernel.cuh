// The wall between torch and the CUDA kernels of KAN layers: raw pointers, sizes and a stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace saccade::kan {

enum class Dtype { kFloat, kHalf, kBfloat16 };

enum class Kind { kBspline, kGaussian, kRswaf, kChebyshev, kFourier, kSilu };
enum class Range { kZero, kClamp, kExtend };

// The functions of one layer. Parameters are float32, contiguous, [n] or [I, n], with the stride
// from one input to the next (0: shared).
struct Basis {
  Kind kind;
  int count;  // n, functions of an input
  // bspline
  int order;
  Range range;
  int knots;
  float first, step;  // of an equally spaced grid, whose knots are null
  // fourier
  bool dc;
  // rswaf: the gradient of x is scaled, as FasterKAN's
  float gradient_scale;
  // knots; centres
  const float* centres;
  int64_t centres_stride;
  // width; inverse width
  const float* widths;
  int widths_step;  // 0: one number
};

// x [run, h, M, I] and y [run, h, M, O], contiguous: the rows of a head are run * M.
struct Problem {
  Dtype dtype;
  int64_t runs, per_run;
  int heads, inputs, outputs;
  bool has_base;
  Basis basis;
  const void* x;
  const void* weight;       // [h, O, I, n]
  const void* base_weight;  // [h, O, I], or null

  int64_t rows() const { return runs * per_run; }
};

}  // namespace saccade::kan
