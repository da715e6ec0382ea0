// What the CPU kernels of scans share: 2^x, sums over lanes, and rows of lanes in and out.
#pragma once

#include "common/math.inl"
#include "scan/kernel.h"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

using namespace saccade::SACCADE_ISA_NAMESPACE;

#define SACCADE_INLINE inline __attribute__((always_inline))

// 2^x in at most 2 ulp, 0 below the smallest normal number, infinity from the largest exponent on,
// NaN for NaN without a payload. x = n + r with |r| <= 1/2; the end of the range is such that the
// exponent's bits come out as those of 0 and of infinity.
SACCADE_INLINE Vec<float> exp2_clamped(Vec<float> x) {
  using V = Vec<float>;
  x = at_most(broadcast<float>(128.0f), at_least(broadcast<float>(-127.0f), x));
  const V shifted = x + 12582912.0f;  // 1.5 * 2^23: the sum holds n in its low bits
  const V r = x - (shifted - 12582912.0f);
  const V p = polynomial<float>(r, Exp2Constants<float>::kP) * r + 1.0f;
  return of_bits<float>(bits_of<float>(p) + (bits_of<float>(shifted) << 23));
}

SACCADE_INLINE Vec<double> exp2_clamped(Vec<double> x) {
  using V = Vec<double>;
  x = at_most(broadcast<double>(1024.0), at_least(broadcast<double>(-1023.0), x));
  const V shifted = x + 6755399441055744.0;  // 1.5 * 2^52
  const V r = x - (shifted - 6755399441055744.0);
  const V p = polynomial<double>(r, Exp2Constants<double>::kP) * r + 1.0;
  return of_bits<double>(bits_of<double>(p) + (bits_of<double>(shifted) << 52));
}

// A in units of ln 2, so that e^(dt A) is one product and 2^x; NaN without a payload.
template <typename T>
SACCADE_INLINE Vec<T> in_octaves(Vec<T> a) {
  return a == a ? a * kLog2E<T> : broadcast<T>(static_cast<T>(__builtin_nan("")));
}

// 1 / (1 + e^-x)
template <typename T>
SACCADE_INLINE Vec<T> fast_sigmoid(Vec<T> x) {
  return T(1) / (T(1) + exp2_clamped(x * -kLog2E<T>));
}

// 2 atanh(s) / s as a polynomial of s^2 <= 1/9: minimax 4e-9 in float, the series in double.
template <typename T>
struct AtanhConstants;
template <>
struct AtanhConstants<float> {
  static constexpr float kP[] = {0.2817833424f, 0.2796060145f, 0.4002490938f, 0.6666631699f, 2.0f};
};
template <>
struct AtanhConstants<double> {
  static constexpr double kP[] = {2.0 / 33, 2.0 / 31, 2.0 / 29, 2.0 / 27, 2.0 / 25, 2.0 / 23,
                                  2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15, 2.0 / 13, 2.0 / 11,
                                  2.0 / 9,  2.0 / 7,  2.0 / 5,  2.0 / 3,  2.0};
};

// ln(1 + e^x), x itself above 20: ln(1 + t) = 2 atanh(t / (2 + t)) with t = e^-|x| <= 1.
template <typename T>
SACCADE_INLINE Vec<T> fast_softplus(Vec<T> x) {
  const Vec<T> t = exp2_clamped(abs<T>(x) * -kLog2E<T>);
  const Vec<T> s = t / (T(2) + t);
  const Vec<T> y = at_least(Vec<T>{}, x) + s * polynomial<T>(s * s, AtanhConstants<T>::kP);
  return x > T(20) ? x : y;
}

template <typename T, int kRows, int kStep>
SACCADE_INLINE void fold_rows(Vec<T>* rows) {
  for (int i = 0; i < kStep; ++i) {
    Vec<T> a = rows[i], b = rows[i + kStep];
    exchange<T, kStep>(a, b, Lanes<T>{});
    rows[i] = a + b;
  }
  if constexpr (kStep > 1) fold_rows<T, kRows, kStep / 2>(rows);
}

template <typename T, int kStep>
SACCADE_INLINE Vec<T> fold_lanes(Vec<T> v) {
  if constexpr (kStep < kWidth<T>) {
    return fold_lanes<T, kStep * 2>(v + swap_halves<T, kStep>(v, Lanes<T>{}));
  } else {
    return v;
  }
}

