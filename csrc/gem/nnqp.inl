// The quadratic problem of t variables, min x'Kx/2 + c'x over x >= 0, by the dual active-set method
// of Goldfarb and Idnani on a table that is swept: an active variable's row and column hold
// -inverse(K) and inverse(K) K, the others' the Schur complement. A step is then a few passes over
// one row, a change of the active set one rank-one update. The table needs no positive definite
// matrix: a row that depends on the active ones has no pivot, and changes places with one of them.
//
// Shared by CPU and CUDA: a Team runs the loops, alone or as the lanes of a warp that share memory.
// Included where SACCADE_GEM_NAMESPACE and SACCADE_GEM_FUNCTION are defined.
#pragma once

#include <stdint.h>

namespace saccade::gem::SACCADE_GEM_NAMESPACE {

constexpr double kInfinity = __builtin_huge_val();
constexpr double kTiny = 2.2250738585072014e-308;
constexpr int kStepsAVariable = 50;
constexpr int kRefinements = 3;

SACCADE_GEM_FUNCTION double magnitude(double x) { return x < 0.0 ? -x : x; }

// Rows are padded to whole vectors; padding holds zeros and stays zero.
SACCADE_GEM_FUNCTION int64_t padded(int64_t t) { return (t + 3) / 4 * 4; }

// The numbers of one problem, in memory of `size(t)` doubles.
struct Space {
  int t, ld;
  double* gram;      // [t, ld] K with its ridge
  double* table;     // [t, ld] K swept on the active variables
  double* linear;    // c
  double* x;         // zero where not active
  double* residual;  // K x + c, zero where active
  double* weight;    // 1 / K_ii
  double* active;    // 0 or 1
  double* pivot;     // a copy of the row that is swept

  SACCADE_GEM_FUNCTION static int64_t size(int64_t t) { return (2 * t + 6) * padded(t); }

  SACCADE_GEM_FUNCTION Space(int64_t variables, double* memory)
      : t(static_cast<int>(variables)), ld(static_cast<int>(padded(variables))) {
    gram = memory;
    table = gram + int64_t{t} * ld;
    linear = table + int64_t{t} * ld;
    x = linear + ld;
    residual = x + ld;
    weight = residual + ld;
    active = weight + ld;
    pivot = active + ld;
  }
};

template <class Team>
SACCADE_GEM_FUNCTION void sweep(const Team& team, const Space& s, int k) {
  const double* const row = s.table + int64_t{k} * s.ld;
  const double d = row[k];
  const double sign = s.active[k] != 0.0 ? -1.0 : 1.0;
  team.each(s.ld, [&](int i) { s.pivot[i] = row[i]; });
  team.sync();
  const double scale = 1.0 / d;
  team.subtract_outer(s.table, s.pivot, scale, s.t, s.ld);
  team.sync();
  team.each(s.ld, [&](int i) {
    const double value = sign * s.pivot[i] * scale;
    s.table[int64_t{k} * s.ld + i] = value;
    if (i < s.t) s.table[int64_t{i} * s.ld + k] = value;
  });
  team.sync();
  if (team.leads()) s.table[int64_t{k} * s.ld + k] = -scale;
  team.sync();
}

// Whether row j is violated by more than the rounding of the numbers that it is the sum of.
template <class Team>
SACCADE_GEM_FUNCTION bool is_violated(const Team& team, const Space& s, int j, double tolerance) {
  const double* const row = s.gram + int64_t{j} * s.ld;
  const double size = team.sum(s.t, [&](int i) { return magnitude(row[i]) * s.x[i]; });
  return s.residual[j] < -tolerance * (magnitude(s.linear[j]) + size);
}

// Makes row j an equality, at the cost of active ones where it must. False: no v satisfies it.
template <class Team>
SACCADE_GEM_FUNCTION bool enter(const Team& team, const Space& s, int j, double tolerance,
                                int& steps) {
  for (;; --steps) {
    if (steps <= 0) return false;
    const double* const row = s.table + int64_t{j} * s.ld;
    const double pivot = row[j];
    const bool independent = pivot > tolerance * s.gram[int64_t{j} * s.ld + j];
    const double full = independent ? -s.residual[j] / pivot : kInfinity;
    // the active variable that comes to zero first; one at zero already has an infinite ratio
    const int first = team.best(
        s.t, [&](int i) { return s.active[i] != 0.0 && row[i] > 0.0 ? row[i] / s.x[i] : 0.0; });
    const double blocked = first >= 0 ? s.x[first] / row[first] : kInfinity;
    const double step = full < blocked ? full : blocked;
    if (!(step < kInfinity)) return false;
    team.sync();
    team.each(s.ld, [&](int i) {
      s.x[i] -= step * s.active[i] * row[i];
      s.residual[i] += step * (1.0 - s.active[i]) * row[i];
    });
    team.sync();
    const int change = full <= blocked ? j : first;
    if (team.leads()) {
      s.x[j] += step;
      s.residual[change] = 0.0;
      if (change != j) s.x[change] = 0.0;
    }
    team.sync();
    sweep(team, s, change);
    if (team.leads()) s.active[change] = change == j ? 1.0 : 0.0;
    team.sync();
    if (change == j) return true;
  }
}

// x from the true matrix: sweeping has rounded the table many times.
template <class Team>
SACCADE_GEM_FUNCTION void refine(const Team& team, const Space& s) {
  const auto recompute = [&](double active) {
    team.each(s.t, [&](int i) {
      if (s.active[i] != active) return;
      double sum = s.linear[i];
      for (int j = 0; j < s.t; ++j) sum += s.gram[int64_t{i} * s.ld + j] * s.x[j];
      s.residual[i] = sum;
    });
    team.sync();
  };
  recompute(1.0);
  team.each(s.t, [&](int i) {
    double sum = 0.0;
    for (int j = 0; j < s.t; ++j) {
      if (s.active[j] != 0.0) sum += s.table[int64_t{i} * s.ld + j] * s.residual[j];
    }
    s.pivot[i] = s.x[i] + sum;
  });
  team.sync();
  team.each(s.t, [&](int i) {
    if (s.active[i] == 0.0) return;
    s.x[i] = s.pivot[i] > 0.0 ? s.pivot[i] : 0.0;
  });
  team.sync();
  recompute(0.0);
  team.each(s.t, [&](int i) {
    if (s.active[i] != 0.0) s.residual[i] = 0.0;
  });
  team.sync();
}

// From gram and linear to x and active. False: infeasible.
template <class Team>
SACCADE_GEM_FUNCTION bool minimise(const Team& team, const Space& s, double tolerance) {
  team.grid(s.t, s.ld,
            [&](int i, int j) { s.table[int64_t{i} * s.ld + j] = s.gram[int64_t{i} * s.ld + j]; });
  team.each(s.ld, [&](int i) {
    const double diagonal = i < s.t ? s.gram[int64_t{i} * s.ld + i] : 1.0;
    s.weight[i] = 1.0 / (diagonal > kTiny ? diagonal : kTiny);
    s.residual[i] = i < s.t ? s.linear[i] : 0.0;
    s.x[i] = s.active[i] = 0.0;
  });
  team.sync();
  int steps = kStepsAVariable * (s.t + 1);
  for (int round = 0; round <= kRefinements; ++round) {
    bool moved = false;
    for (;;) {
      const int j = team.best(s.t, [&](int i) {
        const double r = s.residual[i];
        return r < 0.0 ? r * r * s.weight[i] + kTiny : 0.0;
      });
      if (j < 0) break;
      const bool violated = is_violated(team, s, j, tolerance);
      team.sync();
      if (violated) {
        if (!enter(team, s, j, tolerance, steps)) return false;
        moved = true;
      } else if (team.leads()) {
        s.residual[j] = 0.0;
      }
      team.sync();
    }
    if (!moved) return true;
    refine(team, s);
  }
  return true;
}

// gram and linear of a problem whose entries are given by functions: excluded rows (linear +inf)
// become zeros, the bound m moves to zero. `calm`: no linear term is negative; `finite`: all
// numbers that count are.
template <class Team, class Gram, class Linear>
SACCADE_GEM_FUNCTION void load(const Team& team, const Space& s, const Gram& gram,
                               const Linear& linear, double lower, double ridge, bool& calm,
                               bool& finite) {
  team.each(s.ld, [&](int i) { s.pivot[i] = i < s.t ? linear(i) : kInfinity; });
  team.sync();
  team.grid(s.t, s.ld, [&](int i, int j) {
    const bool counts = s.pivot[i] != kInfinity && s.pivot[j] != kInfinity;
    s.gram[int64_t{i} * s.ld + j] = counts ? gram(i, j) + (i == j ? ridge : 0.0) : 0.0;
  });
  team.sync();
  team.each(s.ld, [&](int i) {
    double sum = 0.0;
    if (i < s.t) {
      for (int j = 0; j < s.t; ++j) sum += s.gram[int64_t{i} * s.ld + j];
    }
    s.residual[i] = sum;
    s.linear[i] = s.pivot[i] != kInfinity ? s.pivot[i] + lower * sum : 0.0;
  });
  team.sync();
  // a sum over infinities and NaN is not finite, and neither is its difference with itself
  calm = team.sum(s.t, [&](int i) { return s.pivot[i] >= 0.0 ? 0.0 : 1.0; }) == 0.0;
  finite = team.sum(s.t, [&](int i) {
    const double sum = s.residual[i] + s.linear[i];
    return sum - sum == 0.0 ? 0.0 : 1.0;
  }) == 0.0;
  team.sync();
}

enum Status : int32_t { kSolved = 0, kUntouched = 1, kInfeasible = 2, kNotFinite = 3 };

// lambda of a loaded problem into `dual`.
template <class Team>
SACCADE_GEM_FUNCTION int32_t solve(const Team& team, const Space& s, double lower, bool always,
                                   bool calm, bool finite, double tolerance, double* dual) {
  int32_t status = kSolved;
  if (!finite) {
    status = kNotFinite;
  } else if (calm && !always) {
    status = kUntouched;
  } else {
    // excluded rows are zeros now: their linear term alone tells them from others
    team.each(s.t, [&](int i) { dual[i] = s.pivot[i] == kInfinity ? 0.0 : lower; });
    team.sync();
    if (!minimise(team, s, tolerance)) status = kInfeasible;
  }
  team.each(s.t, [&](int i) { dual[i] = status == kSolved ? dual[i] + s.x[i] : 0.0; });
  team.sync();
  return status;
}

// y of K_AA y_A = b_A for the rows that `active` names, zero elsewhere; s.linear holds b. A row
// that depends on others is left out.
template <class Team>
SACCADE_GEM_FUNCTION void solve_active(const Team& team, const Space& s, double tolerance,
                                       double* y) {
  team.grid(s.t, s.ld,
            [&](int i, int j) { s.table[int64_t{i} * s.ld + j] = s.gram[int64_t{i} * s.ld + j]; });
  team.each(s.ld, [&](int i) {
    s.weight[i] = s.active[i];
    s.active[i] = s.x[i] = 0.0;
  });
  team.sync();
  for (int k = 0; k < s.t; ++k) {
    const int64_t at = int64_t{k} * s.ld + k;
    const bool pivots = s.weight[k] != 0.0 && s.table[at] > tolerance * s.gram[at];
    team.sync();
    if (!pivots) continue;
    sweep(team, s, k);
    if (team.leads()) s.active[k] = 1.0;
    team.sync();
  }
  // one correction with the residual of the first answer
  for (int round = 0; round < 2; ++round) {
    team.each(s.t, [&](int i) {
      double sum = s.linear[i];
      for (int j = 0; j < s.t; ++j) sum -= s.gram[int64_t{i} * s.ld + j] * s.x[j];
      s.residual[i] = s.active[i] * sum;
    });
    team.sync();
    team.each(s.t, [&](int i) {
      double sum = 0.0;
      for (int j = 0; j < s.t; ++j) sum -= s.table[int64_t{i} * s.ld + j] * s.residual[j];
      s.pivot[i] = s.active[i] * sum;
    });
    team.sync();
    team.each(s.t, [&](int i) { s.x[i] += s.pivot[i]; });
    team.sync();
  }
  team.each(s.t, [&](int i) { y[i] = s.x[i]; });
  team.sync();
}

}  // namespace saccade::gem::SACCADE_GEM_NAMESPACE
