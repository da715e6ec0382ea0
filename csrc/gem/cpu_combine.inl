// Sums of rows, in float64, rounded once.
#pragma once

#include "gem/cpu_products.inl"

namespace saccade::gem::SACCADE_ISA_NAMESPACE {

typedef float Half __attribute__((vector_size(SACCADE_BYTES / 2)));
typedef float HalfUnaligned __attribute__((vector_size(SACCADE_BYTES / 2), aligned(4), may_alias));

inline Vec<double> load_double(const double* p) { return load(p); }
inline Vec<double> load_double(const float* p) {
  const Half half = *reinterpret_cast<const HalfUnaligned*>(p);
  return __builtin_convertvector(half, Vec<double>);
}
inline void store_double(double* p, Vec<double> v) { store<double>(p, v); }
inline void store_double(float* p, Vec<double> v) {
  *reinterpret_cast<HalfUnaligned*>(p) = __builtin_convertvector(v, Half);
}

template <typename T>
void combine(const Piece<T>& piece, int64_t t, const double* factor, T* scratch, T* out) {
  constexpr int W = kWidth<double>;
  constexpr int kUnroll = 4;
  Tiles<T> tiles(piece, t, scratch);
  const int64_t end = piece.begin + piece.count;
  for (int64_t begin = piece.begin; begin < end; begin += tiles.columns()) {
    const int64_t given = at_most(tiles.columns(), end - begin);
    int64_t count = given;
    const T* const* const row = tiles.at(begin, count);
    T* const to = out + begin;
    int64_t x = 0;
    for (; x + W * kUnroll <= given; x += W * kUnroll) {
      Vec<double> sum[kUnroll];
      for (int u = 0; u < kUnroll; ++u) sum[u] = load_double(row[t] + x + u * W);
      for (int64_t i = 0; i < t; ++i) {
        if (factor[i] == 0.0) continue;
        const Vec<double> f = broadcast<double>(factor[i]);
        for (int u = 0; u < kUnroll; ++u) sum[u] += f * load_double(row[i] + x + u * W);
      }
      for (int u = 0; u < kUnroll; ++u) store_double(to + x + u * W, sum[u]);
    }
    for (; x < given; ++x) {
      double sum = static_cast<double>(row[t][x]);
      for (int64_t i = 0; i < t; ++i) {
        if (factor[i] != 0.0) sum += factor[i] * static_cast<double>(row[i][x]);
      }
      to[x] = static_cast<T>(sum);
    }
  }
}

template <typename T>
void outer(const T* a, const T* b, int64_t t, const double* left, const double* right,
           int64_t count, T* const* rows) {
  if (count == 0) return;
  for (int64_t i = 0; i < t; ++i) {
    T* const row = rows[i];
    const T f = static_cast<T>(left[i]), g = static_cast<T>(right[i]);
    if (f == T(0) && g == T(0)) {
      memset(row, 0, static_cast<size_t>(count) * sizeof(T));
      continue;
    }
    for (int64_t x = 0; x < count; ++x) row[x] = f * a[x] + g * b[x];
  }
}

}  // namespace saccade::gem::SACCADE_ISA_NAMESPACE
