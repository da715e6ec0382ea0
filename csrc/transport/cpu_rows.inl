// Rows of a cost and of exp(potentials - cost / eps), a group at a time, padded to whole vectors.
#pragma once

#include "common/math.inl"
#include "transport/kernel.h"

namespace saccade::transport::SACCADE_ISA_NAMESPACE {

using saccade::SACCADE_ISA_NAMESPACE::broadcast;
using saccade::SACCADE_ISA_NAMESPACE::dot;
using saccade::SACCADE_ISA_NAMESPACE::exchange;
using saccade::SACCADE_ISA_NAMESPACE::exp_bounded;
using saccade::SACCADE_ISA_NAMESPACE::fill_zero;
using saccade::SACCADE_ISA_NAMESPACE::horizontal_max;
using saccade::SACCADE_ISA_NAMESPACE::horizontal_sum;
using saccade::SACCADE_ISA_NAMESPACE::in_register;
using saccade::SACCADE_ISA_NAMESPACE::kInfinity;
using saccade::SACCADE_ISA_NAMESPACE::kWidth;
using saccade::SACCADE_ISA_NAMESPACE::Lanes;
using saccade::SACCADE_ISA_NAMESPACE::load;
using saccade::SACCADE_ISA_NAMESPACE::load_partial;
using saccade::SACCADE_ISA_NAMESPACE::log_of;
using saccade::SACCADE_ISA_NAMESPACE::Mask;
using saccade::SACCADE_ISA_NAMESPACE::max;
using saccade::SACCADE_ISA_NAMESPACE::min;
using saccade::SACCADE_ISA_NAMESPACE::store;
using saccade::SACCADE_ISA_NAMESPACE::store_partial;
using saccade::SACCADE_ISA_NAMESPACE::swap_halves;
using saccade::SACCADE_ISA_NAMESPACE::Vec;

// Rows that share every load of a column's number.
constexpr int kGroup = SACCADE_REGISTERS >= 32 ? 8 : 4;
static_assert(kGroup <= kPanelRows);

#define SACCADE_INLINE inline __attribute__((always_inline))

template <typename V>
SACCADE_INLINE auto root(V x) {
  V y{};
  for (unsigned i = 0; i < sizeof(V) / sizeof(x[0]); ++i) {
    y[i] = sizeof(x[0]) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  }
  return y;
}

// Costs of R rows of points with every column. Differences are summed as such, so near points
// keep their digits.
template <typename T, int R, int U, bool kDot>
SACCADE_INLINE void pair_sums(const Cost<T>& cost, int64_t row, int64_t column, int64_t padded,
                              Vec<T> (&sum)[R][U]) {
  constexpr int W = kWidth<T>;
  for (int r = 0; r < R; ++r) {
    for (int u = 0; u < U; ++u) sum[r][u] = Vec<T>{};
  }
  for (int64_t k = 0; k < cost.dim; ++k) {
    Vec<T> y[U];
    for (int u = 0; u < U; ++u) y[u] = in_register(load(cost.y + k * padded + column + u * W));
    for (int r = 0; r < R; ++r) {
      const Vec<T> x = broadcast<T>(cost.x[(row + r) * cost.dim + k]);
      for (int u = 0; u < U; ++u) {
        const Vec<T> d = x - y[u];
        sum[r][u] += kDot ? x * y[u] : d * d;
      }
    }
  }
}

template <typename T, int R, int U>
SACCADE_INLINE void point_costs(const Block<T>& block, int64_t row, int64_t column, T* out) {
  constexpr int W = kWidth<T>;
  const Cost<T>& cost = block.cost;
  Vec<T> sum[R][U];
  if (cost.metric == kDistance) {
    pair_sums<T, R, U, false>(cost, row, column, block.padded, sum);
  } else {
    pair_sums<T, R, U, true>(cost, row, column, block.padded, sum);
  }
  for (int r = 0; r < R; ++r) {
    for (int u = 0; u < U; ++u) {
      Vec<T> c = sum[r][u];
      if (cost.metric == kDistance) {
        c = root(c);
      } else if (cost.metric == kOneMinusDot) {
        c = T(1) - c;
      } else {
        const Vec<T> squares = cost.x_square[row + r] + load(cost.y_square + column + u * W);
        c = squares - T(2) * c;
        // rounding alone makes it negative; NaN stays
        c = c < T(0) ? Vec<T>{} : c;
      }
      store<T>(out + r * block.padded + column + u * W, c);
    }
  }
}

template <typename T>
struct Panel {
  const T* rows;
  int64_t stride;
};

// Costs of rows [row, row + R), padded by whatever is finite or +inf: h is -inf there.
template <typename T, int R>
SACCADE_INLINE Panel<T> cost_rows(const Block<T>& block, int64_t row) {
  constexpr int W = kWidth<T>;
  const Cost<T>& cost = block.cost;
  if (cost.matrix != nullptr) {
    const T* const first = cost.matrix + row * cost.stride;
    if (block.padded == block.columns) return {first, cost.stride};
    for (int r = 0; r < R; ++r) {
      T* const to = block.panel + r * block.padded;
      __builtin_memcpy(to, first + r * cost.stride, block.columns * sizeof(T));
      for (int64_t j = block.columns; j < block.padded; ++j) to[j] = T(0);
    }
    return {block.panel, block.padded};
  }
  constexpr int kSub = R < 4 ? R : 4;
  for (int r = 0; r < R; r += kSub) {
    T* const out = block.panel + r * block.padded;
    int64_t j = 0;
    for (; j + 2 * W <= block.padded; j += 2 * W) {
      point_costs<T, kSub, 2>(block, row + r, j, out);
    }
    for (; j < block.padded; j += W) point_costs<T, kSub, 1>(block, row + r, j, out);
  }
  return {block.panel, block.padded};
}

// Where K of a group goes: to its place, or to the second half of the panel.
template <typename T>
SACCADE_INLINE Panel<T> kernel_rows(const Block<T>& block, int64_t row) {
  if (block.kernel != nullptr) {
    return {block.kernel + row * block.kernel_stride, block.kernel_stride};
  }
  return {block.panel + kPanelRows * block.padded, block.padded};
}

// exp(h - c / eps - shift) of one row; returns shift, its largest exponent, and adds up.
template <typename T>
SACCADE_INLINE T exponentials(const T* c, const T* h, T inverse_eps, int64_t padded, T* out,
                              T* sum) {
  constexpr int W = kWidth<T>, U = 4;
  const Vec<T> factor = broadcast<T>(inverse_eps);
  Vec<T> largest[U];
  for (int u = 0; u < U; ++u) largest[u] = broadcast<T>(-kInfinity<T>);
  int64_t j = 0;
  for (; j + U * W <= padded; j += U * W) {
    for (int u = 0; u < U; ++u) {
      largest[u] = max<T>(load(h + j + u * W) - load(c + j + u * W) * factor, largest[u]);
    }
  }
  for (; j < padded; j += W) largest[0] = max<T>(load(h + j) - load(c + j) * factor, largest[0]);
  for (int u = 1; u < U; ++u) largest[0] = max<T>(largest[0], largest[u]);
  T shift = horizontal_max<T>(largest[0]);
  // nobody to send to: a row of zeros
  if (shift == -kInfinity<T>) shift = T(0);
  Vec<T> total[2] = {};
  j = 0;
  for (; j + 2 * W <= padded; j += 2 * W) {
    for (int u = 0; u < 2; ++u) {
      const Vec<T> x = load(h + j + u * W) - load(c + j + u * W) * factor;
      const Vec<T> e = exp_bounded(x - shift);
      store<T>(out + j + u * W, e);
      total[u] += e;
    }
  }
  for (; j < padded; j += W) {
    const Vec<T> e = exp_bounded((load(h + j) - load(c + j) * factor) - shift);
    store<T>(out + j, e);
    total[0] += e;
  }
  *sum = horizontal_sum<T>(total[0] + total[1]);
  return shift;
}

// Calls f with every whole group of the block's rows, and with what is left row by row.
template <typename T, typename F>
SACCADE_INLINE void for_groups(const Block<T>& block, const F& f) {
  int64_t i = block.begin;
  for (; i + kGroup <= block.end; i += kGroup) f.template operator()<kGroup>(i);
  for (; i < block.end; ++i) f.template operator()<1>(i);
}

// Halves the number of vectors at every step: lane i of the sum of two exchanged vectors belongs to
// the one that bit `step` of i names.
template <typename T, int step, int R, int N>
SACCADE_INLINE void add_pairs(Vec<T> (&v)[N]) {
  if constexpr (R > 1) {
    for (int r = 0; r < R / 2; ++r) {
      Vec<T> a = v[2 * r], b = v[2 * r + 1];
      exchange<T, step>(a, b, Lanes<T>{});
      v[r] = a + b;
    }
    add_pairs<T, step * 2, R / 2, N>(v);
  }
}

// Every lane gets the sum over the lanes whose index is the same modulo R.
template <typename T, int R>
SACCADE_INLINE Vec<T> add_lanes(Vec<T> v) {
  if constexpr (R < kWidth<T>) {
    v += swap_halves<T, R>(v, Lanes<T>{});
    return add_lanes<T, R * 2>(v);
  } else {
    return v;
  }
}

// The sums of R vectors, to out[0..R).
template <typename T, int R>
SACCADE_INLINE void sums_of(Vec<T> (&v)[R], T* out) {
  constexpr int W = kWidth<T>;
  if constexpr (R == 1) {
    out[0] = horizontal_sum<T>(v[0]);
  } else if constexpr (R > W) {
    for (int r = 0; r < R; ++r) out[r] = horizontal_sum<T>(v[r]);
  } else {
    add_pairs<T, 1, R, R>(v);
    const Vec<T> total = add_lanes<T, R>(v[0]);
    for (int r = 0; r < R; ++r) out[r] = total[r];
  }
}

}  // namespace saccade::transport::SACCADE_ISA_NAMESPACE
