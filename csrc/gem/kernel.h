// What the CPU kernels of the gradient projection take; no torch, no C++ library.
#pragma once

#include <stdint.h>

namespace saccade::gem {

// A pivot or a violation below this part of the numbers that it is the difference of is rounding:
// products of float32 are summed in float32 over a few hundred columns.
constexpr double kToleranceFloat = 1.0 / (1 << 19);
constexpr double kToleranceDouble = 1.0 / (int64_t{1} << 40);

// Columns [begin, begin + count) of one problem. Every memory and the gradient have a pointer to
// column 0; a null memory is zeros.
template <typename T>
struct Piece {
  const T* const* memory;  // t of them
  const T* grad;           // contiguous
  int64_t stride;          // from one column of a memory to the next
  int64_t begin, count;
};

// One problem of the quadratic kind, as numbers: the lower triangle of the Gram matrix row by row
// (`packed`), or a whole matrix whose symmetric part counts.
struct Quadratic {
  const double* gram;
  bool packed;
  const double* linear;
  const double* slack;  // added to linear, or null
  double lower, ridge, tolerance;
  bool always;
};

template <typename T>
struct Kernels {
  // Elements of scratch that any kernel of this table needs for t memories.
  int64_t (*scratch)(int64_t t);
  // Adds the products of all rows, memories first and then the gradient, to the packed lower
  // triangle `sums` of t + 1 rows.
  void (*gram)(const Piece<T>&, int64_t t, T* scratch, double* sums);
  // Adds the products of the memories with the gradient to `sums`; those with `wanted` 0 are left.
  void (*dot)(const Piece<T>&, int64_t t, const double* wanted, T* scratch, double* sums);
  // out = grad + sum of factor[i] memory[i], where out may be grad itself.
  void (*combine)(const Piece<T>&, int64_t t, const double* factor, T* scratch, T* out);
  // rows[i] = left[i] * a + right[i] * b, for contiguous a, b and rows.
  void (*outer)(const T* a, const T* b, int64_t t, const double* left, const double* right,
                int64_t count, T* const* rows);
};

struct Solver {
  int64_t (*space)(int64_t t);  // doubles
  int32_t (*solve)(const Quadratic&, int64_t t, double* space, double* dual);
  // y of K_AA y_A = linear_A over the rows A whose dual is above the lower bound.
  void (*solve_active)(const Quadratic&, int64_t t, const double* dual, double* space, double* y);
};

// One set of tables an instruction set, each in its own file.
#define SACCADE_GEM_TABLES              \
  extern const Kernels<float> kFloat;   \
  extern const Kernels<double> kDouble; \
  extern const Solver kSolver;
namespace baseline {
SACCADE_GEM_TABLES
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
SACCADE_GEM_TABLES
}  // namespace avx2
namespace avx512 {
SACCADE_GEM_TABLES
}  // namespace avx512
#endif

}  // namespace saccade::gem
