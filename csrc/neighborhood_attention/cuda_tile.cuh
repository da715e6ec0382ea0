// How a block works on a tile: 128 threads are teams of kPadded / 8 lanes; a team keeps a few
// stationary rows in registers, 8 elements a lane, while the block stages chunks of streamed rows
// in shared memory. Forward and both backward kernels share this walk; they differ in what is
// stationary and in what a pair of rows contributes.
#pragma once

#include "common/cuda_device.cuh"
#include "neighborhood_attention/cuda_kernel.cuh"

namespace saccade::na {

constexpr int kThreads = 128;
// Shared memory for streamed rows: three blocks fit a multiprocessor from sm_80 on, as do their
// registers.
constexpr int kStagedBytes = 52 * 1024;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

template <int kPadded>
constexpr int kLanes = kPadded / 8;
template <int kPadded>
constexpr int kTeams = kThreads / kLanes<kPadded>;
// One piece of padding turns the rows' common bank into a spread of banks.
template <class T, int kPadded>
constexpr int kRow = kPadded + cuda::kVector<T>;
template <class T, int kPadded>
constexpr int kCapacity = kStagedBytes / (2 * kRow<T, kPadded> * static_cast<int>(sizeof(T)));

__device__ __forceinline__ float negative_infinity() {
  return __int_as_float(static_cast<int>(0xff800000u));
}

// Rows of one batch entry, head and dilation group, addressed by positions in the group.
template <class T>
struct Rows {
  const T* data;
  int64_t step[3];

  __device__ __forceinline__ const T* at(int i0, int i1, int i2) const {
    return data + (i0 * step[0] + i1 * step[1] + i2 * step[2]);
  }
};

template <class T>
__device__ __forceinline__ Rows<T> group_rows(const View& view, const Axis (&axes)[3],
                                              const Site& site, int head) {
  Rows<T> rows;
  int64_t offset = site.batch * view.batch + head * view.head;
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    offset += site.group[a] * view.token[a];
    rows.step[a] = axes[a].dilation * view.token[a];
  }
  rows.data = static_cast<const T*>(view.data) + offset;
  return rows;
}

template <class T>
__device__ __forceinline__ Rows<T> extra_rows(const View& view, int batch, int head) {
  return {static_cast<const T*>(view.data) + (batch * view.batch + head * view.head),
          {0, 0, view.token[2]}};
}

// Number of the row [batch, token, head] in a contiguous tensor; the token is a position of the
// site's dilation group.
__device__ __forceinline__ int64_t row_number(const Problem& p, const Site& site, int heads,
                                              int head, const int (&at)[3]) {
  int64_t row = site.batch;
#pragma unroll
  for (int a = 0; a < 3; ++a)
    row = row * p.axis[a].length + (site.group[a] + at[a] * p.axis[a].dilation);
  return row * heads + head;
}

// What is the same for a whole block lives in shared memory, written by one thread: registers are
// for the inner loop.
template <class T>
struct Block {
  int64_t number;  // of the item that the block works on
  Site site;
  Box whole, chunk;  // streamed rows: all of the tile's, and those that are staged
  int extent[3];     // of a full chunk
  int chunks;
  bool inside;    // the tile lies in its dilation group
  Rows<T> a, b;   // the two streamed tensors
  const T* bias;  // of the head, or null
  // The streamed rows that each coordinate of the tile takes part with: first axis 0's, then axis
  // 1's, then axis 2's.
  Interval reach[kThreads + 2];
};
constexpr int kHeaderBytes = 1536;
static_assert(sizeof(Block<float>) <= kHeaderBytes);

template <class T>
__device__ __forceinline__ bool enter(Block<T>& block, const Tiling& tiling, int heads,
                                      int64_t number) {
  __syncthreads();
  if (threadIdx.x == 0) {
    block.number = number;
    block.inside = locate(tiling, heads, number % tiling.items, block.site);
  }
  __syncthreads();
  return block.inside;
}

// The stationary rows of a team: positions (at[0], at[1], at[2] + r) for r < count.
struct Place {
  int lane, at[3], count;
};

