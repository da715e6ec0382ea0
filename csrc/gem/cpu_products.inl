// Sums over columns, read once in tiles that stay in the first-level cache. Within a tile products
// are summed in T, a few hundred of them in every lane; tiles are summed in float64.
#pragma once

#include "gem/cpu_simd.inl"
#include "gem/kernel.h"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

// A square of products that are summed in registers.
constexpr int kBlock = SACCADE_REGISTERS >= 32 ? 4 : 3;
constexpr int64_t kTileBytes = 24 * 1024;
constexpr int64_t kLine = 64;
constexpr int64_t kPointerBytes = sizeof(const void*);

inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

// Columns of a tile of so many rows, whole vectors.
template <typename T>
int64_t tile_columns(int64_t rows) {
  const int64_t fits = kTileBytes / static_cast<int64_t>(sizeof(T)) / rows;
  const int64_t columns = fits < 128 ? 128 : fits > 1024 ? 1024 : fits;
  return columns / 32 * 32;
}

// Scratch: a packed tile, and a table of the rows' pointers.
inline int64_t pointers_in(int64_t rows) { return rows + kBlock; }

template <typename T>
int64_t scratch_size(int64_t t) {
  const int64_t rows = t + 1;
  return pointers_in(rows) * kPointerBytes / static_cast<int64_t>(sizeof(T)) +
         (rows + 1) * tile_columns<T>(rows);
}

// The rows of a piece, tile after tile, as pointers to contiguous columns: in place where they are
// contiguous and fill whole vectors, else packed with zeros behind them.
template <typename T>
class Tiles {
 public:
  Tiles(const Piece<T>& piece, int64_t t, T* scratch)
      : piece_(piece),
        t_(t),
        columns_(tile_columns<T>(t + 1)),
        rows_(reinterpret_cast<const T**>(scratch)),
        packed_(scratch + pointers_in(t + 1) * kPointerBytes / static_cast<int64_t>(sizeof(T))),
        zeros_(packed_ + (t + 1) * columns_) {
    for (int64_t x = 0; x < columns_; ++x) zeros_[x] = T(0);
  }

  int64_t columns() const { return columns_; }

  // Rows of columns [begin, begin + count), the gradient last, `count` rounded up to vectors.
  const T* const* at(int64_t begin, int64_t& count) {
    const int64_t given = count;
    const bool whole = given % kWidth<T> == 0;
    count = (given + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
    for (int64_t i = 0; i < t_; ++i) {
      const T* const row = piece_.memory[i];
      rows_[i] = row == nullptr ? zeros_
                 : whole && piece_.stride == 1
                     ? row + begin
                     : pack_row(row, piece_.stride, i, begin, given, count);
    }
    rows_[t_] = whole ? piece_.grad + begin : pack_row(piece_.grad, 1, t_, begin, given, count);
    for (int64_t i = t_ + 1; i < pointers_in(t_ + 1); ++i) rows_[i] = rows_[t_];
    return rows_;
  }

  // Asks for the lines that the next tile holds of one row.
  void prefetch(int64_t i, int64_t begin, int64_t count) const {
    const T* const row = i < t_ ? piece_.memory[i] : piece_.grad;
    if (row == nullptr || (i < t_ && piece_.stride != 1)) return;
    const char* const p = reinterpret_cast<const char*>(row + begin);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(p + at, 0, 2);
  }

 private:
  const T* pack_row(const T* row, int64_t stride, int64_t i, int64_t begin, int64_t given,
                    int64_t count) {
    T* const to = packed_ + i * columns_;
    for (int64_t x = 0; x < given; ++x) to[x] = row[(begin + x) * stride];
    for (int64_t x = given; x < count; ++x) to[x] = T(0);
    return to;
  }

  const Piece<T>& piece_;
  const int64_t t_, columns_;
  const T** const rows_;
  T* const packed_;
  T* const zeros_;
};

// Products of R rows with C rows, over whole vectors.
template <typename T, int R, int C>
inline __attribute__((always_inline)) void products(const T* const* a, const T* const* b,
                                                    int64_t count, T (*sums)[C]) {
  Vec<T> total[R][C] = {};
  const T* left[R];
  const T* right[C];
  for (int i = 0; i < R; ++i) left[i] = a[i];
  for (int j = 0; j < C; ++j) right[j] = b[j];
  for (int64_t x = 0; x < count; x += kWidth<T>) {
    Vec<T> value[C];
    for (int j = 0; j < C; ++j) value[j] = in_register(load(right[j] + x));
    for (int i = 0; i < R; ++i) {
      const Vec<T> row = in_register(load(left[i] + x));
      for (int j = 0; j < C; ++j) total[i][j] += row * value[j];
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < C; ++j) sums[i][j] = horizontal_sum<T>(total[i][j]);
  }
}

template <typename T>
void gram(const Piece<T>& piece, int64_t t, T* scratch, double* sums) {
  Tiles<T> tiles(piece, t, scratch);
  const int64_t rows = t + 1;
  const int64_t end = piece.begin + piece.count;
  for (int64_t begin = piece.begin; begin < end; begin += tiles.columns()) {
    int64_t count = at_most(tiles.columns(), end - begin);
    const int64_t next = begin + count;
    const int64_t ahead = at_most(tiles.columns(), end - next);
    const T* const* const row = tiles.at(begin, count);
    for (int64_t i = 0; i < rows; i += kBlock) {
      for (int64_t k = i; k < at_most(i + kBlock, rows); ++k) tiles.prefetch(k, next, ahead);
      for (int64_t j = 0; j <= i; j += kBlock) {
        T block[kBlock][kBlock];
        products<T, kBlock, kBlock>(row + i, row + j, count, block);
        for (int64_t p = i; p < at_most(i + kBlock, rows); ++p) {
          for (int64_t q = j; q <= at_most(j + kBlock - 1, p); ++q) {
            sums[p * (p + 1) / 2 + q] += static_cast<double>(block[p - i][q - j]);
          }
        }
      }
    }
  }
}

template <typename T>
void dot(const Piece<T>& piece, int64_t t, const double* wanted, T* scratch, double* sums) {
  Tiles<T> tiles(piece, t, scratch);
  const int64_t end = piece.begin + piece.count;
  for (int64_t begin = piece.begin; begin < end; begin += tiles.columns()) {
    int64_t count = at_most(tiles.columns(), end - begin);
    const T* const* const row = tiles.at(begin, count);
    for (int64_t i = 0; i < t; ++i) {
      if (wanted[i] == 0.0) continue;
      T sum[1][1];
      products<T, 1, 1>(row + i, row + t, count, sum);
      sums[i] += static_cast<double>(sum[0][0]);
    }
  }
}

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
