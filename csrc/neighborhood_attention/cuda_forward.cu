// Forward. A block owns a box of queries of one batch entry, head and dilation group; keys and
// values of the union of their windows come straight from heads-last memory into shared memory,
// once a tile when the windows are small (the whole union is one chunk), chunk by chunk when they
// are large. A team of lanes holds four neighbouring queries, so a staged row is read once for four
// of them, and only rows of their own windows are visited. Softmax is online; a score lives in a
// register of one lane. Global traffic: queries, outputs and lse once, keys and values once a tile
// that sees them.
#include "neighborhood_attention/cuda_tile.cuh"

namespace saccade::na {
namespace {

constexpr int kGroup = 4;
constexpr int kRows = 4;

template <class T, int kPadded>
__global__ void __launch_bounds__(kThreads, 3)
    forward_kernel(const __grid_constant__ Forward f, const __grid_constant__ Tiling tiling) {
  constexpr int lanes = kLanes<kPadded>;
  using Owned = cuda::Owner<kRows * kGroup, lanes>;
  constexpr int kOwned = Owned::kOwned;
  constexpr int sharing = lanes / kRows;  // lanes that hold scores of the same query
  const Problem& p = f.problem;
  Block<T>& block = *cuda::dynamic_shared<Block<T>>();
  T* const keys = cuda::dynamic_shared<T>() + kHeaderBytes / sizeof(T);
  T* const values = keys + tiling.rows * kRow<T, kPadded>;
  const float scale = p.scale * kLog2E;
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int own_row = Owned::first(lane) % kGroup;

  for (int64_t item = blockIdx.x; item < tiling.items; item = block.number + gridDim.x) {
    if (!enter(block, tiling, p.heads, item)) continue;
    float query[kRows][8], acc[kRows][8];
    load_stationary<T, kPadded>(p, p.query, tiling, block.site, query);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 8; ++i) acc[r][i] = 0.f;
    }
    float top = negative_infinity(), total = 0.f;

#pragma unroll 1
    for (int pass = 0; pass < (p.extra > 0 ? 2 : 1); ++pass) {
      stream_keys(block, p, tiling, pass == 1);
      for_each_chunk<T, kPadded>(block, p, 0, 1, keys, values, [&] {
        walk<kPadded, kRows, kGroup>(block, tiling, [&](const Group& group) {
          float score[kRows * kGroup], weight[kOwned];
          products<T, kPadded, kGroup>(query, keys, group, lane, score);
          float most = top;
#pragma unroll
          for (int v = 0; v < kOwned; ++v) {
            const int j = own_row + v;
            weight[v] = negative_infinity();
            if (j >= group.lo && j < group.hi) {
              weight[v] = score[v] * scale;
              if (block.bias != nullptr) {
                const int index =
                    bias_index(p.axis, group.offset[0], group.offset[1], group.offset[2] + j);
                weight[v] += cuda::to_float(block.bias[index]) * kLog2E;
              }
            }
            most = fmaxf(most, weight[v]);
          }
          most = cuda::lanes_reduce<1, sharing>(most, [](float a, float b) { return fmaxf(a, b); });
          const float from = most == negative_infinity() ? 0.f : most;
          const float shrink = exp2f(top - from);
          top = most;
          total *= shrink;
#pragma unroll
          for (int v = 0; v < kOwned; ++v) {
            weight[v] = exp2f(weight[v] - from);
            total += weight[v];
          }
          if (__any_sync(cuda::kFullWarp, shrink != 1.f)) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              const float factor = __shfl_sync(cuda::kFullWarp, shrink, r * sharing, lanes);
#pragma unroll
              for (int i = 0; i < 8; ++i) acc[r][i] *= factor;
            }
          }
          accumulate<T, kPadded, kGroup>(weight, values, group, lane, acc);
        });
      });
    }

    total =
        cuda::lanes_reduce<Owned::kCopies, sharing>(total, [](float a, float b) { return a + b; });
    const Place place = place_team<kPadded, kRows>(tiling, block.site);
    const float lse = (top + log2f(total)) * kLn2;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float factor = 1.f / __shfl_sync(cuda::kFullWarp, total, r * sharing, lanes);
      const float row_lse = __shfl_sync(cuda::kFullWarp, lse, r * sharing, lanes);
      if (r >= place.count) continue;
      const int at[3] = {place.at[0], place.at[1], place.at[2] + r};
      const int64_t row = row_number(p, block.site, p.heads, block.site.head, at);
#pragma unroll
      for (int i = 0; i < 8; ++i) acc[r][i] *= factor;
      cuda::store_global<T, T, kPadded>(static_cast<T*>(f.out) + row * p.dim, lane, p.dim, acc[r]);
      if (lane == 0) f.lse[row] = row_lse;
    }
  }
}

template <class T, int kPadded>
cudaError_t run(const Forward& f, cudaStream_t stream) {
  const Problem& p = f.problem;
  const Tiling tiling =
      make_tiling(p.axis, kTeams<kPadded>, kRows, kCapacity<T, kPadded>, p.batch, p.heads, p.extra);
  const size_t shared = kHeaderBytes + 2 * sizeof(T) * kRow<T, kPadded> * tiling.rows;
  return cuda::launch(forward_kernel<T, kPadded>, most_blocks(tiling.items), kThreads, shared,
                      stream, f, tiling);
}

}  // namespace

cudaError_t forward(const Forward& f, cudaStream_t stream) {
  return dispatch(f.problem, [&]<class T, int kPadded>(Case<T, kPadded>) {
    return run<T, kPadded>(f, stream);
  });
}

}  // namespace saccade::na
