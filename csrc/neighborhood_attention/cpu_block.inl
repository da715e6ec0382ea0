// What forward and backward share: a block of queries, and the two products on packed keys.
//
// A block is a run of up to kBlock queries along the last axis; they share the window's rows.
// Within a row their windows differ by a shift, so neighbouring queries of a block form shares: as
// many as fit their union of columns into the vectors that one window needs. A share meets each
// vector of keys (lanes = keys) while it is in a register. Scores stand in scratch as
// [query][row][chunk][lane], lane 0 at the first column of the query's share; lanes outside a
// query's own window hold zero weight.
#pragma once

#include "neighborhood_attention/cpu_pack.inl"

namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE {

// Queries a block, at most: long blocks find the keys of one share in the first-level cache when
// the next one comes, and touch each key's gradient once. Their scores should stay there too.
constexpr int kBlock = 64;
constexpr int64_t kBlockScores = 8192;
constexpr int kShare = 4;  // queries a share, at most
// Accumulators that the products keep in registers; AVX-512 has twice the registers, used at the
// width of AVX2, because a row of a window rarely fills a longer vector.
constexpr int kAccumulators = SACCADE_REGISTERS == 32 ? 24 : 12;
constexpr int kMaxVectors = 8;  // vectors of keys that a share meets at once

// Neighbouring queries of a block, and the union of their windows on the last axis.
struct Share {
  int first, count;
  int64_t begin, end;
};

// A run of queries along the last axis; at() moves it to a row of queries.
struct Block {
  int64_t x, y, z;
  int queries;
  int64_t row_begin[2], row_end[2];
  int64_t chunks;      // vectors that a row takes
  int64_t lanes;       // lanes that a query takes, additional keys included
  int64_t extra_lane;  // first lane of the additional keys
  int shares;
  Share share[kBlock];
  int64_t origin[kBlock];  // column of lane 0, by query

  Block(const Tile& tile, int64_t z_, int queries_, int width) : z(z_), queries(queries_) {
    const int32_t* begin = tile.axis[2].begin + z;
    const int32_t* end = tile.axis[2].end + z;
    chunks = 1;
    for (int q = 0; q < queries; ++q) {
      const int64_t needed = ceil_div(end[q] - begin[q], width);
      chunks = needed > chunks ? needed : chunks;
    }
    shares = 0;
    for (int q = 0; q < queries; ++q) {
      Share* s = share + shares - 1;
      if (q == 0 || s->count == kShare || end[q] - s->begin > chunks * width) {
        share[shares++] = {q, 1, begin[q], end[q]};
      } else {
        ++s->count;
        s->end = end[q];
      }
      origin[q] = share[shares - 1].begin;
    }
  }
  void at(const Problem& problem, const Tile& tile, int64_t x_, int64_t y_, int width) {
    x = x_;
    y = y_;
    const int64_t p[2] = {x, y};
    for (int a = 0; a < 2; ++a) {
      row_begin[a] = tile.axis[a].begin[p[a]];
      row_end[a] = tile.axis[a].end[p[a]];
    }
    extra_lane = rows() * chunks * width;
    lanes = extra_lane + ceil_div(problem.extra, width) * width;
  }
  int64_t rows() const { return (row_end[0] - row_begin[0]) * (row_end[1] - row_begin[1]); }
};

// The most lanes that a query takes.
template <typename T>
inline int64_t max_lanes(const Problem& problem) {
  const Axis* axis = problem.axis;
  return axis[0].kernel * axis[1].kernel * round_up<T>(axis[2].kernel) + round_up<T>(problem.extra);
}

// Calls f(block) for all blocks of a tile; runs are cut evenly so that no block is nearly empty.
template <typename T, typename F>
inline void for_each_block(const Problem& problem, const Tile& tile, const F& f) {
  const int64_t begin = tile.query[2][0];
  const int64_t length = tile.query[2][1] - begin;
  const int64_t fitting = kBlockScores / max_lanes<T>(problem);
  const int64_t blocks = ceil_div(length, fitting < 8 ? 8 : min(fitting, kBlock));
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t z = begin + i * length / blocks;
    const int queries = static_cast<int>(begin + (i + 1) * length / blocks - z);
    Block block(tile, z, queries, kWidth<T>);
    for (int64_t x = tile.query[0][0]; x < tile.query[0][1]; ++x) {
      for (int64_t y = tile.query[1][0]; y < tile.query[1][1]; ++y) {
        block.at(problem, tile, x, y, kWidth<T>);
        f(block);
      }
    }
  }
}

// Calls f(row of the box) for every row of a block's window.
template <typename T, typename F>
inline __attribute__((always_inline)) void for_each_row(const Block& block, const Box<T>& box,
                                                        const F& f) {
  for (int64_t x = block.row_begin[0]; x < block.row_end[0]; ++x) {
    for (int64_t y = block.row_begin[1]; y < block.row_end[1]; ++y) f(box.row(x, y));
  }
}

// scores[q][lane] = sum_d queries[q][d] * keys[d][column + lane] for Q queries and N vectors of
// keys.
template <typename T, int Q, int N>
void score_vectors(const T* queries, int64_t padded_dim, int64_t dim, const T* const* keys,
                   int64_t column, int64_t stride, T* scores, int64_t lanes) {
  const T* key[N];
  SACCADE_UNROLL
  for (int n = 0; n < N; ++n) key[n] = keys[n] + column;
  Vec<T> sum[Q][N];
  SACCADE_UNROLL
  for (int q = 0; q < Q; ++q) {
    SACCADE_UNROLL
    for (int n = 0; n < N; ++n) sum[q][n] = Vec<T>{};
  }
  for (int64_t d = 0; d < dim; ++d) {
    Vec<T> query[Q];
    SACCADE_UNROLL
    for (int q = 0; q < Q; ++q) query[q] = broadcast<T>(queries[q * padded_dim + d]);
    SACCADE_UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec<T> k = in_register(load(key[n] + d * stride));
      SACCADE_UNROLL
      for (int q = 0; q < Q; ++q) sum[q][n] += query[q] * k;
    }
  }
  SACCADE_UNROLL
  for (int q = 0; q < Q; ++q) {
    SACCADE_UNROLL
    for (int n = 0; n < N; ++n) store<T>(scores + q * lanes + n * kWidth<T>, sum[q][n]);
  }
}

template <typename T>
using ScoreVectors = void (*)(const T*, int64_t, int64_t, const T* const*, int64_t, int64_t, T*,
                              int64_t);

template <int Q>
constexpr int kVectors = kAccumulators / Q < kMaxVectors ? kAccumulators / Q : kMaxVectors;

template <typename T, int Q, int... n>
inline ScoreVectors<T> pick_vectors(int count, std::integer_sequence<int, n...>) {
  static constexpr ScoreVectors<T> table[] = {score_vectors<T, Q, n + 1>...};
  return table[count - 1];
}

// As above for any number of vectors, cut evenly into runs that fit the registers.
template <typename T, int Q>
void score_queries(const T* queries, int64_t padded_dim, int64_t dim, const T* const* keys,
                   int64_t count, int64_t column, int64_t stride, T* scores, int64_t lanes) {
  const int64_t runs = ceil_div(count, kVectors<Q>);
  for (int64_t i = 0; i < runs; ++i) {
    const int64_t v = i * count / runs;
    const int vectors = static_cast<int>((i + 1) * count / runs - v);
    pick_vectors<T, Q>(vectors, std::make_integer_sequence<int, kVectors<Q>>{})(
        queries, padded_dim, dim, keys + v, column, stride, scores + v * kWidth<T>, lanes);
  }
}

// Scores of a block against transposed keys and additional keys.
template <typename T>
inline void score(const Block& block, const Box<T>& box, const Problem& problem, const T* queries,
                  const T* keys, const T* extra_keys, const T** vectors, T* scores) {
  constexpr int W = kWidth<T>;
  constexpr decltype(&score_queries<T, 1>) table[] = {score_queries<T, 1>, score_queries<T, 2>,
                                                      score_queries<T, 3>, score_queries<T, 4>};
  static_assert(sizeof(table) / sizeof(table[0]) == kShare);
  int64_t count = 0;
  for_each_row(block, box, [&](int64_t row) {
    const T* key = keys + row * box.dim * box.stride;
    for (int64_t c = 0; c < block.chunks; ++c) vectors[count++] = key + c * W;
  });
  const int64_t extra = ceil_div(problem.extra, W);
  for (int64_t i = 0; i < extra; ++i) vectors[count + i] = extra_keys + i * W;
  for (int i = 0; i < block.shares; ++i) {
    const Share& share = block.share[i];
    const auto f = table[share.count - 1];
    const T* first = queries + share.first * box.padded_dim;
    T* to = scores + share.first * block.lanes;
    f(first, box.padded_dim, box.dim, vectors, count, share.begin - box.begin[2], box.stride, to,
      block.lanes);
    f(first, box.padded_dim, box.dim, vectors + count, extra, 0, column_stride<T>(problem.extra),
      to + block.extra_lane, block.lanes);
  }
}

// What a weighted sum runs over: rows of tokens, and the additional ones.
template <typename T>
struct Tokens {
  const T* const* rows;
  int64_t count;
  const T* extra;
  int64_t extra_count;
  int64_t dim;                     // from token to token
  int64_t row_lanes, extra_lanes;  // lanes that a row takes, and all rows
  int64_t lanes;                   // lanes that a query takes
};

// result[q] = sum over `columns` tokens of each row from `first` on and the additional ones of
// weights[q][token] * token for Q queries and N vectors of D from d on.
template <typename T, int Q, int N>
void accumulate_vectors(const Tokens<T>& tokens, int64_t first, int64_t columns, int64_t d,
                        const T* weights, T* result) {
  constexpr int W = kWidth<T>;
  // Two sums of each, where the registers hold them: a sum must not wait for its last addition.
  constexpr int kSums = 2 * Q * N <= kAccumulators ? 2 : 1;
  const int64_t lanes = tokens.lanes;
  const int64_t dim = tokens.dim;
  Vec<T> sum[kSums][Q][N];
  SACCADE_UNROLL
  for (int s = 0; s < kSums; ++s) {
    SACCADE_UNROLL
    for (int i = 0; i < Q; ++i) {
      SACCADE_UNROLL
      for (int n = 0; n < N; ++n) sum[s][i][n] = Vec<T>{};
    }
  }
  const auto add = [&](auto s, const T* weight, const T* token) __attribute__((always_inline)) {
    Vec<T> v[N];
    SACCADE_UNROLL
    for (int n = 0; n < N; ++n) v[n] = in_register(load(token + n * W));
    SACCADE_UNROLL
    for (int i = 0; i < Q; ++i) {
      SACCADE_UNROLL
      for (int n = 0; n < N; ++n) sum[s()][i][n] += weight[i * lanes] * v[n];
    }
  };
  constexpr std::integral_constant<int, 0> one{};
  constexpr std::integral_constant<int, kSums - 1> other{};
  const int64_t offset = first * dim + d;
  for (int64_t row = 0; row < tokens.count; ++row) {
    const T* weight = weights + row * tokens.row_lanes;
    const T* token = tokens.rows[row] + offset;
    int64_t c = 0;
    for (; c + 2 <= columns; c += 2, token += 2 * dim) {
      add(one, weight + c, token);
      add(other, weight + c + 1, token + dim);
    }
    if (c < columns) add(one, weight + c, token);
  }
  for (int64_t s = 0; s < tokens.extra_count; ++s)
    add(one, weights + tokens.extra_lanes + s, tokens.extra + s * dim + d);
  SACCADE_UNROLL
  for (int i = 0; i < Q; ++i) {
    SACCADE_UNROLL
    for (int n = 0; n < N; ++n) {
      const Vec<T> total = kSums == 1 ? sum[0][i][n] : sum[0][i][n] + sum[kSums - 1][i][n];
      store<T>(result + i * dim + d + n * W, total);
    }
  }
}

template <typename T, int Q>
void accumulate_queries(const Tokens<T>& tokens, int64_t first, int64_t columns, const T* weights,
                        T* result) {
  constexpr int W = kWidth<T>;
  constexpr int kMost = kAccumulators / Q >= 4 ? 4 : 2;
  int64_t d = 0;
  const auto run = [&](auto f, int vectors) {
    for (; d + vectors * W <= tokens.dim; d += vectors * W)
      f(tokens, first, columns, d, weights, result);
  };
  run(accumulate_vectors<T, Q, kMost>, kMost);
  run(accumulate_vectors<T, Q, 2>, 2);
  run(accumulate_vectors<T, Q, 1>, 1);
}

// A share's queries meet the union of their windows, where weights are zero outside a query's own;
// zero times a value that is not finite would spoil a query that does not see it, so such tiles go
// one query at a time.
template <typename T>
inline void accumulate(const Block& block, const Box<T>& box, const Problem& problem,
                       const Windows& windows, bool finite, const T* weights, const T* tokens,
                       const T* extra_tokens, const T** rows, T* result) {
  constexpr decltype(&accumulate_queries<T, 1>) table[] = {
      accumulate_queries<T, 1>, accumulate_queries<T, 2>, accumulate_queries<T, 3>,
      accumulate_queries<T, 4>};
  static_assert(sizeof(table) / sizeof(table[0]) == kShare);
  int64_t count = 0;
  for_each_row(block, box,
               [&](int64_t row) { rows[count++] = tokens + row * box.columns * box.padded_dim; });
  const Tokens<T> all{rows,
                      count,
                      extra_tokens,
                      problem.extra,
                      box.padded_dim,
                      block.chunks * kWidth<T>,
                      block.extra_lane,
                      block.lanes};
  const auto run = [&](int q, int queries, int64_t begin, int64_t end) {
    table[queries - 1](all, begin - box.begin[2], end - begin,
                       weights + q * block.lanes + (begin - block.origin[q]),
                       result + q * box.padded_dim);
  };
  if (finite) {
    for (int i = 0; i < block.shares; ++i) {
      const Share& share = block.share[i];
      run(share.first, share.count, share.begin, share.end);
    }
  } else {
    for (int q = 0; q < block.queries; ++q)
      run(q, 1, windows.begin[block.z + q], windows.end[block.z + q]);
  }
}

// The relative position bias of one head, with room around it for the lanes outside a window.
template <typename T>
struct BiasTable {
  int64_t size[3];
  static constexpr int64_t kFront = kBlock;

  explicit BiasTable(const Problem& problem) {
    for (int a = 0; a < 3; ++a) size[a] = 2 * problem.axis[a].kernel - 1;
  }
  int64_t count() const { return size[0] * size[1] * size[2]; }
  int64_t padded() const { return kFront + count() + kBlock + 2 * kWidth<T>; }
  // Where lane 0 of the row of keys (rx, ry) stands for query q of the block, counted from the
  // padded table's start.
  int64_t offset(const Problem& problem, const Block& block, int q, int64_t rx, int64_t ry) const {
    const int64_t x = rx - block.x + problem.axis[0].kernel - 1;
    const int64_t y = ry - block.y + problem.axis[1].kernel - 1;
    const int64_t z = block.origin[q] - (block.z + q) + problem.axis[2].kernel - 1;
    return kFront + (x * size[1] + y) * size[2] + z;
  }
  void load_head(const T* bias, int64_t head, T* to) const {
    for (int64_t i = 0; i < padded(); ++i) to[i] = T(0);
    for (int64_t i = 0; i < count(); ++i) to[kFront + i] = bias[head * count() + i];
  }
};

// Calls f(first lane, mask, bias offset) for every vector of query q; the additional keys have bias
// offset -1, as have all keys where there is no bias.
template <typename T, bool kBias, typename F>
inline __attribute__((always_inline)) void for_each_vector(const Problem& problem,
                                                           const Block& block,
                                                           const Windows& windows,
                                                           const BiasTable<T>& table, int q,
                                                           const F& f) {
  constexpr int W = kWidth<T>;
  const int64_t begin = windows.begin[block.z + q] - block.origin[q];
  const int64_t end = windows.end[block.z + q] - block.origin[q];
  for (int64_t c = 0; c < block.chunks; ++c) {
    const Mask<T> mask = lanes_between<T>(begin - c * W, end - c * W);
    int64_t lane = c * W;
    if constexpr (!kBias) {
      const int64_t step = block.chunks * W;
      for (const int64_t last = block.extra_lane; lane < last; lane += step) f(lane, mask, -1);
      continue;
    }
    for (int64_t rx = block.row_begin[0]; rx < block.row_end[0]; ++rx) {
      for (int64_t ry = block.row_begin[1]; ry < block.row_end[1]; ++ry, lane += block.chunks * W) {
        f(lane, mask, table.offset(problem, block, q, rx, ry) + c * W);
      }
    }
  }
  for (int64_t s = 0; s < problem.extra; s += W) {
    f(block.extra_lane + s, lanes_between<T>(0, problem.extra - s), int64_t{-1});
  }
}

}  // namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE
