// The product of the dense bases: six broadcast rows by a panel of vectors, all sums in registers.
#pragma once

#include "kan/cpu_pack.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

constexpr int kTileRows = 6;
constexpr int kPanelVectors = SACCADE_REGISTERS == 32 ? 4 : 2;
template <typename T>
constexpr int64_t kPanel = kPanelVectors * kWidth<T>;

// c[r][panel] += sum_k a(r, k) b[k][panel]; a(r, k) is a[k * lda + r] where across, else
// a[r * lda + k].
template <typename T, bool across>
inline __attribute__((always_inline)) void tile(const T* a, int64_t lda, const T* b, int64_t depth,
                                                T* c, int64_t ldc) {
  constexpr int W = kWidth<T>;
  Vec<T> sum[kTileRows][kPanelVectors];
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) sum[r][v] = load(c + r * ldc + v * W);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> right[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) right[v] = in_register(load(b + k * kPanel<T> + v * W));
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> left = broadcast<T>(across ? a[k * lda + r] : a[r * lda + k]);
      for (int v = 0; v < kPanelVectors; ++v) sum[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kPanelVectors; ++v) store<T>(c + r * ldc + v * W, sum[r][v]);
  }
}

// As tile, for any number of rows; `columns` of the panel exist in c. a may be read, not used, up
// to the next multiple of kTileRows.
template <typename T, bool across>
inline void product(const T* a, int64_t lda, int64_t rows, const T* b, int64_t depth, T* c,
                    int64_t ldc, int64_t columns) {
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const T* left = across ? a + r : a + r * lda;
    if (r + kTileRows <= rows && columns >= kPanel<T>) {
      tile<T, across>(left, lda, b, depth, c + r * ldc, ldc);
      continue;
    }
    T edge[kTileRows * kPanel<T>] = {};
    tile<T, across>(left, lda, b, depth, edge, kPanel<T>);
    for (int64_t j = 0; j < least(kTileRows, rows - r); ++j) {
      for (int64_t o = 0; o < least(columns, kPanel<T>); ++o)
        c[(r + j) * ldc + o] += edge[j * kPanel<T> + o];
    }
  }
}

template <typename T>
void pack_grad(const Problem& p, const T* grad_out, int64_t rows, T* packed) {
  for (int64_t o = 0; o < p.out; o += kPanel<T>) {
    const int64_t columns = least(kPanel<T>, p.out - o);
    for (int64_t r = 0; r < rows; ++r, packed += kPanel<T>) {
      const T* from = grad_out + r * p.out + o;
      for (int64_t j = 0; j < columns; ++j) packed[j] = from[j];
      for (int64_t j = columns; j < kPanel<T>; ++j) packed[j] = T(0);
    }
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