template <int kPadded, int kRows>
__device__ __forceinline__ Place place_team(const Tiling& tiling, const Site& site) {
  Place place;
  place.lane = static_cast<int>(threadIdx.x) % kLanes<kPadded>;
  int team = static_cast<int>(threadIdx.x) / kLanes<kPadded>;
  place.at[2] = site.tile[2].lo + team % tiling.team[2] * kRows;
  team /= tiling.team[2];
  place.at[1] = site.tile[1].lo + team % tiling.team[1];
  place.at[0] = site.tile[0].lo + team / tiling.team[1];
  const bool inside = place.at[0] < site.tile[0].hi && place.at[1] < site.tile[1].hi;
  place.count = inside ? larger(smaller(site.tile[2].hi - place.at[2], kRows), 0) : 0;
  return place;
}

// Copies the chunk's rows of both streamed tensors to shared memory, in row-major order, padded
// with zeros to kPadded.
template <class T, int kPadded>
__device__ __forceinline__ void stage(const Block<T>& block, int dim, bool aligned, T* to_a,
                                      T* to_b) {
  constexpr int pieces = kPadded / cuda::kVector<T>;
  const Box box = block.chunk;
  const int n1 = box.axis[1].size(), n2 = box.axis[2].size();
  const int rows = box.axis[0].size() * n1 * n2;
  const int at = static_cast<int>(threadIdx.x) % pieces * cuda::kVector<T>;
#pragma unroll 1
  for (int row = static_cast<int>(threadIdx.x) / pieces; row < rows; row += kThreads / pieces) {
    const int line = row / n2;
    const int i0 = box.axis[0].lo + line / n1, i1 = box.axis[1].lo + line % n1,
              i2 = box.axis[2].lo + row % n2;
    const T* from_a = block.a.at(i0, i1, i2) + at;
    const T* from_b = block.b.at(i0, i1, i2) + at;
    T* put_a = to_a + row * kRow<T, kPadded> + at;
    T* put_b = to_b + row * kRow<T, kPadded> + at;
    if (aligned && at < dim) {
      cuda::copy_async(put_a, from_a);
      cuda::copy_async(put_b, from_b);
    } else {
#pragma unroll 1
      for (int i = 0; i < cuda::kVector<T>; ++i) {
        put_a[i] = at + i < dim ? from_a[i] : cuda::from_float<T>(0.f);
        put_b[i] = at + i < dim ? from_b[i] : cuda::from_float<T>(0.f);
      }
    }
  }
}

// Stages chunks first, first + step, ... of block.whole one after the other and calls body for
// each.
template <class T, int kPadded, class F>
__device__ __forceinline__ void for_each_chunk(Block<T>& block, const Problem& p, int first,
                                               int step, T* to_a, T* to_b, F body) {
#pragma unroll 1
  for (int c = first; c < block.chunks; c += step) {
    __syncthreads();
    if (threadIdx.x == 0) {
      int rest = c;
#pragma unroll 1
      for (int a = 2; a >= 0; --a) {
        const int count = ceil_div(block.whole.axis[a].size(), block.extent[a]);
        const int lo = block.whole.axis[a].lo + rest % count * block.extent[a];
        block.chunk.axis[a] = {lo, smaller(lo + block.extent[a], block.whole.axis[a].hi)};
        rest /= count;
      }
    }
    __syncthreads();
    stage<T, kPadded>(block, p.dim, p.aligned, to_a, to_b);
    cuda::copy_async_wait();
    __syncthreads();
    body();
  }
}

// kGroup streamed rows that a team takes at a time: row is the first one's number in the chunk,
// offset its position less that of the stationary row whose scores the lane holds. Row j takes part
// with that one if lo <= j < hi; rows beyond last may lie outside the chunk, and last is read in
// their place.
struct Group {
  int row, offset[3], last, lo, hi;
};

