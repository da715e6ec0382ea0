// The transport problem of integer masses by the network simplex method, all in float64.
//
// A basis is a spanning tree of rows and columns; every edge carries mass from its row to its
// column. Trees are strongly feasible (Cunningham, Mathematical Programming 11, 1976): every node
// could send a little more to the root, so an edge without flow has its row below its column. Flows
// are integers, so this is kept exactly and no sequence of pivots repeats. The first tree comes
// from the cheapest column of each row after the columns' minima are taken off.
#pragma once

#include "transport/cpu_team.inl"

namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE {

constexpr int32_t kRowsABlock = 1;
constexpr int32_t kRecomputations = 8;

// Nodes are n rows, then m columns; none has mass 0, and the masses of both sides sum to the same.
struct Network {
  int32_t n, m, ld;
  const double* cost;  // [n, ld], infinite from m on
  const int64_t* supply;
  const int64_t* demand;
  double* f;          // [n]
  double* g;          // [ld]
  double* open;       // [ld]
  int64_t* left;      // [n + m] mass that the first tree has not placed
  int32_t* spare;     // [n + m] its part without size: what a node could send, in nodes
  int32_t* parent;    // [n + m]
  int64_t* flow;      // [n + m] on the edge to the parent
  int32_t* depth;     // [n + m]
  int32_t* child;     // [n + m] the first one, -1: none
  int32_t* next;      // [n + m] siblings
  int32_t* previous;  // [n + m]
  int32_t* stack;     // [n + m]
  int32_t* edge_row;  // [n + m] of the first tree
  int32_t* edge_column;
  int32_t* first_edge;  // [n + m] lists of a node's edges, in `link`
  int32_t* link;        // [2 (n + m)]
};

inline void adopt(const Network& w, int32_t node, int32_t parent) {
  w.parent[node] = parent;
  w.previous[node] = -1;
  w.next[node] = w.child[parent];
  if (w.child[parent] >= 0) w.previous[w.child[parent]] = node;
  w.child[parent] = node;
}

inline void abandon(const Network& w, int32_t node) {
  if (w.previous[node] >= 0) {
    w.next[w.previous[node]] = w.next[node];
  } else {
    w.child[w.parent[node]] = w.next[node];
  }
  if (w.next[node] >= 0) w.previous[w.next[node]] = w.previous[node];
}

// The smallest cost - off of a row.
inline double smallest(const double* cost, const double* off, int32_t ld) {
  constexpr int32_t W = kWidth<double>;
  Vec<double> least = broadcast(kInfinity), other = least;
  int32_t j = 0;
  for (; j + W < ld; j += 2 * W) {
    least = min<double>(least, load(cost + j) - load(off + j));
    other = min<double>(other, load(cost + j + W) - load(off + j + W));
  }
  if (j < ld) least = min<double>(least, load(cost + j) - load(off + j));
  return horizontal_min<double>(min<double>(least, other));
}

// The first column where it has this value, which is there.
inline int32_t find(const double* cost, const double* off, int32_t ld, double value) {
  constexpr int32_t W = kWidth<double>;
  for (int32_t j = 0; j < ld; j += W) {
    if (!any<double>(load(cost + j) - load(off + j) == broadcast(value))) continue;
    for (int32_t k = j; k < j + W; ++k) {
      if (cost[k] - off[k] == value) return k;
    }
  }
  return -1;
}

// The first tree's edges and their flows; an edge for each exhausted node but the last.
inline int32_t first_edges(const Network& w, int64_t* amount) {
  constexpr int32_t W = kWidth<double>;
  const int32_t nodes = w.n + w.m, root = nodes - 1;
  for (int32_t j = 0; j < w.ld; j += W) store(w.open + j, broadcast(kInfinity));
  for (int32_t i = 0; i < w.n; ++i) {
    const double* const cost = w.cost + int64_t{i} * w.ld;
    for (int32_t j = 0; j < w.ld; j += W) {
      store(w.open + j, min<double>(load(w.open + j), load(cost + j)));
    }
  }
  for (int32_t j = w.m; j < w.ld; ++j) w.open[j] = 0.0;
  for (int32_t k = 0; k < nodes; ++k) {
    w.left[k] = k < w.n ? w.supply[k] : w.demand[k - w.n];
    w.spare[k] = k < w.n ? 1 : k == root ? nodes - 1 : -1;
  }
  int32_t count = 0;
  for (int32_t i = 0; i < w.n; ++i) {
    for (;;) {
      const double* const cost = w.cost + int64_t{i} * w.ld;
      const int32_t j = find(cost, w.open, w.ld, smallest(cost, w.open, w.ld));
      const int32_t c = w.n + j;
      const bool row_ends =
          w.left[i] != w.left[c] ? w.left[i] < w.left[c] : w.spare[i] <= w.spare[c];
      const int64_t size = row_ends ? w.left[i] : w.left[c];
      const int32_t part = row_ends ? w.spare[i] : w.spare[c];
      w.edge_row[count] = i;
      w.edge_column[count] = c;
      amount[count++] = size;
      w.left[i] -= size;
      w.left[c] -= size;
      w.spare[i] -= part;
      w.spare[c] -= part;
      if (row_ends) break;
      w.open[j] = -kInfinity;
    }
  }
  return count;
}

// f and g from the tree, root first, so that they add up to the costs of its edges.
inline void potentials(const Network& w) {
  const int32_t root = w.n + w.m - 1;
  int32_t top = 0;
  w.g[root - w.n] = 0.0;
  w.depth[root] = 0;
  w.stack[top++] = root;
  while (top > 0) {
    const int32_t node = w.stack[--top];
    for (int32_t k = w.child[node]; k >= 0; k = w.next[k]) {
      w.depth[k] = w.depth[node] + 1;
      if (k < w.n) {
        w.f[k] = w.cost[int64_t{k} * w.ld + (node - w.n)] - w.g[node - w.n];
      } else {
        w.g[k - w.n] = w.cost[int64_t{node} * w.ld + (k - w.n)] - w.f[node];
      }
      w.stack[top++] = k;
    }
  }
}

// Hangs the first edges from the last column.
inline void first_tree(const Network& w) {
  const int32_t nodes = w.n + w.m, root = nodes - 1;
  // flows of edges, until they move to the nodes; `left` is free by then
  int64_t* const amount = w.flow;
  const int32_t count = first_edges(w, amount);
  for (int32_t k = 0; k < nodes; ++k) {
    w.first_edge[k] = -1;
    w.child[k] = -1;
    w.parent[k] = -1;
  }
  for (int32_t e = 0; e < count; ++e) {
    w.link[2 * e] = w.first_edge[w.edge_row[e]];
    w.first_edge[w.edge_row[e]] = 2 * e;
    w.link[2 * e + 1] = w.first_edge[w.edge_column[e]];
    w.first_edge[w.edge_column[e]] = 2 * e + 1;
  }
  int32_t top = 0;
  w.stack[top++] = root;
  while (top > 0) {
    const int32_t node = w.stack[--top];
    for (int32_t k = w.first_edge[node]; k >= 0; k = w.link[k]) {
      const int32_t other = k % 2 == 0 ? w.edge_column[k / 2] : w.edge_row[k / 2];
      if (other == w.parent[node]) continue;
      adopt(w, other, node);
      w.left[other] = amount[k / 2];
      w.stack[top++] = other;
    }
  }
  w.left[root] = 0;
  for (int32_t k = 0; k < nodes; ++k) w.flow[k] = w.left[k];
  // infinity from a number that nobody set is perhaps none
  for (int32_t j = w.m; j < w.ld; ++j) w.g[j] = 0.0;
  potentials(w);
}

// Lets edge (row, column) in, whose reduced cost is given.
inline void pivot(const Network& w, int32_t row, int32_t column, double reduced) {
  int32_t a = row, b = column;
  // towards the root on both sides: a row's edge loses flow on the row's side, a column's on the
  // column's; of equal ones the last on the way down to the row and up from the column leaves
  int64_t row_step = INT64_MAX, column_step = INT64_MAX;
  int32_t row_leaving = -1, column_leaving = -1;
  while (a != b) {
    if (w.depth[a] >= w.depth[b]) {
      if (a < w.n && w.flow[a] < row_step) {
        row_step = w.flow[a];
        row_leaving = a;
      }
      a = w.parent[a];
    } else {
      if (b >= w.n && w.flow[b] <= column_step) {
        column_step = w.flow[b];
        column_leaving = b;
      }
      b = w.parent[b];
    }
  }
  const bool below_row = row_step < column_step;
  const int64_t step = below_row ? row_step : column_step;
  const int32_t leaving = below_row ? row_leaving : column_leaving, join = a;
  if (step > 0) {
    for (int32_t k = row; k != join; k = w.parent[k]) w.flow[k] += k < w.n ? -step : step;
    for (int32_t k = column; k != join; k = w.parent[k]) w.flow[k] += k < w.n ? step : -step;
  }
  // the part that is cut off hangs from the new edge: its edges to that end turn round
  const int32_t top = below_row ? row : column;
  int32_t node = top, parent = below_row ? column : row;
  int64_t flow = step;
  for (;;) {
    const int32_t up = w.parent[node];
    const int64_t up_flow = w.flow[node];
    abandon(w, node);
    adopt(w, node, parent);
    w.flow[node] = flow;
    if (node == leaving) break;
    parent = node;
    node = up;
    flow = up_flow;
  }
  const double of_row = below_row ? reduced : -reduced;
  int32_t count = 0;
  w.stack[count++] = top;
  w.depth[top] = w.depth[w.parent[top]] + 1;
  while (count > 0) {
    const int32_t k = w.stack[--count];
    if (k < w.n) {
      w.f[k] += of_row;
    } else {
      w.g[k - w.n] -= of_row;
    }
    const int32_t depth = w.depth[k] + 1;
    for (int32_t c = w.child[k]; c >= 0; c = w.next[c]) {
      w.depth[c] = depth;
      w.stack[count++] = c;
    }
  }
}

// Pivots until no edge is cheaper than f + g by more than `tolerance`; returns how many were made,
// or -1 - that where `most` did not do.
inline int64_t simplex(const Network& w, double tolerance, int64_t most) {
  first_tree(w);
  // rows in turn, the best edge of a block of them
  const int32_t block = kRowsABlock < w.n ? kRowsABlock : w.n;
  int64_t pivots = 0;
  bool fresh = true;
  int32_t at = 0, quiet = 0, rounds = 0;
  for (;;) {
    double best = -tolerance;
    double least = 0.0;
    int32_t row = -1;
    for (int32_t k = 0; k < block; ++k) {
      const double value = smallest(w.cost + int64_t{at} * w.ld, w.g, w.ld);
      if (value - w.f[at] < best) {
        best = value - w.f[at];
        least = value;
        row = at;
      }
      at = at + 1 == w.n ? 0 : at + 1;
    }
    if (row >= 0) {
      if (pivots == most) return -1 - pivots;
      const int32_t column = find(w.cost + int64_t{row} * w.ld, w.g, w.ld, least);
      pivot(w, row, w.n + column, best);
      ++pivots;
      quiet = 0;
      fresh = false;
      continue;
    }
    quiet += block;
    if (quiet < w.n) continue;
    if (fresh) return pivots;
    // sums of many changes have rounded: once more from the tree itself
    potentials(w);
    if (++rounds == kRecomputations) return pivots;
    fresh = true;
    quiet = 0;
  }
}

}  // namespace saccade::transport::exact::SACCADE_ISA_NAMESPACE
