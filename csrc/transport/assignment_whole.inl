// One assignment problem from its costs to its result, by a Team. float32 costs are solved in
// float32 and the answer is judged in float64: where it may be off by more than the rounding of its
// total, the problem is solved again in float64.
// Included behind assignment.inl; SACCADE_TRANSPORT_LAYOUT functions run on the host as well.
#pragma once

#include "transport/exact.h"

namespace saccade::transport::exact::SACCADE_TRANSPORT_NAMESPACE {

constexpr int64_t kLine = 64;

SACCADE_TRANSPORT_LAYOUT constexpr int64_t padded(int64_t count, int64_t to) {
  return (count + to - 1) / to * to;
}

// Takes pieces from a block of memory, or counts what they need.
struct Memory {
  char* base;
  int64_t used = 0;
  template <typename T>
  SACCADE_TRANSPORT_LAYOUT T* take(int64_t count) {
    T* const piece = reinterpret_cast<T*>(base + used);
    used += padded(count * static_cast<int64_t>(sizeof(T)), kLine);
    return piece;
  }
};

// A problem of n rows and m >= n columns, but for its costs.
template <typename T, typename C = T>
SACCADE_TRANSPORT_LAYOUT Problem<T, C> place_vectors(Memory& memory, int64_t n, int64_t m,
                                                     int64_t ld) {
  Problem<T, C> p;
  p.n = static_cast<int32_t>(n);
  p.m = static_cast<int32_t>(m);
  p.ld = static_cast<int32_t>(ld);
  p.cost = nullptr;
  p.price = static_cast<T>(kInfinity);
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

// Costs with the shorter side as rows.
template <typename T>
SACCADE_TRANSPORT_FUNCTION Costs<T> lying(Costs<T> costs, bool turned) {
  if (turned) {
    const Costs<T> given = costs;
    costs.row = given.column;
    costs.column = given.row;
    costs.mask_row = given.mask_column;
    costs.mask_column = given.mask_row;
  }
  return costs;
}

template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION void dual_of_rows(const Team& team, const P& p, double* u) {
  team.each(p.n, [&](int32_t i) {
    const int32_t j = p.column_of[i];
    u[i] = static_cast<double>(p.at(i, j)) - static_cast<double>(p.v[j]);
  });
  team.sync();
}

// After a solution in which forbidden edges had a price: takes their partners away, and from the
// duals what the price has too much. Rows that unmatched rows can reach share their price, and so
// do the columns between.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION void leave_unmatched(const Team& team, const P& p, double price,
                                                double* u) {
  constexpr int32_t kReached = 1, kSearched = 2;
  int32_t* const row_state = p.waiting;
  int32_t* const column_state = p.from;
  team.each(p.m, [&](int32_t j) { column_state[j] = 0; });
  double least_level = kInfinity, least_top = kInfinity;
  team.each(p.n, [&](int32_t i) {
    const int32_t j = p.column_of[i];
    row_state[i] = p.at(i, j) == price ? kReached : 0;
    if (row_state[i] == 0) return;
    if (-p.v[j] < least_level) least_level = -p.v[j];
    if (u[i] < least_top) least_top = u[i];
    p.column_of[i] = p.row_of[j] = -1;
  });
  const double level = -team.smallest(least_level);
  double top = team.smallest(least_top);
  if (!(top < kInfinity)) return;
  // in a square nothing has set the columns to 0 that are free now
  if (p.n == p.m) {
    team.each(p.m, [&](int32_t j) { p.v[j] -= level; });
    team.each(p.n, [&](int32_t i) { u[i] += level; });
    top += level;
  }
  team.sync();
  for (bool again = true; again;) {
    again = false;
    for (int32_t i = 0; i < p.n; ++i) {
      if (row_state[i] != kReached) continue;
      again = true;
      team.sync();
      team.each(p.m, [&](int32_t j) {
        if (column_state[j] != 0 || p.at(i, j) == price) return;
        column_state[j] = kReached;
        const int32_t k = p.row_of[j];
        if (row_state[k] == 0) row_state[k] = kReached;
      });
      if (team.leads()) row_state[i] = kSearched;
      team.sync();
    }
  }
  double surplus = kInfinity, least_other = kInfinity;
  team.each(p.m, [&](int32_t j) {
    if (column_state[j] != 0 && -p.v[j] < surplus) surplus = -p.v[j];
  });
  for (int32_t i = 0; i < p.n; ++i) {
    if (row_state[i] != 0) continue;
    if (-u[i] < least_other) least_other = -u[i];
    team.each(p.m, [&](int32_t j) {
      if (column_state[j] == 0 || p.at(i, j) == price) return;
      const double slack = p.at(i, j) - u[i] - p.v[j];
      if (slack < surplus) surplus = slack;
    });
  }
  surplus = team.smallest(surplus);
  if (top + least_other < surplus) surplus = top + least_other;
  if (!(surplus < kInfinity)) surplus = top;
  team.each(p.n, [&](int32_t i) { u[i] -= row_state[i] != 0 ? surplus : 0.0; });
  team.each(p.m, [&](int32_t j) { p.v[j] += column_state[j] != 0 ? surplus : 0.0; });
  team.sync();
}

// The result of a problem that is solved, turned back.
template <class Team, typename T, class P>
SACCADE_TRANSPORT_FUNCTION void write(const Team& team, const P& p, const double* u, bool turned,
                                      bool maximize, const Matching<T>& out) {
  const double sign = maximize ? -1.0 : 1.0;
  int64_t* const column_of = turned ? out.col_to_row : out.row_to_col;
  int64_t* const row_of = turned ? out.row_to_col : out.col_to_row;
  T* const row_dual = turned ? out.col_dual : out.row_dual;
  T* const col_dual = turned ? out.row_dual : out.col_dual;
  double total = 0.0;
  team.each(p.n, [&](int32_t i) {
    const int32_t j = p.column_of[i];
    column_of[i] = j;
    row_dual[i] = static_cast<T>(sign * u[i]);
    if (j >= 0) total += static_cast<double>(p.at(i, j));
  });
  team.each(p.m, [&](int32_t j) {
    row_of[j] = p.row_of[j];
    col_dual[j] = static_cast<T>(sign * static_cast<double>(p.v[j]));
  });
  total = team.sum(total);
  if (team.leads()) *out.total = static_cast<T>(sign * total);
}

template <class Team, typename T>
SACCADE_TRANSPORT_FUNCTION void write_nothing(const Team& team, int32_t n, int32_t m,
                                              const Matching<T>& out) {
  const T nan = static_cast<T>(__builtin_nan(""));
  team.each(n, [&](int32_t i) {
    out.row_to_col[i] = -1;
    out.row_dual[i] = nan;
  });
  team.each(m, [&](int32_t j) {
    out.col_to_row[j] = -1;
    out.col_dual[j] = nan;
  });
  if (team.leads()) *out.total = nan;
}

// `p` and `exact` are the same problem in T and in float64, of which the costs are still to be
// loaded; both are one where T is float64. u has a number a row.
template <class Team, typename T, class P, class E>
SACCADE_TRANSPORT_FUNCTION void solve_assignment(const Team& team, const Costs<T>& costs,
                                                 bool turned, bool maximize, const P& p, E exact,
                                                 double* u, const Matching<T>& out) {
  const Contents contents = team.load_costs(costs, maximize, p);
  if (contents.bad) {
    return write_nothing(team, turned ? p.m : p.n, turned ? p.n : p.m, out);
  }
  const bool all = solve(team, p);
  bool done = all;
  if constexpr (sizeof(T) != sizeof(double)) done = all && team.is_optimal(p, exact.v);
  if (done) {
    dual_of_rows(team, p, u);
    return write(team, p, u, turned, maximize, out);
  }
  const double price =
      contents.size > 0.0 ? 2.0 * (static_cast<double>(p.n) + 1.0) * contents.size : 1.0;
  if (!all) exact.price = price;
  team.load_exact(costs, maximize, p, exact);
  solve(team, exact);
  dual_of_rows(team, exact, u);
  if (!all) leave_unmatched(team, exact, price, u);
  write(team, exact, u, turned, maximize, out);
}

}  // namespace saccade::transport::exact::SACCADE_TRANSPORT_NAMESPACE