// Walks a team over the part of the chunk that its kRows stationary rows take part with, kGroup
// rows of the last axis at a time. All lanes of a warp take the same number of steps, as shuffles
// need; a team that has fewer repeats a staged row.
template <int kPadded, int kRows, int kGroup, class T, class F>
__device__ __forceinline__ void walk(const Block<T>& block, const Tiling& tiling, F body) {
  const Place place = place_team<kPadded, kRows>(tiling, block.site);
  const int own = cuda::Owner<kRows * kGroup, kLanes<kPadded>>::first(place.lane) / kGroup;
  int lo[3], n[3], most[3], offset[3];
  bool any = place.count > 0;
  const Interval* reach = block.reach;
  Interval column{0, 0};
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    lo[a] = n[a] = 0;
    if (place.count > 0) {
      const Interval* first = reach + (place.at[a] - block.site.tile[a].lo);
      lo[a] = larger(block.chunk.axis[a].lo, first->lo);
      n[a] = smaller(block.chunk.axis[a].hi, first[a == 2 ? place.count - 1 : 0].hi) - lo[a];
      if (a == 2 && own < place.count) column = first[own];
    }
    any = any && n[a] > 0;
    reach += tiling.extent[a];
  }
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    lo[a] = any ? lo[a] : block.chunk.axis[a].lo;
    n[a] = any ? n[a] : 1;
    most[a] =
        static_cast<int>(__reduce_max_sync(cuda::kFullWarp, static_cast<unsigned>(any ? n[a] : 0)));
  }
  const int n1 = block.chunk.axis[1].size(), n2 = block.chunk.axis[2].size();
  const int corner =
      ((lo[0] - block.chunk.axis[0].lo) * n1 + (lo[1] - block.chunk.axis[1].lo)) * n2 +
      (lo[2] - block.chunk.axis[2].lo);
#pragma unroll
  for (int a = 0; a < 3; ++a) offset[a] = lo[a] - place.at[a] - (a == 2 ? own : 0);
  column.lo -= lo[2];
  column.hi -= lo[2];
#pragma unroll 1
  for (int i0 = 0; i0 < most[0]; ++i0) {
#pragma unroll 1
    for (int i1 = 0; i1 < most[1]; ++i1) {
      const bool inside = any && i0 < n[0] && i1 < n[1];
      const int j0 = smaller(i0, n[0] - 1), j1 = smaller(i1, n[1] - 1);
#pragma unroll 1
      for (int i2 = 0; i2 < most[2]; i2 += kGroup) {
        const int j2 = smaller(i2, n[2] - 1);
        Group group;
        group.row = corner + (j0 * n1 + j1) * n2 + j2;
        group.offset[0] = offset[0] + j0;
        group.offset[1] = offset[1] + j1;
        group.offset[2] = offset[2] + j2;
        group.last = larger(smaller(n[2] - 1 - i2, kGroup - 1), 0);
        group.lo = column.lo - j2;
        group.hi = inside ? smaller(column.hi - j2, n[2] - i2) : 0;
        body(group);
      }
    }
  }
}

template <class T, int kPadded, int kRows>
__device__ __forceinline__ void load_stationary(const Problem& p, const View& view,
                                                const Tiling& tiling, const Site& site,
                                                float (&x)[kRows][8]) {
  const Place place = place_team<kPadded, kRows>(tiling, site);
  const Rows<T> rows = group_rows<T>(view, p.axis, site, site.head);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[r][i] = 0.f;
    if (r < place.count) {
      const T* row = rows.at(place.at[0], place.at[1], place.at[2] + r);
      cuda::load_global<T, kPadded>(row, place.lane, p.dim, p.aligned, x[r]);
    }
  }
}

template <class T>
__device__ __forceinline__ const T* head_bias(const Problem& p, int head, bool extra) {
  return extra || p.bias == nullptr ? nullptr
                                    : static_cast<const T*>(p.bias) + head * p.bias_entries();
}

// Fills block.reach; interval(a, i) is the streamed rows of coordinate i of axis a.
template <class T, class F>
__device__ __forceinline__ void fill_reach(Block<T>& block, const Tiling& tiling, F interval) {
  const int total = tiling.extent[0] + tiling.extent[1] + tiling.extent[2];
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < total; i += kThreads) {
    int a = 0, local = i;
    while (local >= tiling.extent[a]) local -= tiling.extent[a++];
    block.reach[i] = interval(a, smaller(block.site.tile[a].lo + local, block.site.tile[a].hi - 1));
  }
}

// Prepares a block for streaming the keys and values that its tile of queries attends to: those of
// the windows, or the additional ones.
template <class T>
__device__ __forceinline__ void stream_keys(Block<T>& block, const Problem& p, const Tiling& tiling,
                                            bool extra) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const int head = block.site.head / (p.heads / p.kv_heads);
    block.bias = head_bias<T>(p, block.site.head, extra);
    block.chunks = 1;
