// The assignment problem of n rows and m >= n columns by the method of Jonker and Volgenant
// (Computing 38, 1987): column reduction and reduction transfer where the matrix is square, two
// rounds of augmenting row reduction, then a shortest augmenting path for every row that is left.
//
// Columns have the potential v, rows the smallest c_ij - v_j. Everything that reads a row of costs
// is a pass of a Team over all columns, alone or as the threads of a block that share memory; the
// rest is bookkeeping by its leader. Minima go to the lowest index.
// Included where SACCADE_TRANSPORT_NAMESPACE and SACCADE_TRANSPORT_FUNCTION are defined.
#pragma once

#include <stdint.h>

namespace saccade::transport::exact::SACCADE_TRANSPORT_NAMESPACE {

// The two smallest of c_ij - v_j in a row; index -1 and an infinite value where there is none.
template <typename T>
struct TwoSmallest {
  T first, second;
  int32_t at, second_at;
};

constexpr double kInfinity = __builtin_huge_val();

// One problem, in memory that the whole team sees. Rows of `cost` have ld >= m numbers, infinite
// from m on and where an edge is forbidden. Costs may be stored in a narrower type than T.
template <typename T, typename C = T>
struct Problem {
  using Number = T;
  using Cost = C;
  int32_t n, m, ld;
  const C* cost;
  T price;             // of an edge that is stored as infinite
  T* v;                // [ld]
  T* open;             // [ld] v, but -inf where a column is closed in the search that is under way
  T* distance;         // [ld] of open columns
  int32_t* from;       // [ld] the row that a column was reached from
  int32_t* row_of;     // [ld] the partner of a column, -1 where it has none
  int32_t* column_of;  // [n]
  int32_t* waiting;    // [n] rows without a partner
  int32_t* closed;     // [n + 1] columns in the order of their distances
  T* closed_distance;  // [n + 1]

  SACCADE_TRANSPORT_FUNCTION T at(int32_t i, int32_t j) const {
    const T c = static_cast<T>(cost[int64_t{i} * ld + j]);
    return c < static_cast<T>(kInfinity) ? c : price;
  }
};

constexpr int kRounds = 2;
// Bids in a round of row reduction, for each row that waits.
constexpr int kBids = 16;

// Square matrices: v_j the smallest cost of column j, matched with its row where that is free.
// False: a column has no edge.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION bool reduce_columns(const Team& team, const P& p) {
  using T = typename P::Number;
  team.smallest_of_columns(p, p.v, p.from);
  team.sync();
  // infinity from infinity is no number
  team.each(p.ld - p.m, [&](int32_t k) { p.v[p.m + k] = T{0}; });
  if (team.leads()) {
    // column_of is -2 - j for a row that other columns wanted, too
    for (int32_t j = 0; j < p.m; ++j) {
      const int32_t i = p.from[j];
      const bool is_free = p.column_of[i] == -1;
      p.row_of[j] = is_free ? i : -1;
      if (is_free) {
        p.column_of[i] = j;
      } else if (p.column_of[i] >= 0) {
        p.column_of[i] = -2 - p.column_of[i];
      }
    }
  }
  team.sync();
  for (int32_t j = 0; j < p.m; ++j) {
    if (!(p.v[j] < static_cast<T>(kInfinity))) return false;
  }
  return true;
}

// A row that one column alone wanted may lower that column until a second one ties.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION void transfer(const Team& team, const P& p) {
  using T = typename P::Number;
  for (int32_t i = 0; i < p.n; ++i) {
    const int32_t j = p.column_of[i];
    if (j < -1) {
      team.sync();
      if (team.leads()) p.column_of[i] = -2 - j;
    } else if (j >= 0) {
      const T least = team.smallest_but(p, i, j);
      team.sync();
      if (team.leads() && least < static_cast<T>(kInfinity)) {
        p.v[j] -= least - (p.at(i, j) - p.v[j]);
      }
    }
    team.sync();
  }
}

