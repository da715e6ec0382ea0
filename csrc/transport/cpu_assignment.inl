// One assignment problem from its costs to its result, for one instruction set. float32 costs are
// solved in float32 and the answer is judged in float64: where it may be off by more than the
// rounding of its total, the problem is solved again in float64.
#pragma once

#include "transport/cpu_team.inl"

namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE {

constexpr int64_t kLine = 64;

inline int64_t padded(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Takes pieces from a block of memory, or counts what they need.
struct Memory {
  char* base;
  int64_t used = 0;
  template <typename T>
  T* take(int64_t count) {
    T* const piece = reinterpret_cast<T*>(base + used);
    used += padded(count * static_cast<int64_t>(sizeof(T)), kLine);
    return piece;
  }
};

// A problem of n rows and m >= n columns.
template <typename T>
inline Problem<T> place(Memory& memory, int64_t n, int64_t m) {
  const int64_t ld = padded(m, kLine / static_cast<int64_t>(sizeof(T)));
  Problem<T> p;
  p.n = static_cast<int32_t>(n);
  p.m = static_cast<int32_t>(m);
  p.ld = static_cast<int32_t>(ld);
  p.cost = memory.take<T>(n * ld);
  p.v = memory.take<T>(ld);
  p.open = memory.take<T>(ld);
  p.distance = memory.take<T>(ld);
  p.from = memory.take<int32_t>(ld);
  p.row_of = memory.take<int32_t>(ld);
  p.column_of = memory.take<int32_t>(n);
  p.waiting = memory.take<int32_t>(n);
  p.closed = memory.take<int32_t>(n + 1);
  p.closed_distance = memory.take<T>(n + 1);
  return p;
}

// What a matrix holds: a forbidden edge is +inf, anything else that is not finite is bad.
struct Contents {
  bool forbids = false, bad = false;
  double size = 0.0;  // of the largest finite cost, where `forbids`
};

// Costs with the shorter side as rows, and with the sign that makes the sum one to minimise.
template <typename T>
inline Costs<T> lying(Costs<T> costs, bool turned) {
  if (turned) {
    const Costs<T> given = costs;
    costs.row = given.column;
    costs.column = given.row;
    costs.mask_row = given.mask_column;
    costs.mask_column = given.mask_row;
  }
  return costs;
}

template <typename T, typename S>
inline void load_row(const Costs<S>& costs, int64_t i, int64_t begin, int64_t end, T sign, T* to,
                     int& bad, int& forbidden) {
  const T infinity = static_cast<T>(kInfinity);
  const S* const row = costs.data + i * costs.row;
  if (costs.mask != nullptr) {
    const uint8_t* const mask = costs.mask + i * costs.mask_row;
    for (int64_t j = begin; j < end; ++j) {
      const T c =
          mask[j * costs.mask_column] ? sign * static_cast<T>(row[j * costs.column]) : infinity;
      to[j] = c;
      bad |= !(c > -infinity);
      forbidden |= c == infinity;
    }
  } else if (costs.column == 1) {
    for (int64_t j = begin; j < end; ++j) {
      const T c = sign * static_cast<T>(row[j]);
      to[j] = c;
      bad |= !(c > -infinity);
      forbidden |= c == infinity;
    }
  } else {
    for (int64_t j = begin; j < end; ++j) {
      const T c = sign * static_cast<T>(row[j * costs.column]);
      to[j] = c;
      bad |= !(c > -infinity);
      forbidden |= c == infinity;
    }
  }
}

template <typename T, typename S>
inline Contents load_costs(const Costs<S>& costs, bool maximize, const Problem<T>& p) {
  // a block of columns at a time, so that the lines of a transposed matrix are read once
  constexpr int64_t kBlock = 16;
  const int64_t block = costs.column == 1 ? p.ld : kBlock;
  T* const to = const_cast<T*>(p.cost);
  int bad = 0, forbidden = 0;
  for (int64_t begin = 0; begin < p.m; begin += block) {
    const int64_t end = begin + block < p.m ? begin + block : p.m;
    for (int64_t i = 0; i < p.n; ++i) {
      load_row(costs, i, begin, end, static_cast<T>(maximize ? -1 : 1), to + i * p.ld, bad,
               forbidden);
    }
  }
  for (int64_t i = 0; i < p.n; ++i) {
    for (int64_t j = p.m; j < p.ld; ++j) to[i * p.ld + j] = static_cast<T>(kInfinity);
  }
  Contents contents;
  contents.bad = bad;
  contents.forbids = forbidden;
  if (forbidden) {
    for (int64_t i = 0; i < p.n; ++i) {
      for (int64_t j = 0; j < p.m; ++j) {
        const T c = to[i * p.ld + j];
        const double size = static_cast<double>(c < 0 ? -c : c);
        if (size < kInfinity && size > contents.size) contents.size = size;
      }
    }
  }
  return contents;
}

// Whether no matching can be cheaper by more than one rounding of the total: the duality gap, in
// float64, of the columns' potentials.
inline bool is_optimal(const Problem<float>& p, double* v) {
  typedef float Narrow __attribute__((vector_size(SACCADE_BYTES / 2), aligned(4), may_alias));
  for (int32_t j = 0; j < p.ld; ++j) v[j] = p.v[j];
  double gap = 0.0, size = 0.0;
  for (int32_t i = 0; i < p.n; ++i) {
    const float* const cost = p.cost + int64_t{i} * p.ld;
    Vec<double> least = broadcast(kInfinity);
    for (int32_t j = 0; j < p.ld; j += kWidth<double>) {
      const Narrow c = *reinterpret_cast<const Narrow*>(cost + j);
      least = min<double>(least, __builtin_convertvector(c, Vec<double>) - load(v + j));
    }
    const int32_t j = p.column_of[i];
    gap += (cost[j] - v[j]) - horizontal_min<double>(least);
    size += cost[j] < 0 ? -cost[j] : cost[j];
  }
  return gap <= size * (1.0 / (1 << 23));
}

// After a solution in which forbidden edges had a price: takes their partners away, and from the
// duals what the price has too much. Rows that unmatched rows can reach share their price, and so
// do the columns between.
inline void leave_unmatched(const Problem<double>& p, double price, double* u) {
  const auto at = [&](int32_t i, int32_t j) { return p.cost[int64_t{i} * p.ld + j]; };
  int32_t* const reached_row = p.waiting;
  int32_t* const reached_column = p.from;
  int32_t count = 0;
  double level = -kInfinity, highest = -kInfinity;
  for (int32_t j = 0; j < p.m; ++j) reached_column[j] = 0;
  for (int32_t i = 0; i < p.n; ++i) {
    const int32_t j = p.column_of[i];
    reached_row[i] = at(i, j) == price;
    if (!reached_row[i]) continue;
    if (p.v[j] > level) level = p.v[j];
    p.closed[count++] = i;
    p.column_of[i] = p.row_of[j] = -1;
  }
  if (count == 0) return;
  // in a square nothing has set the columns to 0 that are free now
  if (p.n == p.m) {
    for (int32_t j = 0; j < p.m; ++j) p.v[j] -= level;
    for (int32_t i = 0; i < p.n; ++i) u[i] += level;
  }
  const double top = u[p.closed[0]];
  while (count > 0) {
    const int32_t i = p.closed[--count];
    for (int32_t j = 0; j < p.m; ++j) {
      if (reached_column[j] || at(i, j) == price) continue;
      reached_column[j] = 1;
      reached_row[p.row_of[j]] = 1;
      p.closed[count++] = p.row_of[j];
    }
  }
  double surplus = kInfinity;
  for (int32_t j = 0; j < p.m; ++j) {
    if (reached_column[j] && -p.v[j] < surplus) surplus = -p.v[j];
  }
  for (int32_t i = 0; i < p.n; ++i) {
    if (reached_row[i]) continue;
    if (u[i] > highest) highest = u[i];
    for (int32_t j = 0; j < p.m; ++j) {
      if (!reached_column[j] || at(i, j) == price) continue;
      const double slack = at(i, j) - u[i] - p.v[j];
      if (slack < surplus) surplus = slack;
    }
  }
  if (top - highest < surplus) surplus = top - highest;
  if (!(surplus < kInfinity)) surplus = top;
  for (int32_t i = 0; i < p.n; ++i) u[i] -= reached_row[i] ? surplus : 0.0;
  for (int32_t j = 0; j < p.m; ++j) p.v[j] += reached_column[j] ? surplus : 0.0;
}

// The result of a problem that is solved, turned back.
template <typename T, typename S>
inline void write(const Problem<S>& p, const double* u, bool turned, bool maximize,
                  const Matching<T>& out) {
  const double sign = maximize ? -1.0 : 1.0;
  int64_t* const column_of = turned ? out.col_to_row : out.row_to_col;
  int64_t* const row_of = turned ? out.row_to_col : out.col_to_row;
  T* const row_dual = turned ? out.col_dual : out.row_dual;
  T* const col_dual = turned ? out.row_dual : out.col_dual;
  double total = 0.0;
  for (int32_t i = 0; i < p.n; ++i) {
    const int32_t j = p.column_of[i];
    column_of[i] = j;
    row_dual[i] = static_cast<T>(sign * u[i]);
    if (j >= 0) total += static_cast<double>(p.cost[int64_t{i} * p.ld + j]);
  }
  for (int32_t j = 0; j < p.m; ++j) {
    row_of[j] = p.row_of[j];
    col_dual[j] = static_cast<T>(sign * static_cast<double>(p.v[j]));
  }
  *out.total = static_cast<T>(sign * total);
}

template <typename S>
inline void dual_of_rows(const Problem<S>& p, double* u) {
  for (int32_t i = 0; i < p.n; ++i) {
    const int32_t j = p.column_of[i];
    u[i] = static_cast<double>(p.cost[int64_t{i} * p.ld + j]) - static_cast<double>(p.v[j]);
  }
}

template <typename T>
inline void solve_assignment(const Costs<T>& given, int64_t n, int64_t m, bool maximize,
                             void* space, const Matching<T>& out) {
  const bool turned = n > m;
  const int64_t rows = turned ? m : n, columns = turned ? n : m;
  const Costs<T> costs = lying(given, turned);
  Memory memory{static_cast<char*>(space)};
  double* const u = memory.take<double>(rows);
  const Problem<T> p = place<T>(memory, rows, columns);
  const Alone team;
  const Contents contents = load_costs(costs, maximize, p);
  if (contents.bad) {
    for (int64_t i = 0; i < n; ++i) {
      out.row_to_col[i] = -1;
      out.row_dual[i] = static_cast<T>(__builtin_nan(""));
    }
    for (int64_t j = 0; j < m; ++j) {
      out.col_to_row[j] = -1;
      out.col_dual[j] = static_cast<T>(__builtin_nan(""));
    }
    *out.total = static_cast<T>(__builtin_nan(""));
    return;
  }
  const bool all = solve(team, p);
  if constexpr (sizeof(T) == sizeof(double)) {
    if (all) {
      dual_of_rows(p, u);
      return write(p, u, turned, maximize, out);
    }
  }
  const Problem<double> exact = place<double>(memory, rows, columns);
  if constexpr (sizeof(T) != sizeof(double)) {
    if (all && is_optimal(p, exact.v)) {
      dual_of_rows(p, u);
      return write(p, u, turned, maximize, out);
    }
  }
  load_costs(costs, maximize, exact);
  const double price =
      contents.size > 0.0 ? 2.0 * static_cast<double>(rows + 1) * contents.size : 1.0;
  if (!all) {
    double* const cost = const_cast<double*>(exact.cost);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        if (cost[i * exact.ld + j] == kInfinity) cost[i * exact.ld + j] = price;
      }
    }
  }
  solve(team, exact);
  dual_of_rows(exact, u);
  if (!all) leave_unmatched(exact, price, u);
  write(exact, u, turned, maximize, out);
}

template <typename T>
inline int64_t assignment_space(int64_t n, int64_t m) {
  const int64_t rows = n > m ? m : n, columns = n > m ? n : m;
  Memory memory{nullptr};
  memory.take<double>(rows);
  place<T>(memory, rows, columns);
  place<double>(memory, rows, columns);
  return memory.used;
}

extern const AssignmentKernel<float> kAssignmentFloat;
extern const AssignmentKernel<double> kAssignmentDouble;
const AssignmentKernel<float> kAssignmentFloat{assignment_space<float>, solve_assignment<float>};
const AssignmentKernel<double> kAssignmentDouble{assignment_space<double>,
                                                 solve_assignment<double>};

}  // namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE
