// Forward: per block of queries, scores -> softmax over the whole window -> weighted sum of values.
#pragma once

#include "neighborhood_attention/cpu_block.inl"

namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE {

template <typename T>
struct ForwardBuffers {
  T *keys, *values, *extra_keys, *extra_values, *bias, *queries, *scores, *result;
  const T** vectors;

  ForwardBuffers(const Problem& problem, const Tile& tile, Scratch<T>& scratch) {
    const Box<T> box(problem, tile);
    const int64_t lanes = max_lanes<T>(problem);
    keys = scratch.take(box.transposed_size());
    values = scratch.take(box.token_size());
    extra_keys = scratch.take(box.dim * column_stride<T>(problem.extra));
    extra_values = scratch.take(problem.extra * box.padded_dim);
    bias = scratch.take(BiasTable<T>(problem).padded());
    queries = scratch.take(kBlock * box.padded_dim);
    scores = scratch.take(kBlock * lanes);
    result = scratch.take(kBlock * box.padded_dim);
    vectors = reinterpret_cast<const T**>(scratch.take(lanes / kWidth<T> * sizeof(T*) / sizeof(T)));
  }
};

// Calls f(first query, queries) for as many queries at a time as a vector has lanes: reductions
// over lanes then wait for each other once for all of them.
template <typename T, typename F>
inline __attribute__((always_inline)) void for_each_group(const Block& block, const F& f) {
  constexpr int W = kWidth<T>;
  for (int first = 0; first < block.queries; first += W)
    f(first, static_cast<int>(min(block.queries - first, W)));
}

// The maximum of every query's scores; the bias is added to them, and lanes outside the window
// become minus infinity.
template <typename T, bool kBias>
inline void mask_and_maximize(const Problem& problem, const Block& block, const Windows& windows,
                              const BiasTable<T>& table, const T* bias, T* scores, T* highest) {
  const Vec<T> lowest = broadcast<T>(static_cast<T>(-__builtin_inf()));
  for_each_group<T>(block, [&](int first, int queries) {
    Vec<T> row_highest[kWidth<T>]{};
    for (int i = 0; i < queries; ++i) {
      T* row = scores + (first + i) * block.lanes;
      Vec<T> so_far = lowest;
      for_each_vector<T, kBias>(problem, block, windows, table, first + i,
                                [&](int64_t lane, Mask<T> mask, int64_t offset) {
                                  Vec<T> s = load(row + lane);
                                  if (kBias && offset >= 0) s += load(bias + offset);
                                  s = mask ? s : lowest;
                                  store<T>(row + lane, s);
                                  so_far = max<T>(s, so_far);
                                });
      row_highest[i] = so_far;
    }
    store<T>(highest + first, combine_lanes<T>(row_highest, max<T>));
  });
}

// Scores become exp(score - highest); gives their sums.
template <typename T>
inline void exponentiate(const Block& block, const T* highest, T* scores, T* sums) {
  const int64_t lanes = block.lanes;
  for_each_group<T>(block, [&](int first, int queries) {
    Vec<T> row_sum[kWidth<T>]{};
    for (int i = 0; i < queries; ++i) {
      T* row = scores + (first + i) * lanes;
      // In octaves. The rounding of the shift is the same for all lanes and goes with the sum.
      const T shift = highest[first + i] * kLog2E<T>;
      Vec<T> sum{};
      for (int64_t lane = 0; lane < lanes; lane += kWidth<T>) {
        const Vec<T> p = exp2_bounded<T>(load(row + lane) * kLog2E<T> - shift);
        store<T>(row + lane, p);
        sum += p;
      }
      row_sum[i] = sum;
    }
    store<T>(sums + first, combine_lanes<T>(row_sum, [](Vec<T> a, Vec<T> b) { return a + b; }));
  });
}

template <typename T>
void forward(const ForwardArgs<T>& args, const Tile& tile, int64_t batch, int64_t kv_head,
             T* memory) {
  const Problem& problem = args.problem;
  const Inputs<T>& in = args.in;
  const Box<T> box(problem, tile);
  const Windows& windows = tile.axis[2];
  const BiasTable<T> table(problem);
  Scratch<T> scratch(memory);
  const ForwardBuffers<T> buffer(problem, tile, scratch);

  pack_transposed(in.key, problem, tile, batch, kv_head, box, buffer.keys);
  bool finite = pack_tokens(in.value, problem, tile, batch, kv_head, box, buffer.values);
  pack_extra_transposed(in.extra_key, problem, batch, kv_head, buffer.extra_keys);
  finite &= pack_extra_tokens(in.extra_value, problem, batch, kv_head, box, buffer.extra_values);

  const int64_t ahead = prefetch_distance(in.query, problem, tile);
  const int64_t step = token_step(in.query, problem);
  const int64_t group = problem.heads / problem.kv_heads;
  const int64_t index_step = problem.axis[2].dilation * problem.heads;
  const T scale = static_cast<T>(problem.scale);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    if (in.bias != nullptr) table.load_head(in.bias, head, buffer.bias);
    for_each_block<T>(problem, tile, [&](const Block& block) {
      const T* query = token_ptr(in.query, problem, tile, batch, head, block.x, block.y, block.z);
      const int64_t index =
          flat_index(problem, tile, problem.heads, batch, head, block.x, block.y, block.z);
      T* out = args.out + index * box.dim;
      T* lse = args.lse + index;
      for (int q = 0; q < block.queries; ++q) {
        prefetch_token(query + q * step + ahead, box.dim);
        prefetch_token<true>(out + q * index_step * box.dim, box.dim);
        copy_token(query + q * step, box.dim, box.padded_dim, scale,
                   buffer.queries + q * box.padded_dim);
      }
      score(block, box, problem, buffer.queries, buffer.keys, buffer.extra_keys, buffer.vectors,
            buffer.scores);
      T top[kBlock], sum[kBlock];
      (in.bias == nullptr ? mask_and_maximize<T, false>
                          : mask_and_maximize<T, true>)(problem, block, windows, table, buffer.bias,
                                                        buffer.scores, top);
      exponentiate(block, top, buffer.scores, sum);
      accumulate(block, box, problem, windows, finite, buffer.scores, buffer.values,
                 buffer.extra_values, buffer.vectors, buffer.result);
      T log_sum[kBlock];
      for (int q = 0; q < block.queries; q += kWidth<T>)
        store<T>(log_sum + q, log<T>(load(sum + q)));
      for (int q = 0; q < block.queries; ++q) {
        store_token(buffer.result + q * box.padded_dim, box.dim, T(1) / sum[q],
                    out + q * index_step * box.dim);
        lse[q * index_step] = top[q] + log_sum[q];
      }
    });
  }
}

}  // namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE
