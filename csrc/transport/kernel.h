// What the CPU kernels of entropic transport take; no torch, no C++ library.
//
// A plan is P[i][j] = u[i] * K[i][j] * v[j] with K[i][j] = exp(h[j] - C[i][j] / eps - shift[i]): h
// is the column's potential over eps when K was made, and shift[i] the row's largest exponent.
// Columns are padded to whole vectors: h is -inf there, and K, v and sums are 0.
#pragma once

#include <stdint.h>

namespace saccade::transport {

// How the cost of a pair of points comes about.
enum Metric : int64_t { kSquared = 0, kDistance = 1, kOneMinusDot = 2 };

// Rows of numbers that are computed at a time.
constexpr int64_t kPanelRows = 8;
// A side's numbers are allocated this much longer, so that whole vectors can be read.
constexpr int64_t kSlack = 16;

// Where the rows of a cost come from: a matrix, or points, of which a panel is computed at a time.
template <typename T>
struct Cost {
  const T* matrix;  // null: points
  int64_t stride;
  const T* x;         // [n, dim]
  const T* y;         // [dim, padded]
  const T* x_square;  // |x|^2 of every row
  const T* y_square;  // [padded]
  int64_t dim;
  Metric metric;
};

// Rows [begin, end) of one problem.
template <typename T>
struct Block {
  Cost<T> cost;
  int64_t begin, end;
  int64_t columns, padded;
  T inverse_eps;
  T* kernel;  // row 0 of K, or of P in the backward pass; null: computed where it is needed
  int64_t kernel_stride;
  T* panel;  // 2 * kPanelRows rows of `padded` numbers
};

// The marginal of one side: the scale of an entry is (weight / sum)^tau * exp((1 - tau) * (base +
// offset)), where base is log(weight) or 0 and offset is the row's shift or the column's -h.
// Balanced: tau is 1.
template <typename T>
struct Side {
  const T* weight;
  const T* base;
  T tau;
  bool balanced;
};

// The numbers of the rows.
template <typename T>
struct Rows {
  Side<T> side;
  T* shift;
  T* u;
};

// What a pass over a block adds up.
template <typename T>
struct Sums {
  T* columns;     // [padded]
  double moved;   // mass that the next update of the rows moves
  double linear;  // <C, P>
};

// Of P, a pass back makes G = P * ((x_i + y_j - W - of_linear C) / eps + constant).
template <typename T>
struct Adjoint {
  const T* upstream;  // W [n, columns], or null
  T of_linear, constant;
  const T* x;
  const T* y;  // [padded]
};

// What an update of the columns says.
enum Flags : int32_t { kDrifted = 1, kVanished = 2 };

template <typename T>
struct Kernels {
  int64_t width;

  // Makes K anew from h, then u, and adds u K to the sums of the columns. phi, or null: log u +
  // shift of the iterate before, for `moved`.
  void (*exact)(const Block<T>&, const Rows<T>&, const T* h, const T* phi, Sums<T>*);
  // The same with the K that is there, its columns scaled by v.
  void (*sweep)(const Block<T>&, const Rows<T>&, const T* v, Sums<T>*);
  // The plan with its sums of rows and columns. With phi, K is made anew from h and phi, and v is
  // not read. plan: row 0, or null.
  void (*finish)(const Block<T>&, const Rows<T>&, const T* h, const T* phi, const T* v, T* plan,
                 T* row_sums, Sums<T>*);
  // Goes on with the maximum and the sum of exp(phi_i - C_ij / eps) of every column.
  void (*columns)(const Block<T>&, const T* phi, T* largest, T* sum);
  // Scales of the columns from their sums; h is the offset.
  int32_t (*scale)(const Side<T>&, int64_t padded, const T* sum, const T* h, T* v);
  // The largest and the least finite cost of a block, on top of what is there.
  void (*range)(const Block<T>&, T* least, T* largest);

  // Backward. P is the block's kernel, or exp(phi_i + psi_j - C_ij / eps) of points.
  // Sums of P and of P (W + of_linear C), over rows (rows, p) and columns (columns, q).
  void (*weigh)(const Block<T>&, const T* phi, const T* psi, const Adjoint<T>&, T* rows, T* p,
                T* columns, T* q);
  // columns += P' (inverse * (P y)), or without y columns += P' inverse.
  void (*apply)(const Block<T>&, const T* phi, const T* psi, const T* inverse, const T* y,
                T* columns);
  // out = P y.
  void (*product)(const Block<T>&, const T* phi, const T* psi, const T* y, T* out);
  // G, to out [n, columns].
  void (*gradient)(const Block<T>&, const Adjoint<T>&, T* out);
  // out[i] = sum_j G_ij dC_ij/dx_i; y_rows [columns, dim].
  void (*point_gradient)(const Block<T>&, const T* phi, const T* psi, const Adjoint<T>&,
                         const T* y_rows, T* out);
  T (*dot)(const T* a, const T* b, int64_t count);
};

// One set of tables an instruction set, each in its own file.
#define SACCADE_TRANSPORT_TABLES      \
  extern const Kernels<float> kFloat; \
  extern const Kernels<double> kDouble;
namespace baseline {
SACCADE_TRANSPORT_TABLES
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
SACCADE_TRANSPORT_TABLES
}  // namespace avx2
namespace avx512 {
SACCADE_TRANSPORT_TABLES
}  // namespace avx512
#endif

}  // namespace saccade::transport