// out[i] += lane i, for the first lanes.
template <typename T, int... i>
SACCADE_INLINE void add_lanes(T* out, Vec<T> v, std::integer_sequence<int, i...>) {
  typedef T Part __attribute__((vector_size(sizeof...(i) * sizeof(T))));
  typedef T Unaligned
      __attribute__((vector_size(sizeof...(i) * sizeof(T)), aligned(alignof(T)), may_alias));
  Unaligned* to = reinterpret_cast<Unaligned*>(out);
  const Part part = __builtin_shufflevector(v, v, i...);
  *to += part;
}

// out[i] += sum of row i, for a power of two of rows. Rows are added pairwise: half of the lanes
// keep the sums of one, half those of the other.
template <typename T, int kRows>
SACCADE_INLINE void add_row_sums(Vec<T>* rows, T* out) {
  constexpr int W = kWidth<T>;
  if constexpr (kRows > W) {
    add_row_sums<T, kRows / 2>(rows, out);
    add_row_sums<T, kRows / 2>(rows + kRows / 2, out + kRows / 2);
  } else {
    if constexpr (kRows > 1) fold_rows<T, kRows, kRows / 2>(rows);
    const Vec<T> sums = fold_lanes<T, kRows>(rows[0]);
    add_lanes<T>(out, sums, std::make_integer_sequence<int, kRows>{});
  }
}

// Rows [positions] of `count` channels, one a lane; lanes behind them are 0.
template <typename T>
inline void load_rows(const View<const T>& view, int64_t batch, int64_t path, int64_t channel,
                      int64_t count, int64_t position, int64_t positions, T* rows) {
  constexpr int W = kWidth<T>;
  const T* from = view.data + batch * view.batch + path * view.path + channel * view.channel +
                  position * view.position;
  int64_t p = 0;
  if (view.channel == 1) {
    for (; p < positions; ++p)
      store<T>(rows + p * W, load_partial(from + p * view.position, count));
    return;
  }
  if (view.position == 1) {
    for (; p + W <= positions; p += W) {
      Vec<T> tile[W];
      for (int c = 0; c < W; ++c)
        tile[c] = c < count ? load(from + c * view.channel + p) : Vec<T>{};
      transpose_square<T>(tile);
      for (int i = 0; i < W; ++i) store<T>(rows + (p + i) * W, tile[i]);
    }
  }
  for (; p < positions; ++p) {
    for (int c = 0; c < W; ++c) {
      rows[p * W + c] = c < count ? from[c * view.channel + p * view.position] : T(0);
    }
  }
}

template <typename T>
inline void store_rows(const T* rows, int64_t batch, int64_t path, int64_t channel, int64_t count,
                       int64_t position, int64_t positions, const View<T>& view) {
  constexpr int W = kWidth<T>;
  T* to = view.data + batch * view.batch + path * view.path + channel * view.channel +
          position * view.position;
  int64_t p = 0;
  if (view.channel == 1) {
    for (; p < positions; ++p) store_partial<T>(to + p * view.position, load(rows + p * W), count);
    return;
  }
  if (view.position == 1) {
    for (; p + W <= positions; p += W) {
      Vec<T> tile[W];
      for (int i = 0; i < W; ++i) tile[i] = load(rows + (p + i) * W);
      transpose_square<T>(tile);
      for (int c = 0; c < count; ++c) store<T>(to + c * view.channel + p, tile[c]);
    }
  }
  for (; p < positions; ++p) {
    for (int c = 0; c < count; ++c) to[c * view.channel + p * view.position] = rows[p * W + c];
  }
}

// [count, N] with a stride, to [padded N][lanes]; zeros elsewhere.
template <typename T>
inline void load_states(const T* from, int64_t channel_stride, int64_t state_stride, int64_t count,
                        int64_t states, int64_t padded, T* to) {
  constexpr int W = kWidth<T>;
  fill_zero(to, padded * W);
  for (int64_t n = 0; n < states; ++n) {
    for (int64_t c = 0; c < count; ++c) to[n * W + c] = from[c * channel_stride + n * state_stride];
  }
}

template <typename T>
inline void store_states(const T* from, int64_t channel_stride, int64_t state_stride, int64_t count,
                         int64_t states, T* to) {
  constexpr int W = kWidth<T>;
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t n = 0; n < states; ++n)
      to[c * channel_stride + n * state_stride] = from[n * W + c];
  }
}

// Memory of one task, handed out in pieces that start at a vector.
template <typename T>
class Arena {
 public:
  explicit Arena(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  T* memory_;
  int64_t used_ = 0;
};

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
