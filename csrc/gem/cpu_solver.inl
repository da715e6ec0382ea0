// The quadratic problem on one thread.
#pragma once

#include "gem/cpu_simd.inl"
#include "gem/kernel.h"

#define SACCADE_GEM_NAMESPACE SACCADE_ISA_NAMESPACE
#define SACCADE_GEM_FUNCTION inline
#include "gem/nnqp.inl"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

// Rows are padded to four, whatever the width of the registers.
typedef double Four __attribute__((vector_size(32), aligned(8), may_alias));

// One worker: loops are loops, and nobody waits.
struct Alone {
  template <class F>
  void each(int count, const F& f) const {
    for (int i = 0; i < count; ++i) f(i);
  }
  template <class F>
  void grid(int rows, int columns, const F& f) const {
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) f(i, j);
    }
  }
  template <class F>
  double sum(int count, const F& f) const {
    double total = 0.0;
    for (int i = 0; i < count; ++i) total += f(i);
    return total;
  }
  // The first index with the largest positive value, or -1.
  template <class F>
  int best(int count, const F& f) const {
    int index = -1;
    double largest = 0.0;
    for (int i = 0; i < count; ++i) {
      const double value = f(i);
      if (value > largest) {
        largest = value;
        index = i;
      }
    }
    return index;
  }
  void subtract_outer(double* table, const double* vector, double scale, int t, int ld) const {
    for (int i = 0; i < t; ++i) {
      const double factor = vector[i] * scale;
      auto* const row = reinterpret_cast<Four*>(table + int64_t{i} * ld);
      const auto* const other = reinterpret_cast<const Four*>(vector);
      for (int j = 0; j < ld / 4; ++j) row[j] -= factor * other[j];
    }
  }
  bool leads() const { return true; }
  void sync() const {}
};

inline double gram_at(const Quadratic& problem, int64_t t, int i, int j) {
  if (problem.packed) {
    const int64_t row = i > j ? i : j, column = i > j ? j : i;
    return problem.gram[row * (row + 1) / 2 + column];
  }
  return 0.5 * (problem.gram[i * t + j] + problem.gram[j * t + i]);
}

inline int64_t space(int64_t t) { return Space::size(t); }

inline int32_t solve_problem(const Quadratic& problem, int64_t t, double* memory, double* dual) {
  const Space s(t, memory);
  bool calm, finite;
  load(
      Alone{}, s, [&](int i, int j) { return gram_at(problem, t, i, j); },
      [&](int i) {
        const double slack = problem.slack != nullptr ? problem.slack[i] : 0.0;
        return slack == kInfinity ? kInfinity : problem.linear[i] + slack;
      },
      problem.lower, problem.ridge, calm, finite);
  return solve(Alone{}, s, problem.lower, problem.always, calm, finite, problem.tolerance, dual);
}

inline void solve_active_problem(const Quadratic& problem, int64_t t, const double* dual,
                                 double* memory, double* y) {
  const Space s(t, memory);
  bool calm, finite;
  const auto is_active = [&](int i) { return i < t && dual[i] > problem.lower; };
  load(
      Alone{}, s, [&](int i, int j) { return gram_at(problem, t, i, j); },
      [&](int i) { return is_active(i) ? problem.linear[i] : kInfinity; }, 0.0, problem.ridge, calm,
      finite);
  for (int i = 0; i < s.ld; ++i) s.active[i] = is_active(i) ? 1.0 : 0.0;
  solve_active(Alone{}, s, problem.tolerance, y);
}

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
