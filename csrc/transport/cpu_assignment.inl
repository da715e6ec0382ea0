// Whole assignment problems for one instruction set: loading costs, and the judge.
#pragma once

#include "transport/cpu_team.inl"

namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE {

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
inline Contents load(const Costs<S>& costs, bool maximize, const Problem<T>& p) {
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
inline bool has_no_gap(const Problem<float>& p, double* v) {
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

struct Solver : Alone {
  template <typename T, typename S>
  Contents load_costs(const Costs<S>& costs, bool maximize, const Problem<T>& p) const {
    return load<T, S>(costs, maximize, p);
  }

  // Passes read whole vectors, so the price of a forbidden edge is stored.
  template <typename S>
  void load_exact(const Costs<S>& costs, bool maximize, const Problem<S>&,
                  const Problem<double>& exact) const {
    load<double, S>(costs, maximize, exact);
    if (!(exact.price < kInfinity)) return;
    double* const cost = const_cast<double*>(exact.cost);
    for (int32_t i = 0; i < exact.n; ++i) {
      for (int32_t j = 0; j < exact.m; ++j) {
        double& c = cost[int64_t{i} * exact.ld + j];
        if (c == kInfinity) c = exact.price;
      }
    }
  }

  bool is_optimal(const Problem<float>& p, double* v) const { return has_no_gap(p, v); }
};

template <typename T>
inline Problem<T> place(Memory& memory, int64_t n, int64_t m) {
  const int64_t ld = padded(m, kLine / static_cast<int64_t>(sizeof(T)));
  Problem<T> p = place_vectors<T>(memory, n, m, ld);
  p.cost = memory.take<T>(n * ld);
  return p;
}

template <typename T>
inline void solve_alone(const Costs<T>& given, int64_t n, int64_t m, bool maximize, void* space,
                        const Matching<T>& out) {
  const bool turned = n > m;
  const int64_t rows = turned ? m : n, columns = turned ? n : m;
  Memory memory{static_cast<char*>(space)};
  double* const u = memory.take<double>(rows);
  const Problem<T> p = place<T>(memory, rows, columns);
  const Problem<double> exact = place<double>(memory, rows, columns);
  solve_assignment(Solver(), lying(given, turned), turned, maximize, p, exact, u, out);
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
const AssignmentKernel<float> kAssignmentFloat{assignment_space<float>, solve_alone<float>};
const AssignmentKernel<double> kAssignmentDouble{assignment_space<double>, solve_alone<double>};

}  // namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE
