// Index arithmetic of neighborhood attention: windows, their inverses, boxes, and the cutting of a
// problem into tiles. All of it runs on the host too, where tests compare it with the definition.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SACCADE_HD __host__ __device__ __forceinline__
#else
#define SACCADE_HD inline
#endif

namespace saccade::na {

// One spatial axis; problems of one or two dimensions are lifted to three by leading axes of
// length 1.
struct Axis {
  int length, kernel, stride, dilation, causal;
};

// Half-open [lo, hi).
struct Interval {
  int lo, hi;
  SACCADE_HD int size() const { return hi - lo; }
};

struct Box {
  Interval axis[3];
};

SACCADE_HD int smaller(int a, int b) { return a < b ? a : b; }
SACCADE_HD int larger(int a, int b) { return a > b ? a : b; }
SACCADE_HD int ceil_div(int a, int b) { return a / b + (a % b > 0 ? 1 : 0); }

SACCADE_HD int group_length(const Axis& axis, int group) {
  return axis.length / axis.dilation + (group < axis.length % axis.dilation ? 1 : 0);
}

// The keys that the query at position p of a dilation group of length n attends to.
SACCADE_HD Interval window(const Axis& axis, int n, int p) {
  const int first = p / axis.stride * axis.stride;
  if (axis.causal) {
    const int leader = smaller(first + axis.stride - 1, n - 1);
    return {larger(leader - axis.kernel + 1, 0), p + 1};
  }
  const int leader = smaller(first + axis.stride / 2, n - 1);
  const int start = larger(smaller(leader - axis.kernel / 2, n - axis.kernel), 0);
  return {start, start + axis.kernel};
}

// The queries that attend to the key at position j: an interval, because both ends of a window
// never decrease with p.
SACCADE_HD Interval visitors(const Axis& axis, int n, int j) {
  const int reach = axis.causal ? axis.kernel - 1 : axis.kernel / 2;
  const int lead = axis.causal ? axis.stride - 1 : axis.stride / 2;
  int first = j;
  if (!axis.causal) {
    // start(p) > j - kernel, which asks the leader of p's stride group to be at least `leader`.
    const int leader = j - axis.kernel + 1 + axis.kernel / 2;
    first = j < axis.kernel ? 0 : larger(ceil_div(leader - lead, axis.stride), 0) * axis.stride;
  }
  int last = n - 1;
  if (j < n - axis.kernel) {
    last = smaller((j + reach - lead) / axis.stride * axis.stride + axis.stride - 1, n - 1);
  }
  return {first, last + 1};
}

// Union over consecutive positions; the same lemma makes it reach from the first one's start to the
// last one's end.
SACCADE_HD Interval window_union(const Axis& axis, int n, Interval queries) {
  return {window(axis, n, queries.lo).lo, window(axis, n, queries.hi - 1).hi};
}

SACCADE_HD Interval visitor_union(const Axis& axis, int n, Interval keys) {
  return {visitors(axis, n, keys.lo).lo, visitors(axis, n, keys.hi - 1).hi};
}

// How a kernel cuts its work. A block owns a tile of stationary rows (queries, or keys in the
// backward of keys) and walks over chunks of streamed rows, which fit in shared memory.
struct Tiling {
  Axis axis[3];   // of the stationary rows
  int team[3];    // teams of lanes along each axis
  int extent[3];  // stationary rows along each axis
  int count[3];   // tiles along each axis of a dilation group
  int chunk[3];   // streamed rows along each axis that are staged together
  int rows;       // streamed rows that shared memory holds
  int64_t items;  // tiles of all batch entries, heads and dilation groups
};

// A tile's place: which batch entry, head and dilation group, and its rows in the group's
// coordinates.
struct Site {
  int batch, head;
  int group[3], length[3];
  Interval tile[3];
};

// False where the tile lies beyond a shorter dilation group. Heads are innermost: neighbours in
// memory run side by side.
SACCADE_HD bool locate(const Tiling& tiling, int heads, int64_t item, Site& site) {
  site.head = static_cast<int>(item % heads);
  item /= heads;
  int64_t rest = item / tiling.count[0] / tiling.count[1] / tiling.count[2];
#pragma unroll 1
  for (int a = 2; a >= 0; --a) {
    site.group[a] = static_cast<int>(rest % tiling.axis[a].dilation);
    rest /= tiling.axis[a].dilation;
  }
  site.batch = static_cast<int>(rest);
  bool inside = true;
#pragma unroll 1
  for (int a = 2; a >= 0; --a) {
    site.length[a] = group_length(tiling.axis[a], site.group[a]);
    site.tile[a].lo = static_cast<int>(item % tiling.count[a]) * tiling.extent[a];
    site.tile[a].hi = smaller(site.tile[a].lo + tiling.extent[a], site.length[a]);
    inside = inside && site.tile[a].lo < site.tile[a].hi;
    item /= tiling.count[a];
  }
  return inside;
}

inline int balanced(int total, int most) {
  return ceil_div(total, ceil_div(total, larger(most, 1)));
}

// The largest box of at most `capacity` streamed rows, cut so that the chunks of an axis are
// equally long.
inline void fit_chunk(const int (&reach)[3], int capacity, int (&chunk)[3]) {
  for (int a = 2; a >= 0; --a) {
    chunk[a] = balanced(reach[a], smaller(reach[a], capacity));
    capacity = larger(capacity / chunk[a], 1);
  }
}

// Chooses the tile among the power-of-two shapes of `teams` teams, each with `rows` rows along the
// last axis, by staged plus visited rows summed over all tiles. Every team's work is the same, so a
// tile costs the same however much of it is used. `extra` rows are streamed after the tile's own,
// as many at a time as fit.
inline Tiling make_tiling(const Axis (&axes)[3], int teams, int rows, int capacity, int64_t batch,
                          int heads, int extra) {
  Tiling best{};
  double best_cost = -1.0;
  for (int first = 1; first <= teams; first *= 2) {
    for (int second = 1; first * second <= teams; second *= 2) {
      Tiling tiling{};
      const int team[3] = {first, second, teams / first / second};
      int reach[3];
      double tiles = 1.0, staged = 1.0, visited = 1.0;
      int64_t items = batch * heads;
      for (int a = 0; a < 3; ++a) {
        tiling.axis[a] = axes[a];
        const int longest = ceil_div(axes[a].length, axes[a].dilation);
        const int width = a == 2 ? rows : 1;
        tiling.team[a] = team[a];
        tiling.extent[a] = team[a] * width;
        tiling.count[a] = ceil_div(longest, tiling.extent[a]);
        reach[a] = smaller(longest, axes[a].kernel + tiling.extent[a] + axes[a].stride - 2);
        tiles *= tiling.count[a];
        staged *= reach[a];
        visited *= smaller(longest, axes[a].kernel + width - 1);
        items *= int64_t{tiling.count[a]} * axes[a].dilation;
      }
      const double cost = tiles * (staged + visited);
      if (best_cost < 0.0 || cost <= best_cost) {
        fit_chunk(reach, capacity, tiling.chunk);
        tiling.rows =
            larger(tiling.chunk[0] * tiling.chunk[1] * tiling.chunk[2], smaller(extra, capacity));
        tiling.items = items;
        best = tiling;
        best_cost = cost;
      }
    }
  }
  return best;
}

}  // namespace saccade::na