template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION int32_t list_waiting(const Team& team, const P& p) {
  int32_t count = 0;
  for (int32_t i = 0; i < p.n; ++i) {
    if (p.column_of[i] >= 0) continue;
    if (team.leads()) p.waiting[count] = i;
    ++count;
  }
  team.sync();
  return count;
}

// Every waiting row takes its best column and lowers it until the second best ties; who had it
// before goes on at once. Returns how many still wait, or -1: a row has no edge.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION int32_t reduce_rows(const Team& team, const P& p, int32_t count) {
  using T = typename P::Number;
  int32_t at = 0, left = 0;
  // rows that bid against each other by tiny steps are for the shortest paths
  int64_t steps = int64_t{kBids} * count;
  while (at < count) {
    const int32_t i = p.waiting[at++];
    const TwoSmallest<T> best = team.two_smallest(p, i);
    if (best.at < 0) return -1;
    int32_t j = best.at;
    const T lowered =
        best.second < static_cast<T>(kInfinity) ? p.v[j] - (best.second - best.first) : p.v[j];
    const bool lowers = lowered < p.v[j];
    int32_t before = p.row_of[j];
    if (!lowers && before >= 0 && best.second == best.first) {
      j = best.second_at;
      before = p.row_of[j];
    }
    const bool goes_on = before >= 0 && lowers && --steps > 0;
    team.sync();
    if (team.leads()) {
      if (lowers) p.v[j] = lowered;
      p.row_of[j] = i;
      p.column_of[i] = j;
      if (before >= 0) {
        p.column_of[before] = -1;
        p.waiting[goes_on ? at - 1 : left] = before;
      }
    }
    if (before >= 0) {
      if (goes_on) {
        --at;
      } else {
        ++left;
      }
    }
    team.sync();
  }
  return left;
}

// Matches row `start` along the shortest alternating path. False: no free column can be reached.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION bool augment(const Team& team, const P& p, int32_t start) {
  using T = typename P::Number;
  T shortest = team.begin_search(p, start);
  int32_t count = 0, end;
  for (;;) {
    if (!(shortest < static_cast<T>(kInfinity))) return false;
    end = team.nearest(p, shortest);
    const int32_t i = p.row_of[end];
    if (i < 0) break;
    const T offset = (p.at(i, end) - p.v[end]) - shortest;
    team.sync();
    if (team.leads()) {
      p.closed[count] = end;
      p.closed_distance[count] = shortest;
      p.open[end] = static_cast<T>(-kInfinity);
      p.distance[end] = static_cast<T>(kInfinity);
    }
    ++count;
    team.sync();
    shortest = team.relax(p, i, offset);
  }
  team.sync();
  team.each(count, [&](int32_t k) {
    const int32_t j = p.closed[k];
    p.open[j] = p.v[j] += p.closed_distance[k] - shortest;
  });
  if (team.leads()) {
    for (int32_t j = end;;) {
      const int32_t i = p.from[j], next = p.column_of[i];
      p.row_of[j] = i;
      p.column_of[i] = j;
      if (i == start) break;
      j = next;
    }
  }
  team.sync();
  return true;
}

// Matches all rows, or returns false where that cannot be.
template <class Team, class P>
SACCADE_TRANSPORT_FUNCTION bool solve(const Team& team, const P& p) {
  using T = typename P::Number;
  team.each(p.ld, [&](int32_t j) {
    p.v[j] = T{0};
    p.row_of[j] = -1;
  });
  team.each(p.n, [&](int32_t i) { p.column_of[i] = -1; });
  team.sync();
  // where columns stay free their v must stay 0
  if (p.n == p.m) {
    if (!reduce_columns(team, p)) return false;
    transfer(team, p);
  }
  int32_t count = list_waiting(team, p);
  for (int round = 0; round < kRounds && count > 0; ++round) {
    count = reduce_rows(team, p, count);
    if (count < 0) return false;
  }
  team.each(p.ld, [&](int32_t j) { p.open[j] = p.v[j]; });
  team.sync();
  for (int32_t k = 0; k < count; ++k) {
    if (!augment(team, p, p.waiting[k])) return false;
  }
  return true;
}

}  // namespace saccade::transport::exact::SACCADE_TRANSPORT_NAMESPACE
