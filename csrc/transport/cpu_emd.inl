// One transport problem from costs and weights to its result, for one instruction set. Masses
// become integers, rows and columns without mass are left out. Where all masses are the same and
// the matrix is square, the plan is an assignment.
#pragma once

#include "transport/cpu_assignment.inl"
#include "transport/cpu_simplex.inl"

namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE {

// All mass in units; a sum of two fits into 64 bits.
constexpr double kUnits = static_cast<double>(int64_t{1} << 60);
constexpr int64_t kPivotsANode = 2000;

// Masses of one side in units, those above 0 alone.
struct Side {
  int32_t count;
  int32_t* index;  // where each stood
  int64_t* units;
};

template <typename T>
inline double weight(const Weights<T>& w, int64_t i, int64_t count) {
  return w.data != nullptr ? static_cast<double>(w.data[i * w.stride])
                           : 1.0 / static_cast<double>(count);
}

// The sum of all weights; NaN where one is negative or not finite.
template <typename T>
inline double sum(const Weights<T>& w, int64_t count) {
  if (w.data == nullptr) return count > 0 ? 1.0 : 0.0;
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double x = weight(w, i, count);
    if (!(x >= 0.0)) return __builtin_nan("");
    total += x;
  }
  return total < kInfinity ? total : __builtin_nan("");
}

template <typename T>
inline int64_t to_units(const Weights<T>& w, int64_t count, double total, Side& side) {
  int64_t units = 0;
  side.count = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t mass = static_cast<int64_t>(weight(w, i, count) / total * kUnits + 0.5);
    if (mass <= 0) continue;
    side.index[side.count] = static_cast<int32_t>(i);
    side.units[side.count++] = mass;
    units += mass;
  }
  return units;
}

inline void add_to_largest(const Side& side, int64_t units) {
  int32_t largest = 0;
  for (int32_t k = 1; k < side.count; ++k) {
    if (side.units[k] > side.units[largest]) largest = k;
  }
  side.units[largest] += units;
}

inline int64_t common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Both sides in units, and how many units the whole is.
template <typename T>
inline int64_t weigh(const Weights<T>& a, const Weights<T>& b, int64_t n, int64_t m, double sum_a,
                     double sum_b, Side& rows, Side& columns) {
  if (a.data == nullptr && b.data == nullptr) {
    const int64_t divisor = common_divisor(n, m);
    for (int64_t i = 0; i < n; ++i) rows.index[i] = static_cast<int32_t>(i);
    for (int64_t j = 0; j < m; ++j) columns.index[j] = static_cast<int32_t>(j);
    for (int64_t i = 0; i < n; ++i) rows.units[i] = m / divisor;
    for (int64_t j = 0; j < m; ++j) columns.units[j] = n / divisor;
    rows.count = static_cast<int32_t>(n);
    columns.count = static_cast<int32_t>(m);
    return n / divisor * m;
  }
  const int64_t of_rows = to_units(a, n, sum_a, rows), of_columns = to_units(b, m, sum_b, columns);
  add_to_largest(columns, of_rows - of_columns);
  return of_rows;
}

inline bool is_uniform(const Side& side) {
  for (int32_t k = 1; k < side.count; ++k) {
    if (side.units[k] != side.units[0]) return false;
  }
  return true;
}

inline Network network(Memory& memory, int64_t n, int64_t m) {
  const int64_t ld = padded(m, kLine / static_cast<int64_t>(sizeof(double))), nodes = n + m;
  Network w;
  w.n = static_cast<int32_t>(n);
  w.m = static_cast<int32_t>(m);
  w.ld = static_cast<int32_t>(ld);
  w.cost = memory.take<double>(n * ld);
  w.f = memory.take<double>(n);
  w.g = memory.take<double>(ld);
  w.open = memory.take<double>(ld);
  w.left = memory.take<int64_t>(nodes);
  w.flow = memory.take<int64_t>(nodes);
  int32_t** const pieces[] = {&w.spare,    &w.parent, &w.depth,    &w.child,       &w.next,
                              &w.previous, &w.stack,  &w.edge_row, &w.edge_column, &w.first_edge};
  for (int32_t** const piece : pieces) *piece = memory.take<int32_t>(nodes);
  w.link = memory.take<int32_t>(2 * nodes);
  w.supply = w.demand = nullptr;
  return w;
}

template <typename T>
inline void fill(T* p, int64_t count, double value) {
  for (int64_t i = 0; i < count; ++i) p[i] = static_cast<T>(value);
}

template <typename T>
inline void fail(int64_t n, int64_t m, const Transport<T>& out) {
  const double nan = __builtin_nan("");
  fill(out.plan, n * m, nan);
  fill(out.f, n, nan);
  fill(out.g, m, nan);
  *out.value = *out.err = static_cast<T>(nan);
  *out.pivots = 0;
  *out.status = kNotFinite;
}

