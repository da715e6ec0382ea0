// Vectors of SACCADE_BYTES bytes as the compiler's own vector type, and the mathematics on them.
// Included inside the namespace of one instruction set, so that no two sets share a function (the
// linker would keep one of the two).
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <utility>

namespace saccade::SACCADE_ISA_NAMESPACE {

// For loops over registers: their arrays must not become memory.
#define SACCADE_UNROLL _Pragma("GCC unroll 16")

template <typename T>
struct Simd;

template <>
struct Simd<float> {
  using Int = int32_t;
  typedef float Vec __attribute__((vector_size(SACCADE_BYTES)));
  typedef int32_t Mask __attribute__((vector_size(SACCADE_BYTES)));
  typedef uint32_t Bits __attribute__((vector_size(SACCADE_BYTES)));
  typedef float Unaligned __attribute__((vector_size(SACCADE_BYTES), aligned(4), may_alias));
};

template <>
struct Simd<double> {
  using Int = int64_t;
  typedef double Vec __attribute__((vector_size(SACCADE_BYTES)));
  typedef int64_t Mask __attribute__((vector_size(SACCADE_BYTES)));
  typedef uint64_t Bits __attribute__((vector_size(SACCADE_BYTES)));
  typedef double Unaligned __attribute__((vector_size(SACCADE_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Simd<T>::Vec;
template <typename T>
using Mask = typename Simd<T>::Mask;

template <typename T>
constexpr int kWidth = SACCADE_BYTES / static_cast<int>(sizeof(T));

template <typename T>
inline __attribute__((always_inline)) Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}

template <typename T>
inline __attribute__((always_inline)) void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}

template <typename T>
inline __attribute__((always_inline)) Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// Keeps a loaded vector in its register: folded into every instruction that uses it, it would be
// loaded as often.
template <typename V>
inline __attribute__((always_inline)) V in_register(V v) {
#if defined(__x86_64__)
  __asm__("" : "+x"(v));
#endif
  return v;
}

template <typename T>
inline __attribute__((always_inline)) Vec<T> max(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

// Lanes 0, 1, 2, ...
template <typename T>
inline Mask<T> iota() {
  Mask<T> lanes{};
  for (int i = 0; i < kWidth<T>; ++i) lanes[i] = i;
  return lanes;
}

// Lanes in [begin, end).
template <typename T>
inline __attribute__((always_inline)) Mask<T> lanes_between(int64_t begin, int64_t end) {
  using Int = typename Simd<T>::Int;
  const Mask<T> lane = iota<T>();
  return (lane >= static_cast<Int>(begin)) & (lane < static_cast<Int>(end));
}

template <typename T>
using Lanes = std::make_integer_sequence<int, kWidth<T>>;

// Lane i of the result is lane i ^ half of v.
template <typename T, int half, int... i>
inline __attribute__((always_inline)) Vec<T> swap_halves(Vec<T> v,
                                                         std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(v, v, (i ^ half)...);
}

template <typename T, int half = kWidth<T> / 2>
inline __attribute__((always_inline)) T horizontal_max(Vec<T> v) {
  v = max<T>(v, swap_halves<T, half>(v, Lanes<T>{}));
  if constexpr (half == 1) {
    return v[0];
  } else {
    return horizontal_max<T, half / 2>(v);
  }
}

template <typename T, int half = kWidth<T> / 2>
inline __attribute__((always_inline)) T horizontal_sum(Vec<T> v) {
  v += swap_halves<T, half>(v, Lanes<T>{});
  if constexpr (half == 1) {
    return v[0];
  } else {
    return horizontal_sum<T, half / 2>(v);
  }
}

template <typename T, int step, int... i>
inline __attribute__((always_inline)) void exchange(Vec<T>& a, Vec<T>& b,
                                                    std::integer_sequence<int, i...>) {
  constexpr int W = kWidth<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, ((i & step) ? W + i - step : i)...);
  b = __builtin_shufflevector(a, b, ((i & step) ? W + i : i + step)...);
  a = low;
}

// Transposes a square of kWidth vectors by exchanging blocks of 1, 2, 4, ... lanes.
template <typename T, int step = 1>
inline __attribute__((always_inline)) void transpose_square(Vec<T>* rows) {
  if constexpr (step < kWidth<T>) {
    for (int i = 0; i < kWidth<T>; ++i) {
      if ((i & step) == 0) exchange<T, step>(rows[i], rows[i + step], Lanes<T>{});
    }
    transpose_square<T, step * 2>(rows);
  }
}

// Lane i of the result combines all lanes of rows[i], which it overwrites: W reductions with the
// latency of one.
template <typename T, int step = 1, typename F>
inline __attribute__((always_inline)) Vec<T> combine_lanes(Vec<T>* rows, const F& combine) {
  if constexpr (step == kWidth<T>) {
    return rows[0];
  } else {
    SACCADE_UNROLL
    for (int i = 0; i < kWidth<T>; i += 2 * step) {
      exchange<T, step>(rows[i], rows[i + step], Lanes<T>{});
      rows[i] = combine(rows[i], rows[i + step]);
    }
    return combine_lanes<T, 2 * step>(rows, combine);
  }
}

// The first `count` values, zeros behind them.
template <typename T>
inline Vec<T> load_partial(const T* p, int64_t count) {
  if (count >= kWidth<T>) return load(p);
  Vec<T> v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
}

template <typename T>
inline void store_partial(T* p, Vec<T> v, int64_t count) {
  if (count >= kWidth<T>) return store<T>(p, v);
  for (int i = 0; i < count; ++i) p[i] = v[i];
}

template <typename T>
inline T dot(const T* a, const T* b, int64_t count) {
  Vec<T> sum{};
  int64_t i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) sum += load(a + i) * load(b + i);
  T total = horizontal_sum<T>(sum);
  for (; i < count; ++i) total += a[i] * b[i];
  return total;
}

template <typename T>
inline void fill_zero(T* p, int64_t count) {
  memset(p, 0, static_cast<size_t>(count) * sizeof(T));
}

// e^x in at most 2 ulp where the result is normal, 0 below the smallest normal number, NaN for NaN.
// For arguments that the caller keeps from overflowing (a softmax's are not positive). x = n ln 2 +
// r with |r| <= ln 2 / 2; e^r by a polynomial, n added to the exponent's bits.
// The result is e^x / 2^halvings.
inline __attribute__((always_inline)) Vec<float> exp_bounded(
    Vec<float> x, Simd<float>::Bits halvings = Simd<float>::Bits{}) {
  using V = Vec<float>;
  using B = Simd<float>::Bits;
  const float magic = 12582912.0f;  // 1.5 * 2^23: its sum with n holds n in the low bits
  const V shifted = x * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = broadcast<float>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + r + 1.0f;
  const V scaled = reinterpret_cast<V>(reinterpret_cast<B>(p) +
                                       ((reinterpret_cast<B>(shifted) - halvings) << 23));
  const V y = x < -87.336544f ? V{} : scaled;
  return x == x ? y : x;
}

inline __attribute__((always_inline)) Vec<double> exp_bounded(
    Vec<double> x, Simd<double>::Bits halvings = Simd<double>::Bits{}) {
  using V = Vec<double>;
  using B = Simd<double>::Bits;
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const V shifted = x * 1.4426950408889634074 + magic;
  const V n = shifted - magic;
  const V r = (x - n * 6.93147180369123816490e-1) - n * 1.90821492927058770002e-10;
  constexpr double kInverseFactorial[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                                          1.0 / 3628800.0,    1.0 / 362880.0,    1.0 / 40320.0,
                                          1.0 / 5040.0,       1.0 / 720.0,       1.0 / 120.0,
                                          1.0 / 24.0,         1.0 / 6.0,         0.5};
  V p = broadcast<double>(kInverseFactorial[0]);
  for (int i = 1; i < 12; ++i) p = p * r + kInverseFactorial[i];
  p = (p * r) * r + r + 1.0;
  const V scaled = reinterpret_cast<V>(reinterpret_cast<B>(p) +
                                       ((reinterpret_cast<B>(shifted) - halvings) << 52));
  const V y = x < -708.39641853226408 ? V{} : scaled;
  return x == x ? y : x;
}

inline float log_of(float x) { return ::logf(x); }
inline double log_of(double x) { return ::log(x); }

}  // namespace saccade::SACCADE_ISA_NAMESPACE
