// Backward of the keys and values. The queries that see a key form an interval on every axis (the
// lemma at visitors()), so this is the forward with the roles exchanged: a block owns a box of keys
// of one batch entry, key head and dilation group, a team holds two keys with their values, and
// queries with their output gradients are staged from the union of the visitors, for each query
// head of the group in turn. Each gradient is written once, by the team that owns it. Additional
// keys are seen by every query: their blocks walk over all tokens, a fixed share each, and write
// partial sums.
#include "neighborhood_attention/cuda_tile.cuh"

namespace saccade::na {
namespace {

constexpr int kRows = 2;
constexpr int64_t kSlotBytes =
    32 << 20;  // of partial sums, for each kind of gradient that has them
constexpr int kMostSlots = 64;

// Prepares a block for streaming the queries of one head, and their output gradients.
template <class T>
__device__ __forceinline__ void stream_queries(Block<T>& block, const Backward& b,
                                               const Tiling& tiling, int head, bool extra) {
  const Problem& p = b.problem;
  __syncthreads();
  if (threadIdx.x == 0) {
    block.bias = head_bias<T>(p, head, extra);
    block.chunks = 1;
#pragma unroll 1
    for (int a = 0; a < 3; ++a) {
      const Interval all = {0, p.axis[a].length};
      block.whole.axis[a] =
          extra ? all : visitor_union(p.axis[a], block.site.length[a], block.site.tile[a]);
      block.extent[a] = tiling.chunk[a];
      block.chunks *= ceil_div(block.whole.axis[a].size(), block.extent[a]);
    }
    block.a = group_rows<T>(p.query, p.axis, block.site, head);
    block.b = group_rows<T>(b.grad_out, p.axis, block.site, head);
  }
  fill_reach(block, tiling, [&](int a, int at) {
    return extra ? Interval{0, p.axis[a].length} : visitors(p.axis[a], block.site.length[a], at);
  });
  __syncthreads();
}

// Two numbers a staged query: lse in base 2, and delta.
template <class T>
__device__ __forceinline__ void stage_numbers(const Block<T>& block, const Backward& b, int head,
                                              float2* numbers) {
  const Problem& p = b.problem;
  const int n1 = block.chunk.axis[1].size(), n2 = block.chunk.axis[2].size();
  const int rows = block.chunk.axis[0].size() * n1 * n2;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < rows; i += kThreads) {
    const int at[3] = {block.chunk.axis[0].lo + i / n2 / n1, block.chunk.axis[1].lo + i / n2 % n1,
                       block.chunk.axis[2].lo + i % n2};
    const int64_t row = row_number(p, block.site, p.heads, head, at);
    numbers[i] = make_float2(b.lse[row] * kLog2E, b.delta[row]);
  }
  __syncthreads();
}

template <class T, int kPadded>
__global__ void __launch_bounds__(kThreads, 3)
    backward_key_kernel(const __grid_constant__ Backward b, const __grid_constant__ Tiling tiling,
                        int slots) {
  constexpr int kGroup =
      kPadded == 32 ? 2 : 4;  // four would spill where a lane holds two scores of a group
  using Owned = cuda::Owner<kRows * kGroup, kLanes<kPadded>>;
  constexpr int kOwned = Owned::kOwned;
  const Problem& p = b.problem;
  const bool extra = slots > 0;
  Block<T>& block = *cuda::dynamic_shared<Block<T>>();
  T* const queries = cuda::dynamic_shared<T>() + kHeaderBytes / sizeof(T);
  T* const grads = queries + tiling.rows * kRow<T, kPadded>;
  float2* const numbers = reinterpret_cast<float2*>(grads + tiling.rows * kRow<T, kPadded>);
  const float scale = p.scale * kLog2E;
  const int lane = static_cast<int>(threadIdx.x) % kLanes<kPadded>;
  const int own_row = Owned::first(lane) % kGroup;
  const int group_heads = p.heads / p.kv_heads;
  const int64_t blocks = tiling.items * (extra ? slots : 1);

  for (int64_t number = blockIdx.x; number < blocks; number = block.number + gridDim.x) {
    if (!enter(block, tiling, p.kv_heads, number)) continue;
    float key[kRows][8], value[kRows][8], grad_key[kRows][8], grad_value[kRows][8];
    load_stationary<T, kPadded>(p, extra ? p.extra_key : p.key, tiling, block.site, key);
    load_stationary<T, kPadded>(p, extra ? p.extra_value : p.value, tiling, block.site, value);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < 8; ++i) grad_key[r][i] = grad_value[r][i] = 0.f;
    }

#pragma unroll 1
    for (int member = 0; member < group_heads; ++member) {
      stream_queries(block, b, tiling, block.site.head * group_heads + member, extra);
      const int slot = static_cast<int>(block.number / tiling.items);
      for_each_chunk<T, kPadded>(block, p, slot, extra ? slots : 1, queries, grads, [&] {
        stage_numbers(block, b, block.site.head * group_heads + member, numbers);
        walk<kPadded, kRows, kGroup>(block, tiling, [&](const Group& group) {
          float score[kRows * kGroup], grad[kRows * kGroup], prob[kOwned], weight[kOwned];
          products<T, kPadded, kGroup>(key, queries, group, lane, score);
          products<T, kPadded, kGroup>(value, grads, group, lane, grad);
#pragma unroll
          for (int v = 0; v < kOwned; ++v) {
            const int j = own_row + v;
            prob[v] = weight[v] = 0.f;
            if (j >= group.lo && j < group.hi) {
              const float2 number = numbers[group.row + j];
              float exponent = fmaf(score[v], scale, -number.x);
              if (block.bias != nullptr) {
                const int index =
                    bias_index(p.axis, -group.offset[0], -group.offset[1], -group.offset[2] - j);
                exponent = fmaf(cuda::to_float(block.bias[index]), kLog2E, exponent);
              }
              prob[v] = exp2f(exponent);
              weight[v] = prob[v] * (grad[v] - number.y);
            }
          }
          accumulate<T, kPadded, kGroup>(prob, grads, group, lane, grad_value);
          accumulate<T, kPadded, kGroup>(weight, queries, group, lane, grad_key);
        });
      });
    }

