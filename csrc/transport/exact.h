// What the CPU kernels of exact transport take; no torch, no C++ library.
#pragma once

#include <stdint.h>

namespace saccade::transport::exact {

// A matrix of costs wherever it lies; mask is null or one byte a cost, 0 where it is forbidden.
template <typename T>
struct Costs {
  const T* data;
  int64_t row, column;  // strides
  const uint8_t* mask;
  int64_t mask_row, mask_column;
};

// Where the results of one n x m problem go.
template <typename T>
struct Matching {
  int64_t* row_to_col;
  int64_t* col_to_row;
  T* total;
  T* row_dual;
  T* col_dual;
};

template <typename T>
struct AssignmentKernel {
  // Bytes that `solve` works in.
  int64_t (*space)(int64_t n, int64_t m);
  void (*solve)(const Costs<T>&, int64_t n, int64_t m, bool maximize, void* space,
                const Matching<T>&);
};

// Weights of one side; without data all are the same and sum to 1.
template <typename T>
struct Weights {
  const T* data;
  int64_t stride;
};

// Where the results of one transport problem go; the plan is dense [n, m].
template <typename T>
struct Transport {
  T* plan;
  T* f;
  T* g;
  T* value;
  T* err;
  int32_t* pivots;
  int32_t* status;
};

enum TransportStatus : int32_t { kSolved = 0, kMostPivots = 1, kInfeasible = 2, kNotFinite = 3 };

template <typename T>
struct TransportKernel {
  int64_t (*space)(int64_t n, int64_t m);
  // `tolerance`: the relative difference of the two totals that is rounding.
  void (*solve)(const Costs<T>&, int64_t n, int64_t m, const Weights<T>& a, const Weights<T>& b,
                double tolerance, void* space, const Transport<T>&);
};

// One set of tables an instruction set, each in its own file.
#define SACCADE_EXACT_TABLES                               \
  extern const AssignmentKernel<float> kAssignmentFloat;   \
  extern const AssignmentKernel<double> kAssignmentDouble; \
  extern const TransportKernel<float> kTransportFloat;     \
  extern const TransportKernel<double> kTransportDouble;
namespace baseline {
SACCADE_EXACT_TABLES
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
SACCADE_EXACT_TABLES
}  // namespace avx2
namespace avx512 {
SACCADE_EXACT_TABLES
}  // namespace avx512
#endif

}  // namespace saccade::transport::exact