// Costs of the rows and columns that have mass; forbidden edges get `price`.
template <typename T>
inline void gather(const Costs<T>& costs, const Side& rows, const Side& columns, double price,
                   const Network& w) {
  double* const to = const_cast<double*>(w.cost);
  for (int32_t i = 0; i < w.n; ++i) {
    const T* const row = costs.data + rows.index[i] * costs.row;
    double* const own = to + int64_t{i} * w.ld;
    for (int32_t j = 0; j < w.m; ++j) {
      const double c = static_cast<double>(row[columns.index[j] * costs.column]);
      own[j] = c < kInfinity ? c : price;
    }
    for (int32_t j = w.m; j < w.ld; ++j) own[j] = kInfinity;
  }
}

// What the whole matrix holds, whether there is mass or not.
template <typename T>
inline Contents look(const Costs<T>& costs, int64_t n, int64_t m) {
  Contents contents;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j) {
      const double c = static_cast<double>(costs.data[i * costs.row + j * costs.column]);
      contents.bad |= !(c > -kInfinity);
      const double size = c < 0.0 ? -c : c;
      if (size < kInfinity) {
        if (size > contents.size) contents.size = size;
      } else {
        contents.forbids = true;
      }
    }
  }
  return contents;
}

// Duals of rows and columns without mass: as large as they may be.
template <typename T>
inline void bound_others(const Costs<T>& costs, int64_t n, int64_t m, double* f, double* g) {
  const double kNone = kInfinity;
  const auto at = [&](int64_t i, int64_t j) {
    return static_cast<double>(costs.data[i * costs.row + j * costs.column]);
  };
  for (int64_t j = 0; j < m; ++j) {
    if (g[j] == g[j]) continue;
    double least = kNone;
    for (int64_t i = 0; i < n; ++i) {
      if (f[i] == f[i] && at(i, j) - f[i] < least) least = at(i, j) - f[i];
    }
    g[j] = least;
  }
  for (int64_t i = 0; i < n; ++i) {
    if (f[i] == f[i]) continue;
    double least = kNone;
    for (int64_t j = 0; j < m; ++j) {
      if (g[j] < kNone && at(i, j) - g[j] < least) least = at(i, j) - g[j];
    }
    f[i] = least;
  }
}

struct Sums {
  double value = 0.0, lost = 0.0;
};

// By the assignment, whose pairs carry `mass` each.
template <typename T>
inline Sums match(const Costs<T>& costs, int64_t n, double mass, Memory memory,
                  const Transport<T>& out) {
  int64_t* const row_to_col = memory.take<int64_t>(n);
  int64_t* const col_to_row = memory.take<int64_t>(n);
  T* const total = memory.take<T>(1);
  solve_alone<T>(costs, n, n, false, memory.base + memory.used,
                 {row_to_col, col_to_row, total, out.f, out.g});
  Sums sums;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t j = row_to_col[i];
    if (j < 0) {
      sums.lost += mass;
      continue;
    }
    out.plan[i * n + j] = static_cast<T>(mass);
    sums.value += mass * static_cast<double>(costs.data[i * costs.row + j * costs.column]);
  }
  *out.pivots = 0;
  return sums;
}

// By the network simplex; f and g are NaN where there is no mass.
template <typename T>
inline Sums ship(const Costs<T>& costs, int64_t m, const Contents& contents, const Side& rows,
                 const Side& columns, double unit, Memory memory, double* f, double* g,
                 const Transport<T>& out) {
  Network w = network(memory, rows.count, columns.count);
  w.supply = rows.units;
  w.demand = columns.units;
  const int64_t nodes = int64_t{w.n} + w.m;
  const double price = contents.size > 0.0 ? 2.0 * static_cast<double>(nodes) * contents.size : 1.0;
  gather(costs, rows, columns, price, w);
  const double size = contents.forbids ? price : contents.size;
  const int64_t pivots =
      simplex(w, size / static_cast<double>(int64_t{1} << 46), kPivotsANode * nodes);
  *out.pivots = static_cast<int32_t>(pivots < 0 ? -1 - pivots : pivots);
  *out.status = pivots < 0 ? kMostPivots : kSolved;
  for (int32_t i = 0; i < w.n; ++i) f[rows.index[i]] = w.f[i];
  for (int32_t j = 0; j < w.m; ++j) g[columns.index[j]] = w.g[j];
  Sums sums;
  for (int32_t k = 0; k < nodes - 1; ++k) {
    const int32_t i = k < w.n ? k : w.parent[k];
    const int32_t j = (k < w.n ? w.parent[k] : k) - w.n;
    if (w.flow[k] == 0) continue;
    const double mass = static_cast<double>(w.flow[k]) * unit;
    const double cost = w.cost[int64_t{i} * w.ld + j];
    if (contents.forbids && cost == price) {
      sums.lost += mass;
      continue;
    }
    out.plan[rows.index[i] * m + columns.index[j]] = static_cast<T>(mass);
    sums.value += mass * cost;
  }
  return sums;
}