    const Place place = place_team<kPadded, kRows>(tiling, block.site);
    const int64_t slot = block.number / tiling.items;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= place.count) continue;
      const int at[3] = {place.at[0], place.at[1], place.at[2] + r};
#pragma unroll
      for (int i = 0; i < 8; ++i) grad_key[r][i] *= p.scale;
      if (extra) {
        const int64_t rows = int64_t{p.batch} * p.extra * p.kv_heads;
        int64_t row = (int64_t{block.site.batch} * p.extra + at[2]) * p.kv_heads + block.site.head;
        row += slot * rows;
        cuda::store_global<float, T, kPadded>(b.extra_slots + row * p.dim, lane, p.dim,
                                              grad_key[r]);
        row += slots * rows;
        cuda::store_global<float, T, kPadded>(b.extra_slots + row * p.dim, lane, p.dim,
                                              grad_value[r]);
      } else {
        const int64_t row = row_number(p, block.site, p.kv_heads, block.site.head, at);
        cuda::store_global<T, T, kPadded>(static_cast<T*>(b.grad_key) + row * p.dim, lane, p.dim,
                                          grad_key[r]);
        cuda::store_global<T, T, kPadded>(static_cast<T*>(b.grad_value) + row * p.dim, lane, p.dim,
                                          grad_value[r]);
      }
    }
  }
}

template <class T, int kPadded>
cudaError_t run(const Backward& b, const Axis (&stationary)[3], int slots, cudaStream_t stream) {
  const Problem& p = b.problem;
  constexpr int row_bytes =
      2 * static_cast<int>(sizeof(T)) * kRow<T, kPadded> + static_cast<int>(sizeof(float2));
  constexpr int capacity = kStagedBytes / row_bytes;
  Tiling tiling = make_tiling(stationary, kTeams<kPadded>, kRows, capacity, p.batch, p.kv_heads, 0);
  if (slots > 0) {
    const int reach[3] = {p.axis[0].length, p.axis[1].length, p.axis[2].length};
    fit_chunk(reach, capacity, tiling.chunk);
  }
  tiling.rows = tiling.chunk[0] * tiling.chunk[1] * tiling.chunk[2];
  const size_t shared = kHeaderBytes + static_cast<size_t>(row_bytes) * tiling.rows;
  const int64_t blocks = most_blocks(tiling.items * (slots > 0 ? slots : 1));
  return cuda::launch(backward_key_kernel<T, kPadded>, blocks, kThreads, shared, stream, b, tiling,
                      slots);
}

}  // namespace

int64_t extra_slots(const Problem& p) {
  const int64_t bytes =
      int64_t{p.batch} * p.extra * p.kv_heads * p.dim * 2 * static_cast<int64_t>(sizeof(float));
  const int64_t most = bytes > 0 ? kSlotBytes / bytes : 1;
  return most < 1 ? 1 : most > kMostSlots ? kMostSlots : most;
}

cudaError_t backward_key(const Backward& b, cudaStream_t stream) {
  return dispatch(b.problem, [&]<class T, int kPadded>(Case<T, kPadded>) {
    return run<T, kPadded>(b, b.problem.axis, 0, stream);
  });
}

cudaError_t backward_extra(const Backward& b, cudaStream_t stream) {
  Backward all = b;  // every token, as one group
  for (Axis& axis : all.problem.axis) axis.dilation = 1;
  const Axis stationary[3] = {{1, 1, 1, 1, 0}, {1, 1, 1, 1, 0}, {b.problem.extra, 1, 1, 1, 0}};
  const int slots = static_cast<int>(extra_slots(b.problem));
  return dispatch(b.problem, [&]<class T, int kPadded>(Case<T, kPadded>) {
    return run<T, kPadded>(all, stationary, slots, stream);
  });
}

}  // namespace saccade::na
