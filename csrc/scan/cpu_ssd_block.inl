// SSD in blocks of a few steps. With H the state [N][P] before a block, d the decays, E the product
// of decays from the block's start to a step, F that of the decays after it, D that of all and
// L[i][j] that of those between j and i (i included),
//   y_i = E_i c_i H + sum over j <= i of L[i][j] (c_i . b_j) x_j,   H' = D H + sum of F_j b_j x_j,
// so that a number of the state is scaled once a block and meets two multiply-adds a step. Every
// decay is a product of at most kSsdSteps ones: none is a quotient or a difference of sums. The
// gradient of the state goes the same way backwards.
#pragma once

#include "scan/cpu_ssd_head.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// Steps of a block; what does not fill one, and what a forgotten state would cut, is single steps.
constexpr int kSsdSteps = 4;
// N is padded to a multiple of this.
constexpr int kSsdStates = 4;
// Vectors of columns whose sums for a block stay in registers.
constexpr int kTile = SACCADE_REGISTERS / 8;

struct SsdBlock {
  int64_t first;   // step
  bool whole;      // kSsdSteps steps, else one
  bool forgotten;  // the state before it counts as zero
};

// Calls f(block, number of steps as a constant).
template <typename F>
SACCADE_INLINE void with_steps(const SsdBlock& block, const F& f) {
  if (block.whole) {
    f(std::integral_constant<int, kSsdSteps>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

// Blocks of a stretch, and the products of decays in them.
template <typename T>
struct SsdBlocks {
  int64_t count;
  SsdBlock* block;         // [stretch]
  T* decay;                // [stretch], d
  T *from_start, *to_end;  // [stretch], E and F

  SsdBlocks(int64_t stretch, Arena<T>& arena) {
    const int64_t steps = (stretch + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
    block = reinterpret_cast<SsdBlock*>(
        arena.take(stretch * static_cast<int64_t>(sizeof(SsdBlock) / sizeof(T))));
    decay = arena.take(steps);
    from_start = arena.take(steps);
    to_end = arena.take(steps);
  }

  void cut(int64_t steps, const uint8_t* forget) {
    count = 0;
    for (int64_t t = 0; t < steps;) {
      bool whole = t + kSsdSteps <= steps;
      for (int i = 1; whole && forget != nullptr && i < kSsdSteps; ++i) whole = !forget[t + i];
      block[count++] = {t, whole, forget != nullptr && forget[t] != 0};
      const int64_t last = t + (whole ? kSsdSteps : 1) - 1;
      from_start[t] = decay[t];
      for (int64_t i = t + 1; i <= last; ++i) from_start[i] = from_start[i - 1] * decay[i];
      to_end[last] = T(1);
      for (int64_t i = last; i > t; --i) to_end[i - 1] = to_end[i] * decay[i];
      t = last + 1;
    }
  }
  // D
  T whole_decay(const SsdBlock& b) const {
    return from_start[b.first + (b.whole ? kSsdSteps : 1) - 1];
  }
  // L[i][j] for j <= i of a block, else zero.
  template <int kSteps>
  void between(const SsdBlock& b, T (&product)[kSteps][kSteps]) const {
    for (int j = 0; j < kSteps; ++j) {
      T so_far = T(1);
      for (int i = 0; i < kSteps; ++i) {
        if (i > j) so_far *= decay[b.first + i];
        product[i][j] = i < j ? T(0) : so_far;
      }
    }
  }
};

// `rows` states, each of them `columns` numbers, through a block.
template <typename T>
struct SsdAdvance {
  int64_t rows, columns;
  T decay;
  const T* from;
  T* to;        // decay from + sum of in_by[step] in[step]
  const T* in;  // [steps][columns]
  Coefficients<T> in_by;
  Coefficients<T> out_by;
  T* out;          // [steps][columns], grows by the sum over states of out_by from
  const T* other;  // [rows][columns]
  T* product;      // [lanes], grows by from times other
};

template <typename T, int kVectors, int kSteps, bool kOut, bool kProduct>
inline void ssd_advance(const SsdAdvance<T>& a, int64_t column) {
  constexpr int W = kWidth<T>;
  const int64_t columns = a.columns;
  const T* in = a.in + column;
  T* out = a.out + column;
  Vec<T> sum[kSteps][kVectors], product{};
  if constexpr (kOut) {
    SACCADE_UNROLL
    for (int t = 0; t < kSteps; ++t) {
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[t][v] = load(out + t * columns + v * W);
    }
  }
  for (int64_t n = 0; n < a.rows; ++n) {
    const int64_t at = n * columns + column;
    Vec<T> h[kVectors];
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) h[v] = load(a.from + at + v * W);
    if constexpr (kOut) {
      SACCADE_UNROLL
      for (int t = 0; t < kSteps; ++t) {
        const T by = a.out_by.first[t * a.out_by.stride + n];
        SACCADE_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[t][v] += by * h[v];
      }
    }
    if constexpr (kProduct) {
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) product += h[v] * load(a.other + at + v * W);
    }
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) h[v] *= a.decay;
    SACCADE_UNROLL
    for (int t = 0; t < kSteps; ++t) {
      const T by = a.in_by.first[t * a.in_by.stride + n];
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) h[v] += by * load(in + t * columns + v * W);
    }
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) store<T>(a.to + at + v * W, h[v]);
  }
  if constexpr (kOut) {
    SACCADE_UNROLL
    for (int t = 0; t < kSteps; ++t) {
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) store<T>(out + t * columns + v * W, sum[t][v]);
    }
  }
  if constexpr (kProduct) store<T>(a.product, load(a.product) + product);
}

