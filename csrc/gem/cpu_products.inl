// Sums over columns, read once in tiles that stay in the first-level cache. Within a tile products
// are summed in T, a few hundred of them in every lane; tiles are summed in float64.
#pragma once

#include "gem/cpu_simd.inl"
#include "gem/kernel.h"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

// A square of products that are summed in registers.
constexpr int kBlock = SACCADE_REGISTERS >= 32 ? 4 : 3;
constexpr int64_t kTileBytes = 16 * 1024;
// Columns whose products are summed in T, kWidth<T> lanes together.
constexpr int64_t kSummed = 1024;
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
int64_t tiles_size(int64_t t) {
  const int64_t rows = t + 1;
  return pointers_in(rows) * kPointerBytes / static_cast<int64_t>(sizeof(T)) +
         (rows + 1) * tile_columns<T>(rows);
}

// Sums of all blocks, lane by lane.
template <typename T>
int64_t lanes_size(int64_t rows) {
  const int64_t blocks = (rows + kBlock - 1) / kBlock;
  return blocks * (blocks + 1) / 2 * kBlock * kBlock * kWidth<T>;
}

template <typename T>
int64_t scratch_size(int64_t t) {
  return tiles_size<T>(t) + lanes_size<T>(t + 1);
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

  // Where the tile after the one at `begin` holds row i, for prefetching; somewhere where there is
  // none.
  const T* next(int64_t i, int64_t begin) const {
    const int64_t x = begin + columns_;
    if (x >= piece_.begin + piece_.count || i > t_) return zeros_;
    if (i == t_) return piece_.grad + x;
    const T* const row = piece_.memory[i];
    return row == nullptr || piece_.stride != 1 ? zeros_ : row + x;
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

// Adds the products of R rows with C rows, over whole vectors, to `sums`, lane by lane; of a block
// on the diagonal the lower triangle alone.
template <typename T, int R, int C, bool kDiagonal>
inline __attribute__((always_inline)) void products(const T* const* a, const T* const* b,
                                                    int64_t count, const T* const* ahead, T* sums) {
  constexpr int W = kWidth<T>;
  Vec<T> total[R][C];
  const T* left[R];
  const T* right[C];
  for (int i = 0; i < R; ++i) left[i] = a[i];
  for (int j = 0; j < C; ++j) right[j] = b[j];
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < (kDiagonal ? i + 1 : C); ++j) total[i][j] = load(sums + (i * C + j) * W);
  }
  const T* later[kBlock];
  for (int k = 0; k < kBlock; ++k) later[k] = ahead[k];
  for (int64_t x = 0; x < count; x += W) {
    for (int k = 0; k < kBlock; ++k) __builtin_prefetch(later[k] + x, 0, 3);
    Vec<T> value[C];
    for (int j = 0; j < C; ++j) value[j] = in_register(load(right[j] + x));
    for (int i = 0; i < R; ++i) {
      const Vec<T> row = kDiagonal ? value[i < C ? i : 0] : in_register(load(left[i] + x));
      for (int j = 0; j < (kDiagonal ? i + 1 : C); ++j) total[i][j] += row * value[j];
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < (kDiagonal ? i + 1 : C); ++j) store<T>(sums + (i * C + j) * W, total[i][j]);
  }
}

// The same for R and C known at run time; below the diagonal C is a whole block.
template <typename T, int R = kBlock>
inline void block_products(const T* const* a, const T* const* b, int64_t rows, int64_t count,
                           bool diagonal, const T* const* ahead, T* sums) {
  if constexpr (R > 1) {
    if (rows < R) return block_products<T, R - 1>(a, b, rows, count, diagonal, ahead, sums);
  }
  if (diagonal) {
    products<T, R, R, true>(a, b, count, ahead, sums);
  } else {
    products<T, R, kBlock, false>(a, b, count, ahead, sums);
  }
}

// Adds sums lane by lane, of all blocks, to the packed triangle and clears them.
template <typename T>
void flush(int64_t rows, T* lanes, double* sums) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    const int64_t height = at_most(kBlock, rows - i);
    for (int64_t j = 0; j <= i; j += kBlock) {
      const int64_t width = i == j ? height : kBlock;
      for (int64_t p = 0; p < height; ++p) {
        for (int64_t q = 0; q < (i == j ? p + 1 : width); ++q) {
          const T* const lane = lanes + (p * width + q) * kWidth<T>;
          double total = 0.0;
          for (int x = 0; x < kWidth<T>; ++x) total += static_cast<double>(lane[x]);
          sums[(i + p) * (i + p + 1) / 2 + j + q] += total;
        }
      }
      fill_zero(lanes, kBlock * kBlock * kWidth<T>);
      lanes += kBlock * kBlock * kWidth<T>;
    }
  }
}

template <typename T>
void gram(const Piece<T>& piece, int64_t t, T* scratch, double* sums) {
  Tiles<T> tiles(piece, t, scratch);
  const int64_t rows = t + 1;
  T* const lanes = scratch + tiles_size<T>(t);
  fill_zero(lanes, lanes_size<T>(rows));
  const int64_t end = piece.begin + piece.count;
  const int64_t blocks = (rows + kBlock - 1) / kBlock, pairs = blocks * (blocks + 1) / 2;
  // each pair of blocks asks for its share of the next tile's rows
  const int64_t share = (rows + pairs - 1) / pairs;
  int64_t summed = 0;
  for (int64_t begin = piece.begin; begin < end; begin += tiles.columns()) {
    int64_t count = at_most(tiles.columns(), end - begin);
    const T* const* const row = tiles.at(begin, count);
    T* block = lanes;
    int64_t asked = 0;
    for (int64_t i = 0; i < rows; i += kBlock) {
      const int64_t height = at_most(kBlock, rows - i);
      for (int64_t j = 0; j <= i; j += kBlock) {
        const T* ahead[kBlock];
        for (int k = 0; k < kBlock; ++k) {
          ahead[k] = tiles.next(k < share ? asked + k : asked, begin);
        }
        asked += share;
        block_products(row + i, row + j, height, count, i == j, ahead, block);
        block += kBlock * kBlock * kWidth<T>;
      }
    }
    summed += count;
    if (summed >= kSummed || begin + tiles.columns() >= end) {
      flush(rows, lanes, sums);
      summed = 0;
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
      T lanes[kWidth<T>] = {};
      const T* ahead[kBlock];
      for (const T*& p : ahead) p = tiles.next(i, begin);
      products<T, 1, 1, false>(row + i, row + t, count, ahead, lanes);
      for (int x = 0; x < kWidth<T>; ++x) sums[i] += static_cast<double>(lanes[x]);
    }
  }
}

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