// Shifts f and g so that both have the same share of the value, and rounds them.
template <typename T, typename S>
inline void balance(const Weights<T>& a, const Weights<T>& b, int64_t n, int64_t m, double total,
                    const S* f, const S* g, const Transport<T>& out) {
  double of_rows = 0.0, of_columns = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const double mass = weight(a, i, n);
    if (mass > 0.0) of_rows += mass * static_cast<double>(f[i]);
  }
  for (int64_t j = 0; j < m; ++j) {
    const double mass = weight(b, j, m);
    if (mass > 0.0) of_columns += mass * static_cast<double>(g[j]);
  }
  const double shift = total > 0.0 ? (of_columns - of_rows) / (2.0 * total) : 0.0;
  for (int64_t i = 0; i < n; ++i) out.f[i] = static_cast<T>(static_cast<double>(f[i]) + shift);
  for (int64_t j = 0; j < m; ++j) out.g[j] = static_cast<T>(static_cast<double>(g[j]) - shift);
}

template <typename T>
inline void solve_emd(const Costs<T>& costs, int64_t n, int64_t m, const Weights<T>& a,
                      const Weights<T>& b, double tolerance, void* space, const Transport<T>& out) {
  const double sum_a = sum(a, n), sum_b = sum(b, m);
  const Contents contents = look(costs, n, m);
  if (contents.bad || !(sum_a >= 0.0) || !(sum_b >= 0.0)) return fail(n, m, out);
  fill(out.plan, n * m, 0.0);
  Memory memory{static_cast<char*>(space)};
  Side rows{0, memory.take<int32_t>(n), memory.take<int64_t>(n)};
  Side columns{0, memory.take<int32_t>(m), memory.take<int64_t>(m)};
  double* const f = memory.take<double>(n);
  double* const g = memory.take<double>(m);
  const double difference = sum_a > sum_b ? sum_a - sum_b : sum_b - sum_a;
  const bool unequal = difference > tolerance * sum_a;
  Sums sums;
  *out.status = kSolved;
  if (sum_a > 0.0 && sum_b > 0.0) {
    const int64_t units = weigh(a, b, n, m, sum_a, sum_b, rows, columns);
    const double unit = sum_a / static_cast<double>(units);
    if (n == m && rows.count == n && columns.count == m && is_uniform(rows) &&
        is_uniform(columns)) {
      sums = match(costs, n, sum_a / static_cast<double>(n), memory, out);
      balance(a, b, n, m, sum_a, out.f, out.g, out);
    } else {
      fill(f, n, __builtin_nan(""));
      fill(g, m, __builtin_nan(""));
      sums = ship(costs, m, contents, rows, columns, unit, memory, f, g, out);
      bound_others(costs, n, m, f, g);
      balance(a, b, n, m, sum_a, f, g, out);
    }
  } else {
    fill(out.f, n, 0.0);
    fill(g, m, __builtin_nan(""));
    fill(f, n, 0.0);
    bound_others(costs, n, m, f, g);
    for (int64_t j = 0; j < m; ++j) out.g[j] = static_cast<T>(g[j]);
    *out.pivots = 0;
    sums.lost = sum_a;
  }
  if (unequal || sums.lost > 0.0) *out.status = kInfeasible;
  *out.value = static_cast<T>(sums.value);
  *out.err = static_cast<T>(sums.lost);
}

template <typename T>
inline int64_t emd_space(int64_t n, int64_t m) {
  Memory memory{nullptr};
  memory.take<int32_t>(n);
  memory.take<int64_t>(n);
  memory.take<int32_t>(m);
  memory.take<int64_t>(m);
  memory.take<double>(n);
  memory.take<double>(m);
  Memory matching = memory;
  matching.take<int64_t>(n);
  matching.take<int64_t>(n);
  matching.take<T>(1);
  network(memory, n, m);
  const int64_t other = n == m ? matching.used + assignment_space<T>(n, n) : 0;
  return memory.used > other ? memory.used : other;
}

extern const TransportKernel<float> kTransportFloat;
extern const TransportKernel<double> kTransportDouble;
const TransportKernel<float> kTransportFloat{emd_space<float>, solve_emd<float>};
const TransportKernel<double> kTransportDouble{emd_space<double>, solve_emd<double>};

}  // namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE
