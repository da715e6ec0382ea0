// A tile's keys and values in scratch: transposed (lanes = keys) for scores, as rows (lanes = D)
// for weighted sums. Dilation, strides and heads are absorbed here.
#pragma once

#include "common/math.inl"
#include "neighborhood_attention/kernel.h"

namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE {

using namespace ::saccade::SACCADE_ISA_NAMESPACE;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename T>
inline int64_t round_up(int64_t n) {
  return ceil_div(n, kWidth<T>) * kWidth<T>;
}

// Row stride of transposed keys of which `lanes` are read: an odd number of vectors keeps the rows
// of one column in different cache sets.
template <typename T>
inline int64_t column_stride(int64_t lanes) {
  return (ceil_div(lanes, kWidth<T>) | 1) * kWidth<T>;
}

// Takes arrays off one scratch buffer, each at the start of a cache line.
template <typename T>
class Scratch {
 public:
  explicit Scratch(T* base) : base_(base) {}
  T* take(int64_t count) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    T* array = base_ + used_;
    used_ += ceil_div(count, line) * line;
    return array;
  }
  int64_t used() const { return used_; }

 private:
  T* base_;
  int64_t used_ = 0;
};

// The box of keys that a tile sees, and its layouts.
template <typename T>
struct Box {
  int64_t begin[3], size[3];
  int64_t rows, columns, dim, padded_dim, stride;

  Box(const Problem& problem, const Tile& tile) {
    for (int a = 0; a < 3; ++a) {
      begin[a] = tile.key[a][0];
      size[a] = tile.key[a][1] - tile.key[a][0];
    }
    rows = size[0] * size[1];
    columns = size[2];
    dim = problem.head_dim;
    padded_dim = round_up<T>(dim);
    // The last window is read in whole vectors.
    const int64_t last = tile.axis[2].begin[tile.query[2][1] - 1] - begin[2];
    const int64_t read = last + round_up<T>(problem.axis[2].kernel);
    stride = column_stride<T>(read < columns ? columns : read);
  }
  int64_t row(int64_t x, int64_t y) const { return (x - begin[0]) * size[1] + (y - begin[1]); }
  int64_t transposed_size() const { return rows * dim * stride; }
  int64_t token_size() const { return rows * columns * padded_dim; }
};

template <typename T>
inline const T* token_ptr(const View<const T>& view, const Problem& problem, const Tile& tile,
                          int64_t batch, int64_t head, int64_t x, int64_t y, int64_t z) {
  const T* p = view.data + batch * view.batch + head * view.head;
  const int64_t position[3] = {x, y, z};
  for (int a = 0; a < 3; ++a)
    p += (tile.group[a] + position[a] * problem.axis[a].dilation) * view.token[a];
  return p;
}

// From a token to its neighbour in the dilation group, along the last axis.
template <typename T>
inline int64_t token_step(const View<const T>& view, const Problem& problem) {
  return view.token[2] * problem.axis[2].dilation;
}

// Offset of a token in contiguous [B, X, Y, Z, h].
inline int64_t flat_index(const Problem& problem, const Tile& tile, int64_t heads, int64_t batch,
                          int64_t head, int64_t x, int64_t y, int64_t z) {
  const int64_t position[3] = {x, y, z};
  int64_t index = batch;
  for (int a = 0; a < 3; ++a) {
    index = index * problem.axis[a].length + tile.group[a] + position[a] * problem.axis[a].dilation;
  }
  return index * heads + head;
}

// Tokens stand far apart in memory where there are several heads, and the hardware does not foresee
// the next one. Into the second-level cache: the first is full of keys until the token's turn
// comes.
template <bool kWrite = false, typename T>
inline __attribute__((always_inline)) void prefetch_token(const T* p, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 64 / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(p + d, kWrite ? 1 : 0, 2);
  }
}

// How far ahead to prefetch: whole rows, or along the only row.
template <typename T>
inline int64_t prefetch_distance(const View<const T>& view, const Problem& problem,
                                 const Tile& tile) {
  constexpr int64_t tokens = 16;
  const int64_t columns = tile.query[2][1] - tile.query[2][0];
  if (tile.query[1][1] - tile.query[1][0] == 1) return tokens * token_step(view, problem);
  return ceil_div(tokens, columns) * view.token[1] * problem.axis[1].dilation;
}

// [columns][dim] with any column step -> [dim][stride], zeros behind the last column.
template <typename T>
inline void transpose(const T* from, int64_t step, int64_t columns, int64_t dim, int64_t stride,
                      int64_t ahead, T* to) {
  constexpr int W = kWidth<T>;
  int64_t c = 0;
  for (; c < columns; c += W) {
    // Lanes behind the last column repeat it; nobody looks at them.
    const T* column[W];
    for (int64_t i = 0; i < W; ++i) column[i] = from + min(c + i, columns - 1) * step;
    for (int64_t i = 0; i < W; ++i) prefetch_token(column[i] + ahead, dim);
    int64_t d = 0;
    for (; d + W <= dim; d += W) {
      Vec<T> square[W];
      for (int i = 0; i < W; ++i) square[i] = load(column[i] + d);
      transpose_square<T>(square);
      for (int i = 0; i < W; ++i) store<T>(to + (d + i) * stride + c, square[i]);
    }
    for (; d < dim; ++d) {
      for (int i = 0; i < W; ++i) to[d * stride + c + i] = column[i][d];
    }
  }
  for (; c < stride; c += W) {
    for (int64_t d = 0; d < dim; ++d) store<T>(to + d * stride + c, Vec<T>{});
  }
}

// One token's D values behind each other, zeros up to a whole vector.
template <typename T>
inline void copy_token(const T* from, int64_t dim, int64_t padded_dim, T factor, T* to) {
  int64_t d = 0;
  for (; d + kWidth<T> <= dim; d += kWidth<T>) store<T>(to + d, load(from + d) * factor);
  if (d < padded_dim) store<T>(to + d, load_partial(from + d, dim - d) * factor);
}

template <typename T>
inline void store_token(const T* from, int64_t dim, T factor, T* to) {
  int64_t d = 0;
  for (; d + kWidth<T> <= dim; d += kWidth<T>) store<T>(to + d, load(from + d) * factor);
  if (d < dim) store_partial<T>(to + d, load(from + d) * factor, dim - d);
}

// Tokens as rows of padded_dim values; returns whether all of them are finite.
template <typename T>
inline bool copy_tokens(const T* from, int64_t step, int64_t count, const Box<T>& box,
                        int64_t ahead, T* to) {
  // Bits of NaN where a value is not finite, else of zero.
  typename Simd<T>::Bits poison{};
  const auto copy = [&](int64_t d, Vec<T> v) __attribute__((always_inline)) {
    store<T>(to + d, v);
    poison |= bits_of<T>(v - v);
  };
  for (int64_t i = 0; i < count; ++i, from += step, to += box.padded_dim) {
    prefetch_token(from + ahead, box.dim);
    int64_t d = 0;
    for (; d + kWidth<T> <= box.dim; d += kWidth<T>) copy(d, load(from + d));
    if (d < box.dim) copy(d, load_partial(from + d, box.dim - d));
  }
  return horizontal_sum<T>(of_bits<T>(poison)) == T(0);
}

template <typename T>
inline void pack_transposed(const View<const T>& view, const Problem& problem, const Tile& tile,
                            int64_t batch, int64_t head, const Box<T>& box, T* to) {
  const int64_t step = token_step(view, problem);
  const int64_t ahead = prefetch_distance(view, problem, tile);
  for (int64_t x = 0; x < box.size[0]; ++x) {
    for (int64_t y = 0; y < box.size[1]; ++y) {
      const T* from = token_ptr(view, problem, tile, batch, head, box.begin[0] + x,
                                box.begin[1] + y, box.begin[2]);
      transpose(from, step, box.columns, box.dim, box.stride, ahead,
                to + (x * box.size[1] + y) * box.dim * box.stride);
    }
  }
}

template <typename T>
inline bool pack_tokens(const View<const T>& view, const Problem& problem, const Tile& tile,
                        int64_t batch, int64_t head, const Box<T>& box, T* to) {
  const int64_t step = token_step(view, problem);
  const int64_t ahead = prefetch_distance(view, problem, tile);
  bool finite = true;
  for (int64_t x = 0; x < box.size[0]; ++x) {
    for (int64_t y = 0; y < box.size[1]; ++y) {
      const T* from = token_ptr(view, problem, tile, batch, head, box.begin[0] + x,
                                box.begin[1] + y, box.begin[2]);
      T* row = to + (x * box.size[1] + y) * box.columns * box.padded_dim;
      finite &= copy_tokens(from, step, box.columns, box, ahead, row);
    }
  }
  return finite;
}

// The additional keys or values of one batch entry and head.
template <typename T>
inline const T* extra_ptr(const View<const T>& view, int64_t batch, int64_t head) {
  return view.data + batch * view.batch + head * view.head;
}

template <typename T>
inline void pack_extra_transposed(const View<const T>& view, const Problem& problem, int64_t batch,
                                  int64_t head, T* to) {
  if (problem.extra == 0) return;
  transpose(extra_ptr(view, batch, head), view.token[2], problem.extra, problem.head_dim,
            column_stride<T>(problem.extra), 0, to);
}

template <typename T>
inline bool pack_extra_tokens(const View<const T>& view, const Problem& problem, int64_t batch,
                              int64_t head, const Box<T>& box, T* to) {
  return problem.extra == 0 ||
         copy_tokens(extra_ptr(view, batch, head), view.token[2], problem.extra, box, 0, to);
}

}  // namespace saccade::neighborhood_attention::SACCADE_ISA_NAMESPACE
