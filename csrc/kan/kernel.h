// The wall between torch and the CPU kernels of Kolmogorov-Arnold layers: raw pointers, sizes and
// strides.
//
//   y[b, o] = bias[o] + sum_i (sum_n Phi_n(x[b, i]) W[o, i, n] + silu(x[b, i]) W0[o, i]),  one map
//   a head.
//
// The silu of the base term joins the basis as one more function, so "slots" counts n, plus 1 with
// a base. Features are made for a block of rows and a chunk of inputs at a time, in scratch that
// stays in the caches, and never stand in memory as a tensor.
#pragma once

#include <cstdint>

namespace saccade::kan {

enum class Basis { kBspline, kGaussian, kRswaf, kChebyshev, kFourier, kWavelet };
enum class Beyond { kZero, kClamp, kExtend };
enum class Wavelet { kMexicanHat, kMorlet, kDog, kMeyer, kShannon };

inline constexpr int kMaxOrder = 5;
inline constexpr int kMaxCoefficients = 9;  // of a polynomial

struct Problem {
  int64_t heads, rows, in, out, functions;
  Basis basis;
  int order;       // of a spline
  Beyond beyond;   // of a spline
  bool published;  // rswaf: FasterKAN's own gradient
  bool constant;   // fourier: 1 comes first
  Wavelet wavelet;
  bool base;
  int64_t knots;       // a row
  int64_t knot_rows;   // 1, or one an input
  int64_t num_scales;  // 1, or one a function
  int64_t slots() const { return functions + (base ? 1 : 0); }
};

// Weights [h, O, I, n] by their strides.
template <typename P>
struct Weight {
  P* data;
  int64_t head, out, in, function;
};

template <typename T>
struct Args {
  Problem problem;
  const T* x;  // [h, M, I]
  Weight<const T> weight;
  const T* base;    // [h, O, I], or null
  const T* bias;    // [h, O], or null
  const T* points;  // knots, centres or shifts
  const T* scales;
  T* y;               // [h, M, O]
  const T* grad_out;  // [h, M, O]
  const T* packed;    // grad_out as pack_grad lays it
  T* grad_x;          // [h, M, I]
  Weight<T> grad_weight;
  T* grad_base;    // [h, O, I], or null
  T* grad_points;  // wavelets alone: [h, O, I]
  T* grad_scales;  // likewise
};

// One head's rows [row, row_end) by inputs, or outputs, [begin, end).
struct Block {
  int64_t head, row, row_end, begin, end;
};

// x [N, G, L] in pieces of one group; the coefficients of that group.
template <typename T>
struct Rational {
  const T *numerator, *denominator;
  int numerators, denominators;
};

template <typename T>
struct Kernels {
  // Outputs of a panel of the packed gradient; its rows are kGradRows or fewer.
  int64_t panel;
  // Scratch of one call, in elements.
  int64_t (*forward_scratch)(const Problem&, const Block&);
  int64_t (*grad_input_scratch)(const Problem&, const Block&);
  int64_t (*grad_weight_scratch)(const Problem&, const Block&);
  int64_t (*grad_grid_scratch)(const Problem&, const Block&);
  int64_t (*wavelet_backward_scratch)(const Problem&, const Block&);
  // y of rows and outputs.
  void (*forward)(const Args<T>&, const Block&, T* scratch);
  // Rows of grad_out as [O / panel][rows][panel].
  void (*pack_grad)(const Problem&, const T* grad_out, int64_t rows, T* packed);
  // grad_x of rows and inputs; adds to sums, [points, scales], unless null.
  void (*grad_input)(const Args<T>&, const Block&, T* sums, T* scratch);
  // Adds the weights' gradients of rows and inputs to sums [inputs][slots][padded outputs].
  void (*grad_weight)(const Args<T>&, const Block&, T* sums, T* scratch);
  void (*write_weight)(const Args<T>&, const Block&, const T* sums);
  // Adds the knots' gradients of rows and inputs to sums [knot_rows, knots].
  void (*grad_grid)(const Args<T>&, const Block&, T* sums, T* scratch);
  // Every gradient of a wavelet layer for all rows and inputs of a block.
  void (*wavelet_backward)(const Args<T>&, const Block&, T* scratch);
  void (*rational)(const Rational<T>&, const T* x, int64_t count, T* y);
  // Adds the coefficients' gradients to sums, numerator first.
  void (*rational_backward)(const Rational<T>&, const T* grad_out, const T* x, int64_t count,
                            T* grad_x, double* sums);
};

// Rows that pack_grad takes at once.
inline constexpr int64_t kGradRows = 1024;

namespace baseline {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx2
namespace avx512 {
extern const Kernels<float> kFloat;
extern const Kernels<double> kDouble;
}  // namespace avx512
#endif

}  // namespace saccade::kan