#pragma unroll 1
    for (int a = 0; a < 3; ++a) {
      const Interval all = {0, a == 2 ? p.extra : 1};
      block.whole.axis[a] =
          extra ? all : window_union(p.axis[a], block.site.length[a], block.site.tile[a]);
      block.extent[a] = extra ? smaller(all.hi, tiling.rows) : tiling.chunk[a];
      block.chunks *= ceil_div(block.whole.axis[a].size(), block.extent[a]);
    }
    if (extra) {
      block.a = extra_rows<T>(p.extra_key, block.site.batch, head);
      block.b = extra_rows<T>(p.extra_value, block.site.batch, head);
    } else {
      block.a = group_rows<T>(p.key, p.axis, block.site, head);
      block.b = group_rows<T>(p.value, p.axis, block.site, head);
    }
  }
  fill_reach(block, tiling, [&](int a, int at) {
    return extra ? Interval{0, a == 2 ? p.extra : 1} : window(p.axis[a], block.site.length[a], at);
  });
  __syncthreads();
}

// Index of the offset (key - query) in a head's bias table.
__device__ __forceinline__ int bias_index(const Axis (&axes)[3], int o0, int o1, int o2) {
  const int line = (o0 + axes[0].kernel - 1) * (2 * axes[1].kernel - 1) + (o1 + axes[1].kernel - 1);
  return line * (2 * axes[2].kernel - 1) + (o2 + axes[2].kernel - 1);
}

// Sums over a team of the inner products of kRows stationary rows with the kGroup streamed rows of
// a group, by cuda::Owner.
template <class T, int kPadded, int kGroup, int kRows>
__device__ __forceinline__ void products(const float (&x)[kRows][8], const T* staged,
                                         const Group& group, int lane,
                                         float (&sum)[kRows * kGroup]) {
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    float y[8];
    cuda::load_shared<T, kPadded>(staged + (group.row + smaller(j, group.last)) * kRow<T, kPadded>,
                                  lane, y);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float s = 0.f;
#pragma unroll
      for (int i = 0; i < 8; ++i) s = fmaf(x[r][i], y[i], s);
      sum[r * kGroup + j] = s;
    }
  }
  cuda::team_reduce<kRows * kGroup, kLanes<kPadded>>(sum, lane);
}

// acc[r] += weight(r, j) * streamed row j, the weights held by cuda::Owner. A weight of zero adds
// nothing, whatever the row holds: a row outside a query's window must not reach it, not even a
// NaN.
template <class T, int kPadded, int kGroup, int kRows, int kOwned>
__device__ __forceinline__ void accumulate(const float (&weight)[kOwned], const T* staged,
                                           const Group& group, int lane, float (&acc)[kRows][8]) {
  using Owned = cuda::Owner<kRows * kGroup, kLanes<kPadded>>;
#pragma unroll
  for (int j = 0; j < kGroup; ++j) {
    float y[8];
    cuda::load_shared<T, kPadded>(staged + (group.row + smaller(j, group.last)) * kRow<T, kPadded>,
                                  lane, y);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = r * kGroup + j;
      const float w =
          __shfl_sync(cuda::kFullWarp, weight[i % kOwned], Owned::lane_of(i), kLanes<kPadded>);
      if (w != 0.f) {
#pragma unroll
        for (int e = 0; e < 8; ++e) acc[r][e] = fmaf(w, y[e], acc[r][e]);
      }
    }
  }
}

// Kernels are instantiated for three number types and four padded widths.
template <class T, int kPadded>
struct Case {};

template <class T, class F>
cudaError_t dispatch_width(int dim, F run) {
  if (dim <= 32) return run(Case<T, 32>{});
  if (dim <= 64) return run(Case<T, 64>{});
  if (dim <= 128) return run(Case<T, 128>{});
  return run(Case<T, 256>{});
}

template <class F>
cudaError_t dispatch(const Problem& p, F run) {
  if (p.dtype == Dtype::kHalf) return dispatch_width<__half>(p.dim, run);
  if (p.dtype == Dtype::kBfloat16) return dispatch_width<__nv_bfloat16>(p.dim, run);
  return dispatch_width<float>(p.dim, run);
}

// Blocks stride over the items beyond what a grid can hold.
inline int64_t most_blocks(int64_t items) { return items < 0x7fffffff ? items : 0x7fffffff; }

}  // namespace saccade::na