template <typename T, int kSteps, bool kOut, bool kProduct = false>
void ssd_advance_columns(const SsdAdvance<T>& a) {
  constexpr int W = kWidth<T>;
  int64_t column = 0;
  for (; column + kTile * W <= a.columns; column += kTile * W)
    ssd_advance<T, kTile, kSteps, kOut, kProduct>(a, column);
  for (; column < a.columns; column += W) ssd_advance<T, 1, kSteps, kOut, kProduct>(a, column);
}

// dots[i][j] = a_i . b_j for j <= i, else zero; rows of `count` numbers.
template <typename T, int kSteps>
inline void ssd_dots(Coefficients<T> a, Coefficients<T> b, int64_t count,
                     T (&dots)[kSteps][kSteps]) {
  Vec<T> sum[kSteps * kSteps]{};
  for (int64_t n = 0; n < count; n += kWidth<T>) {
    Vec<T> bn[kSteps];
    SACCADE_UNROLL
    for (int j = 0; j < kSteps; ++j) bn[j] = load_partial(b.first + j * b.stride + n, count - n);
    SACCADE_UNROLL
    for (int i = 0; i < kSteps; ++i) {
      const Vec<T> an = load_partial(a.first + i * a.stride + n, count - n);
      SACCADE_UNROLL
      for (int j = 0; j <= i; ++j) sum[i * kSteps + j] += an * bn[j];
    }
  }
  SACCADE_UNROLL
  for (int i = 0; i < kSteps; ++i) {
    SACCADE_UNROLL
    for (int j = 0; j < kSteps; ++j) dots[i][j] = T(0);
  }
  add_row_sums<T, kSteps * kSteps>(sum, dots[0]);
}

// y_i = E_i y_i + sum over j <= i of by[i][j] x_j, where y held c_i H.
template <typename T, int kSteps>
inline void ssd_finish(const T* from_start, const T (&by)[kSteps][kSteps], int64_t columns,
                       const T* x, T* y) {
  constexpr int W = kWidth<T>;
  for (int64_t p = 0; p < columns; p += W) {
    Vec<T> xs[kSteps];
    SACCADE_UNROLL
    for (int j = 0; j < kSteps; ++j) xs[j] = load(x + j * columns + p);
    SACCADE_UNROLL
    for (int i = 0; i < kSteps; ++i) {
      Vec<T> sum = load(y + i * columns + p) * from_start[i];
      SACCADE_UNROLL
      for (int j = 0; j <= i; ++j) sum += xs[j] * by[i][j];
      store<T>(y + i * columns + p, sum);
    }
  }
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
