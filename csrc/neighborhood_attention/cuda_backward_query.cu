// Backward of the queries. Blocks, tiles and staging as in the forward; a team holds two queries
// with their output gradients, recomputes the probabilities from lse, and gathers grad_query. delta
// = rowsum(grad_out * out) - grad_lse is written for the backward of the keys. With a bias, the
// block also keeps the score gradients of a chunk in shared memory, and each entry of the bias
// table is summed by one thread over the pairs that share it, in a fixed order, into the block's
// own slot: no atomics.
#include "neighborhood_attention/cuda_tile.cuh"

namespace saccade::na {
namespace {

constexpr int kGroup = 4;
constexpr int kRows = 2;
constexpr int kScoreBytes = 32 * 1024;  // score gradients of a chunk, with a bias only

// Adds the chunk's score gradients, [query of the tile][row of the chunk], to the block's slot of
// the bias gradient. Entries that the chunk can touch form a box of offsets key - query; a pair of
// the box that is no attended pair holds zero.
template <class T>
__device__ __forceinline__ void add_bias_gradient(const Block<T>& block, const Axis (&axes)[3],
                                                  const Tiling& tiling, const float* scores,
                                                  float* slot) {
  Interval offset[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const Interval tile = block.site.tile[a], chunk = block.chunk.axis[a];
    offset[a].lo = larger(chunk.lo - (tile.hi - 1), 1 - axes[a].kernel);
    offset[a].hi = smaller(chunk.hi - tile.lo, axes[a].kernel);
  }
  const int n1 = larger(offset[1].size(), 0), n2 = larger(offset[2].size(), 0);
  const int entries = larger(offset[0].size(), 0) * n1 * n2;
#pragma unroll 1
  for (int entry = static_cast<int>(threadIdx.x); entry < entries; entry += kThreads) {
    const int o[3] = {offset[0].lo + entry / n2 / n1, offset[1].lo + entry / n2 % n1,
                      offset[2].lo + entry % n2};
    Interval query[3];
#pragma unroll
    for (int a = 0; a < 3; ++a) {
      query[a].lo = larger(block.site.tile[a].lo, block.chunk.axis[a].lo - o[a]);
      query[a].hi = smaller(block.site.tile[a].hi, block.chunk.axis[a].hi - o[a]);
    }
    float sum = 0.f;
    for (int q0 = query[0].lo; q0 < query[0].hi; ++q0) {
      for (int q1 = query[1].lo; q1 < query[1].hi; ++q1) {
        int from = (q0 - block.site.tile[0].lo) * tiling.extent[1] + (q1 - block.site.tile[1].lo);
        from = from * tiling.extent[2] + (query[2].lo - block.site.tile[2].lo);
        int key = (q0 + o[0] - block.chunk.axis[0].lo) * block.chunk.axis[1].size() +
                  (q1 + o[1] - block.chunk.axis[1].lo);
        key = key * block.chunk.axis[2].size() + (query[2].lo + o[2] - block.chunk.axis[2].lo);
#pragma unroll 1
        for (int q2 = query[2].lo; q2 < query[2].hi; ++q2, ++from, ++key)
          sum += scores[from * tiling.rows + key];
      }
    }
    slot[bias_index(axes, o[0], o[1], o[2])] += sum;
  }
}

template <class T, int kPadded>
__global__ void __launch_bounds__(kThreads, 3)
    backward_query_kernel(const __grid_constant__ Backward b,
                          const __grid_constant__ Tiling tiling) {
  constexpr int lanes = kLanes<kPadded>;
  using Owned = cuda::Owner<kRows * kGroup, lanes>;
  constexpr int kOwned = Owned::kOwned;
  const Problem& p = b.problem;
  Block<T>& block = *cuda::dynamic_shared<Block<T>>();
  T* const keys = cuda::dynamic_shared<T>() + kHeaderBytes / sizeof(T);
  T* const values = keys + tiling.rows * kRow<T, kPadded>;
  float* const scores = reinterpret_cast<float*>(values + tiling.rows * kRow<T, kPadded>);
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int own = Owned::first(lane) / kGroup, own_row = Owned::first(lane) % kGroup;
  // Teams and their rows are in the row-major order of the tile.
  const int stored = (static_cast<int>(threadIdx.x) / lanes * kRows + own) * tiling.rows;
  const bool primary = static_cast<int>(threadIdx.x) % Owned::kCopies == 0;
  const float scale = p.scale * kLog2E;
  float* const slot =
      b.bias_slots == nullptr ? nullptr : b.bias_slots + blockIdx.x * p.bias_entries();
  if (slot != nullptr) {
    for (int64_t i = threadIdx.x; i < p.bias_entries(); i += kThreads) slot[i] = 0.f;
  }

  for (int64_t item = blockIdx.x; item < tiling.items; item = block.number + gridDim.x) {
    if (!enter(block, tiling, p.heads, item)) continue;
    float query[kRows][8], grad_out[kRows][8], grad_query[kRows][8];
    load_stationary<T, kPadded>(p, b.grad_out, tiling, block.site, grad_out);
    load_stationary<T, kPadded>(p, b.out, tiling, block.site, query);
    Place place = place_team<kPadded, kRows>(tiling, block.site);
    float lse = 0.f, delta = 0.f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sum = fmaf(grad_out[r][i], query[r][i], sum);
        grad_query[r][i] = 0.f;
      }
      sum = cuda::lanes_reduce<1, lanes>(sum, [](float x, float y) { return x + y; });
      if (r >= place.count) continue;
      const int at[3] = {place.at[0], place.at[1], place.at[2] + r};
      const int64_t row = row_number(p, block.site, p.heads, block.site.head, at);
      sum -= b.grad_lse[row];
      if (lane == 0) b.delta[row] = sum;
      if (r == own) {
        delta = sum;
        lse = b.lse[row] * kLog2E;
      }
    }
    load_stationary<T, kPadded>(p, p.query, tiling, block.site, query);

#pragma unroll 1
    for (int pass = 0; pass < (p.extra > 0 ? 2 : 1); ++pass) {
      stream_keys(block, p, tiling, pass == 1);
      for_each_chunk<T, kPadded>(block, p, 0, 1, keys, values, [&] {
        if (block.bias != nullptr) {
          const int cells = tiling.extent[0] * tiling.extent[1] * tiling.extent[2] * tiling.rows;
          for (int i = static_cast<int>(threadIdx.x); i < cells; i += kThreads) scores[i] = 0.f;
          __syncthreads();
        }
        walk<kPadded, kRows, kGroup>(block, tiling, [&](const Group& group) {
          float score[kRows * kGroup], grad[kRows * kGroup], weight[kOwned];
          products<T, kPadded, kGroup>(query, keys, group, lane, score);
          products<T, kPadded, kGroup>(grad_out, values, group, lane, grad);
#pragma unroll
          for (int v = 0; v < kOwned; ++v) {
            const int j = own_row + v;
            weight[v] = 0.f;
            if (j >= group.lo && j < group.hi) {
              float exponent = fmaf(score[v], scale, -lse);
              if (block.bias != nullptr) {
                const int index =
                    bias_index(p.axis, group.offset[0], group.offset[1], group.offset[2] + j);
                exponent = fmaf(cuda::to_float(block.bias[index]), kLog2E, exponent);
              }
              weight[v] = exp2f(exponent) * (grad[v] - delta);
              if (block.bias != nullptr && primary) scores[stored + group.row + j] = weight[v];
            }
          }
          accumulate<T, kPadded, kGroup>(weight, keys, group, lane, grad_query);
        });
        if (block.bias != nullptr) {
          __syncthreads();
          add_bias_gradient(block, p.axis, tiling, scores, slot);
        }
      });
    }

    place = place_team<kPadded, kRows>(tiling, block.site);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= place.count) continue;
      const int at[3] = {place.at[0], place.at[1], place.at[2] + r};
      const int64_t row = row_number(p, block.site, p.heads, block.site.head, at);
#pragma unroll
      for (int i = 0; i < 8; ++i) grad_query[r][i] *= p.scale;
      cuda::store_global<T, T, kPadded>(static_cast<T*>(b.grad_query) + row * p.dim, lane, p.dim,
                                        grad_query[r]);
    }
  }
}

template <class T, int kPadded>
cudaError_t run(const Backward& b, cudaStream_t stream) {
  const Problem& p = b.problem;
  constexpr int queries = kTeams<kPadded> * kRows;
  int capacity = kCapacity<T, kPadded>;
  if (p.bias != nullptr)
    capacity = smaller(capacity, kScoreBytes / (queries * static_cast<int>(sizeof(float))));
  const Tiling tiling =
      make_tiling(p.axis, kTeams<kPadded>, kRows, capacity, p.batch, p.heads, p.extra);
  size_t shared = kHeaderBytes + 2 * sizeof(T) * kRow<T, kPadded> * tiling.rows;
  if (p.bias != nullptr) shared += sizeof(float) * queries * tiling.rows;
  const int64_t blocks = p.bias == nullptr ? most_blocks(tiling.items) : bias_slots(p) * p.heads;
  return cuda::launch(backward_query_kernel<T, kPadded>, blocks, kThreads, shared, stream, b,
                      tiling);
}

}  // namespace

cudaError_t backward_query(const Backward& b, cudaStream_t stream) {
  return dispatch(b.problem, [&]<class T, int kPadded>(Case<T, kPadded>) {
    return run<T, kPadded>(b, stream);
  });
}

}  // namespace saccade::na
