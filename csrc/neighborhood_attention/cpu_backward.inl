// Backward, query-stationary: per block of queries, weights are recomputed from the log-sum-exp,
// then
//   dS = P (dO v^T - delta),  delta = rowsum(dO O) - dLSE,   dQ = scale dS K,   dK += dS^T (scale
//   Q),   dV += P^T dO.
// dK and dV of the tile's box stand in scratch while its queries pass, so five products suffice;
// tiles whose boxes overlap never run at the same time (plan.h), and their order is fixed.
#pragma once

#include "neighborhood_attention/cpu_block.inl"

namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE {

template <typename T>
struct BackwardBuffers {
  T *keys, *values;            // transposed
  T* key_tokens;               // rows
  T *grad_keys, *grad_values;  // rows
  T *extra_keys, *extra_values, *extra_key_tokens, *grad_extra_keys, *grad_extra_values;
  T *bias, *grad_bias;
  T *queries, *grads, *result;  // [kBlock, padded_dim]
  T *weights, *grad_scores;     // [kBlock, lanes]
  const T** vectors;

  BackwardBuffers(const Problem& problem, const Tile& tile, Scratch<T>& scratch) {
    const Box<T> box(problem, tile);
    const int64_t lanes = max_lanes<T>(problem);
    const int64_t bias_size = BiasTable<T>(problem).padded();
    const int64_t extra_transposed = box.dim * column_stride<T>(problem.extra);
    keys = scratch.take(box.transposed_size());
    values = scratch.take(box.transposed_size());
    key_tokens = scratch.take(box.token_size());
    grad_keys = scratch.take(box.token_size());
    grad_values = scratch.take(box.token_size());
    extra_keys = scratch.take(extra_transposed);
    extra_values = scratch.take(extra_transposed);
    extra_key_tokens = scratch.take(problem.extra * box.padded_dim);
    grad_extra_keys = scratch.take(problem.extra * box.padded_dim);
    grad_extra_values = scratch.take(problem.extra * box.padded_dim);
    bias = scratch.take(bias_size);
    grad_bias = scratch.take(bias_size);
    queries = scratch.take(kBlock * box.padded_dim);
    grads = scratch.take(kBlock * box.padded_dim);
    result = scratch.take(kBlock * box.padded_dim);
    weights = scratch.take(kBlock * lanes);
    grad_scores = scratch.take(kBlock * lanes);
    vectors = reinterpret_cast<const T**>(scratch.take(lanes / kWidth<T> * sizeof(T*) / sizeof(T)));
  }
};

// Which queries of a block see a column of the union: [first, last), by monotonicity of the
// windows.
struct Visitors {
  int first, last;
};

// key[d] += sum_q grad_score[q] query[q][d], value[d] += sum_q weight[q] grad[q][d] for N vectors
// of D and for neighbouring keys, which share most visitors: these are loaded once.
template <typename T, int kKeys, int N>
inline __attribute__((always_inline)) void scatter_vectors(const Visitors* visitors,
                                                           const int64_t* shift, int64_t padded_dim,
                                                           const T* weights, const T* grad_scores,
                                                           const T* grads, const T* queries,
                                                           T* grad_values, T* grad_keys) {
  constexpr int W = kWidth<T>;
  Vec<T> value[kKeys][N], key[kKeys][N];
  for (int k = 0; k < kKeys; ++k) {
    for (int n = 0; n < N; ++n) {
      value[k][n] = load(grad_values + k * padded_dim + n * W);
      key[k][n] = load(grad_keys + k * padded_dim + n * W);
    }
  }
  // Queries [first, last) visit the keys [from, to).
  const auto add = [&](int first, int last, auto from, auto to) __attribute__((always_inline)) {
    for (int q = first; q < last; ++q) {
      const T* grad = grads + q * padded_dim;
      const T* query = queries + q * padded_dim;
      for (int n = 0; n < N; ++n) {
        const Vec<T> g = in_register(load(grad + n * W));
        const Vec<T> x = in_register(load(query + n * W));
        for (int k = from(); k < to(); ++k) {
          value[k][n] += weights[shift[q] + k] * g;
          key[k][n] += grad_scores[shift[q] + k] * x;
        }
      }
    }
  };
  constexpr std::integral_constant<int, 0> zero{};
  constexpr std::integral_constant<int, 1> one{};
  constexpr std::integral_constant<int, kKeys> all{};
  if constexpr (kKeys == 1) {
    add(visitors[0].first, visitors[0].last, zero, all);
  } else {
    static_assert(kKeys == 2);
    add(visitors[0].first, visitors[1].first, zero, one);
    add(visitors[1].first, visitors[0].last, zero, all);
    add(visitors[0].last, visitors[1].last, one, all);
  }
  for (int k = 0; k < kKeys; ++k) {
    for (int n = 0; n < N; ++n) {
      store<T>(grad_values + k * padded_dim + n * W, value[k][n]);
      store<T>(grad_keys + k * padded_dim + n * W, key[k][n]);
    }
  }
}

// As above for all of D.
template <typename T, int kKeys>
inline void scatter_tokens(const Visitors* visitors, const int64_t* shift, int64_t padded_dim,
                           const T* weights, const T* grad_scores, const T* grads, const T* queries,
                           T* grad_values, T* grad_keys) {
  constexpr int W = kWidth<T>;
  int64_t d = 0;
  const auto run = [&](auto vectors) {
    constexpr int N = decltype(vectors)::value;
    for (; d + N * W <= padded_dim; d += N * W) {
      scatter_vectors<T, kKeys, N>(visitors, shift, padded_dim, weights, grad_scores, grads + d,
                                   queries + d, grad_values + d, grad_keys + d);
    }
  };
  run(std::integral_constant<int, kAccumulators >= 16 * kKeys / 2 ? 4 : 2>{});
  run(std::integral_constant<int, 1>{});
}

template <typename T>
inline void scatter(const Block& block, const Box<T>& box, const Problem& problem,
                    const Windows& windows, const T* weights, const T* grad_scores, const T* grads,
                    const T* queries, T* grad_values, T* grad_keys, T* grad_extra_values,
                    T* grad_extra_keys) {
  constexpr int W = kWidth<T>;
  const int64_t dim = box.padded_dim;
  // A key's weights, one a visitor, stand at fixed distances from each other: shift[q] plus the
  // key's own lane.
  int64_t shift[kBlock];
  for (int q = 0; q < block.queries; ++q) shift[q] = q * block.lanes - block.origin[q];
  const int64_t first = block.share[0].begin;
  const int64_t last = block.share[block.shares - 1].end;
  Visitors seen{0, 0};
  const auto visitors_of = [&](int64_t c) {
    while (seen.last < block.queries && windows.begin[block.z + seen.last] <= c) ++seen.last;
    while (windows.end[block.z + seen.first] <= c) ++seen.first;
    return seen;
  };
  int64_t row_lane = 0;
  for_each_row(block, box, [&](int64_t row) {
    int64_t offset = (row * box.columns + first - box.begin[2]) * dim;
    seen = {0, 0};
    int64_t c = first;
    for (; c + 2 <= last; c += 2, offset += 2 * dim) {
      const Visitors visitors[2] = {visitors_of(c), visitors_of(c + 1)};
      const int64_t lane = row_lane + c;
      if (visitors[1].first < visitors[0].last) {
        scatter_tokens<T, 2>(visitors, shift, dim, weights + lane, grad_scores + lane, grads,
                             queries, grad_values + offset, grad_keys + offset);
        continue;
      }
      for (int64_t k = 0; k < 2; ++k) {
        scatter_tokens<T, 1>(visitors + k, shift, dim, weights + lane + k, grad_scores + lane + k,
                             grads, queries, grad_values + offset + k * dim,
                             grad_keys + offset + k * dim);
      }
    }
    if (c < last) {
      const Visitors visitors = visitors_of(c);
      scatter_tokens<T, 1>(&visitors, shift, dim, weights + row_lane + c,
                           grad_scores + row_lane + c, grads, queries, grad_values + offset,
                           grad_keys + offset);
    }
    row_lane += block.chunks * W;
  });
  for (int q = 0; q < block.queries; ++q) shift[q] = q * block.lanes + block.extra_lane;
  const Visitors everybody{0, block.queries};
  for (int64_t s = 0; s < problem.extra; ++s) {
    scatter_tokens<T, 1>(&everybody, shift, dim, weights + s, grad_scores + s, grads, queries,
                         grad_extra_values + s * dim, grad_extra_keys + s * dim);
  }
}

// Scores become weights, products dO v^T become dS; the bias gradient takes dS on its way.
template <typename T, bool kBias>
inline void weights_and_grads(const Problem& problem, const Block& block, const Windows& windows,
                              const BiasTable<T>& table, const T* bias, T* grad_bias, int q, T lse,
                              T delta, T* weights, T* grad_scores) {
  const T shift = lse * kLog2E<T>;
  for_each_vector<T, kBias>(
      problem, block, windows, table, q, [&](int64_t lane, Mask<T> mask, int64_t offset) {
        Vec<T> s = load(weights + lane);
        if (kBias && offset >= 0) s += load(bias + offset);
        const Vec<T> p = mask ? exp2_bounded<T>(s * kLog2E<T> - shift) : Vec<T>{};
        const Vec<T> g = mask ? p * (load(grad_scores + lane) - delta) : Vec<T>{};
        store<T>(weights + lane, p);
        store<T>(grad_scores + lane, g);
        if (kBias && offset >= 0) store<T>(grad_bias + offset, load(grad_bias + offset) + g);
      });
}

// Calls f(offset in a contiguous [B, X, Y, Z, h, D], offset in scratch rows, tokens, fresh) for
// runs of the box's tokens along the last axis that are all fresh or all not.
template <typename T, typename F>
inline void for_each_run(const Problem& problem, const Tile& tile, const Box<T>& box, int64_t batch,
                         int64_t head, const F& f) {
  int64_t packed = 0;
  const auto fresh = [&](int a, int64_t p) {
    return tile.fresh[a][0] <= p && p < tile.fresh[a][1];
  };
  const int64_t cut[4] = {tile.key[2][0], tile.fresh[2][0], tile.fresh[2][1], tile.key[2][1]};
  for (int64_t x = tile.key[0][0]; x < tile.key[0][1]; ++x) {
    for (int64_t y = tile.key[1][0]; y < tile.key[1][1]; ++y) {
      for (int i = 0; i < 3; ++i) {
        const int64_t tokens = cut[i + 1] - cut[i];
        if (tokens == 0) continue;
        f(flat_index(problem, tile, problem.kv_heads, batch, head, x, y, cut[i]) * box.dim, packed,
          tokens, i == 1 && fresh(0, x) && fresh(1, y));
        packed += tokens * box.padded_dim;
      }
    }
  }
}

template <typename T>
void backward(const BackwardArgs<T>& args, const Tile& tile, int64_t batch, int64_t kv_head,
              T* grad_bias_table, T* memory) {
  const Problem& problem = args.problem;
  const Inputs<T>& in = args.in;
  const Box<T> box(problem, tile);
  const Windows& windows = tile.axis[2];
  const BiasTable<T> table(problem);
  Scratch<T> scratch(memory);
  const BackwardBuffers<T> buffer(problem, tile, scratch);
  const T scale = static_cast<T>(problem.scale);

  pack_transposed(in.key, problem, tile, batch, kv_head, box, buffer.keys);
  pack_transposed(in.value, problem, tile, batch, kv_head, box, buffer.values);
  bool finite = pack_tokens(in.key, problem, tile, batch, kv_head, box, buffer.key_tokens);
  pack_extra_transposed(in.extra_key, problem, batch, kv_head, buffer.extra_keys);
  pack_extra_transposed(in.extra_value, problem, batch, kv_head, buffer.extra_values);
  finite &= pack_extra_tokens(in.extra_key, problem, batch, kv_head, box, buffer.extra_key_tokens);
  const int64_t extra_size = problem.extra * box.padded_dim;
  fill_zero(buffer.grad_extra_keys, extra_size);
  fill_zero(buffer.grad_extra_values, extra_size);
  // Neighbouring tokens of the gradients of keys and values.
  const int64_t key_step = problem.axis[2].dilation * problem.kv_heads * box.dim;
  for_each_run(problem, tile, box, batch, kv_head,
               [&](int64_t index, int64_t packed, int64_t tokens, bool fresh) {
                 if (fresh) {
                   fill_zero(buffer.grad_keys + packed, tokens * box.padded_dim);
                   fill_zero(buffer.grad_values + packed, tokens * box.padded_dim);
                   return;
                 }
                 for (int64_t i = 0; i < tokens; ++i, packed += box.padded_dim) {
                   copy_token(args.grad_key + index + i * key_step, box.dim, box.padded_dim, T(1),
                              buffer.grad_keys + packed);
                   copy_token(args.grad_value + index + i * key_step, box.dim, box.padded_dim, T(1),
                              buffer.grad_values + packed);
                 }
               });

  const int64_t ahead = prefetch_distance(in.query, problem, tile);
  const int64_t grad_ahead = prefetch_distance(args.grad_out, problem, tile);
  const int64_t out_ahead = prefetch_distance(args.out, problem, tile);
  const int64_t group = problem.heads / problem.kv_heads;
  const int64_t query_step = token_step(in.query, problem);
  const int64_t grad_step = token_step(args.grad_out, problem);
  const int64_t out_step = token_step(args.out, problem);
  const int64_t index_step = problem.axis[2].dilation * problem.heads;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    if (in.bias != nullptr) {
      table.load_head(in.bias, head, buffer.bias);
      fill_zero(buffer.grad_bias, table.padded());
    }
    for_each_block<T>(problem, tile, [&](const Block& block) {
      const auto first = [&](const View<const T>& view) {
        return token_ptr(view, problem, tile, batch, head, block.x, block.y, block.z);
      };
      const T *query = first(in.query), *grad = first(args.grad_out), *out = first(args.out);
      const int64_t index =
          flat_index(problem, tile, problem.heads, batch, head, block.x, block.y, block.z);
      T* grad_query = args.grad_query + index * box.dim;
      T lse[kBlock], delta[kBlock];
      for (int q = 0; q < block.queries; ++q) {
        prefetch_token(query + ahead, box.dim);
        prefetch_token(grad + grad_ahead, box.dim);
        prefetch_token(out + out_ahead, box.dim);
        prefetch_token<true>(grad_query + q * index_step * box.dim, box.dim);
        copy_token(query, box.dim, box.padded_dim, scale, buffer.queries + q * box.padded_dim);
        copy_token(grad, box.dim, box.padded_dim, T(1), buffer.grads + q * box.padded_dim);
        delta[q] = dot(grad, out, box.dim) - args.grad_lse[index + q * index_step];
        lse[q] = args.lse[index + q * index_step];
        query += query_step;
        grad += grad_step;
        out += out_step;
      }
      score(block, box, problem, buffer.queries, buffer.keys, buffer.extra_keys, buffer.vectors,
            buffer.weights);
      score(block, box, problem, buffer.grads, buffer.values, buffer.extra_values, buffer.vectors,
            buffer.grad_scores);
      for (int q = 0; q < block.queries; ++q) {
        (in.bias == nullptr ? weights_and_grads<T, false>
                            : weights_and_grads<T, true>)(problem, block, windows, table,
                                                          buffer.bias, buffer.grad_bias, q, lse[q],
                                                          delta[q],
                                                          buffer.weights + q * block.lanes,
                                                          buffer.grad_scores + q * block.lanes);
      }
      accumulate(block, box, problem, windows, finite, buffer.grad_scores, buffer.key_tokens,
                 buffer.extra_key_tokens, buffer.vectors, buffer.result);
      for (int q = 0; q < block.queries; ++q) {
        store_token(buffer.result + q * box.padded_dim, box.dim, scale,
                    grad_query + q * index_step * box.dim);
      }
      scatter(block, box, problem, windows, buffer.weights, buffer.grad_scores, buffer.grads,
              buffer.queries, buffer.grad_values, buffer.grad_keys, buffer.grad_extra_values,
              buffer.grad_extra_keys);
    });
    if (in.bias != nullptr) {
      T* to = grad_bias_table + head * table.count();
      for (int64_t i = 0; i < table.count(); ++i)
        to[i] += buffer.grad_bias[BiasTable<T>::kFront + i];
    }
  }
  for_each_run(problem, tile, box, batch, kv_head,
               [&](int64_t index, int64_t packed, int64_t tokens, bool) {
                 for (int64_t i = 0; i < tokens; ++i, index += key_step, packed += box.padded_dim) {
                   prefetch_token<true>(args.grad_key + index + ahead, box.dim);
                   prefetch_token<true>(args.grad_value + index + ahead, box.dim);
                   store_token(buffer.grad_keys + packed, box.dim, T(1), args.grad_key + index);
                   store_token(buffer.grad_values + packed, box.dim, T(1), args.grad_value + index);
                 }
               });
  for (int64_t s = 0; s < problem.extra; ++s) {
    const int64_t index = ((batch * problem.extra + s) * problem.kv_heads + kv_head) * box.dim;
    for (int64_t d = 0; d < box.dim; ++d) {
      args.grad_extra_key[index + d] += buffer.grad_extra_keys[s * box.padded_dim + d];
      args.grad_extra_value[index + d] += buffer.grad_extra_values[s * box.padded_dim + d];
    }
  }
}

}  // namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE
