// Elementary functions on the vectors of simd.inl, in float and double. NaN comes back as NaN,
// infinities as the limits say. The bounds, 1.5 to 4 ulp, stand in
// tests/common/test_simd_math.py.
#pragma once

#include "common/simd.inl"

namespace saccade::SACCADE_ISA_NAMESPACE {

#define SACCADE_MATH inline __attribute__((always_inline))

template <typename T>
SACCADE_MATH typename Simd<T>::Bits bits_of(Vec<T> x) {
  return reinterpret_cast<typename Simd<T>::Bits>(x);
}

template <typename T>
SACCADE_MATH Vec<T> of_bits(typename Simd<T>::Bits x) {
  return reinterpret_cast<Vec<T>>(x);
}

template <typename T>
SACCADE_MATH typename Simd<T>::Bits bits_of_mask(Mask<T> x) {
  return reinterpret_cast<typename Simd<T>::Bits>(x);
}

template <typename T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());

template <typename T>
constexpr T kLog2E = static_cast<T>(1.44269504088896340736);

template <typename T>
constexpr int kSignBit = static_cast<int>(8 * sizeof(T)) - 1;

template <typename T>
SACCADE_MATH typename Simd<T>::Bits sign_of(Vec<T> x) {
  return bits_of<T>(x) >> kSignBit<T> << kSignBit<T>;
}

template <typename T>
SACCADE_MATH Vec<T> abs(Vec<T> x) {
  return of_bits<T>(bits_of<T>(x) << 1 >> 1);
}

// |x| with the sign of s.
template <typename T>
SACCADE_MATH Vec<T> copysign(Vec<T> x, Vec<T> s) {
  return of_bits<T>(bits_of<T>(abs<T>(x)) | sign_of<T>(s));
}

template <typename T>
SACCADE_MATH Vec<T> min(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

template <typename T>
SACCADE_MATH Vec<T> to_float(Mask<T> x) {
  return __builtin_convertvector(x, Vec<T>);
}

// The largest integer not above x; for |x| below 2^31 (2^63 for double).
template <typename T>
SACCADE_MATH Mask<T> floor_to_int(Vec<T> x) {
  const Mask<T> truncated = __builtin_convertvector(x, Mask<T>);
  return truncated + (to_float<T>(truncated) > x);  // true is -1
}

// p[0] x^(N-1) + ... + p[N-1], by Horner's rule.
template <typename T, int N>
SACCADE_MATH Vec<T> polynomial(Vec<T> x, const T (&p)[N]) {
  Vec<T> y = broadcast<T>(p[0]);
  for (int i = 1; i < N; ++i) y = y * x + p[i];
  return y;
}

// The larger (smaller) of a bound and x, NaN for NaN: the instruction returns its second operand
// there, and a comparison with a choice would be two of them.
#if defined(__x86_64__) && SACCADE_BYTES == 64
SACCADE_MATH Vec<float> at_least(Vec<float> bound, Vec<float> x) {
  return __builtin_ia32_maxps512_mask(bound, x, x, static_cast<short>(-1), 4);
}
SACCADE_MATH Vec<float> at_most(Vec<float> bound, Vec<float> x) {
  return __builtin_ia32_minps512_mask(bound, x, x, static_cast<short>(-1), 4);
}
#elif defined(__x86_64__) && SACCADE_BYTES == 32
SACCADE_MATH Vec<float> at_least(Vec<float> bound, Vec<float> x) {
  return __builtin_ia32_maxps256(bound, x);
}
SACCADE_MATH Vec<float> at_most(Vec<float> bound, Vec<float> x) {
  return __builtin_ia32_minps256(bound, x);
}
#else
SACCADE_MATH Vec<float> at_least(Vec<float> bound, Vec<float> x) { return bound > x ? bound : x; }
SACCADE_MATH Vec<float> at_most(Vec<float> bound, Vec<float> x) { return bound < x ? bound : x; }
#endif
SACCADE_MATH Vec<double> at_least(Vec<double> bound, Vec<double> x) {
  return bound > x ? bound : x;
}
SACCADE_MATH Vec<double> at_most(Vec<double> bound, Vec<double> x) { return bound < x ? bound : x; }

template <typename T>
struct Exp2Constants;
template <>
struct Exp2Constants<float> {
  static constexpr int kMantissa = 23;
  static constexpr float kBias = 127.0f, kMagic = 12582912.0f;  // 1.5 * 2^23
  // (2^r - 1) / r, minimax, 2e-9
  static constexpr float kP[] = {1.5353361960e-4f, 1.3398875017e-3f, 9.6184369177e-3f,
                                 5.5503323674e-2f, 2.4022647738e-1f, 6.9314718246e-1f};
};
template <>
struct Exp2Constants<double> {
  static constexpr int kMantissa = 52;
  static constexpr double kBias = 1023.0, kMagic = 6755399441055744.0;  // 1.5 * 2^52
  // ln(2)^k / k! for k = 13 ... 1
  static constexpr double kP[] = {
      1.3691488853904125e-12, 2.5678435993488196e-11, 4.4455382718708101e-10,
      7.0549116208011209e-09, 1.0178086009239699e-07, 1.3215486790144307e-06,
      1.5252733804059837e-05, 1.5403530393381606e-04, 1.3333558146428441e-03,
      9.6181291076284769e-03, 5.5504108664821576e-02, 2.4022650695910069e-01,
      6.9314718055994529e-01};
};

// 2^x in at most 2 ulp where the result is normal, 0 below, NaN for NaN; for x below 127 (1023 for
// double). x = n + r with |r| <= 1/2, and n + bias stands in the low bits of a sum.
template <typename T>
SACCADE_MATH Vec<T> exp2_bounded(Vec<T> x) {
  using C = Exp2Constants<T>;
  constexpr T magic = C::kMagic + C::kBias;
  x = at_least(broadcast<T>(-C::kBias), x);
  const Vec<T> shifted = x + magic;
  const Vec<T> r = x - (shifted - magic);
  const Vec<T> p = polynomial<T>(r, C::kP) * r + T(1);
  return p * of_bits<T>(bits_of<T>(shifted) << C::kMantissa);
}

// e^x: infinity above the largest finite result, 0 below the smallest normal one.
template <typename T>
SACCADE_MATH Vec<T> exp(Vec<T> x) {
  constexpr bool kSingle = sizeof(T) == 4;
  constexpr T kLargest = kSingle ? T(88.7228317) : T(709.782712893383973);
  // The last binade would overflow the exponent's bits: half of it is doubled.
  const Mask<T> last = x > (kSingle ? T(88) : T(709));
  const Vec<T> y = exp_bounded(min<T>(x, broadcast<T>(kLargest)), bits_of_mask<T>(last) & 1);
  const Vec<T> scaled = last ? y + y : y;
  const Vec<T> bounded = x > kLargest ? broadcast<T>(kInfinity<T>) : scaled;
  return x == x ? bounded : x;
}

template <typename T>
struct LogConstants;
template <>
struct LogConstants<float> {
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr uint32_t kSqrtHalf = 0x3f3504f3u;
  static constexpr float kSmallestNormal = 1.17549435e-38f, kScale = 8388608.0f;  // 2^23
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  // atanh(s) = s + s^3 (1/3 + s^2 (1/5 + ...)), doubled, minimax on |s| < 0.1716
  static constexpr float kSeries[] = {0.24279078841f, 0.28498786688f, 0.40000972152f,
                                      0.66666662693f};
};
template <>
struct LogConstants<double> {
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdull;
  static constexpr double kSmallestNormal = 2.2250738585072014e-308, kScale = 4503599627370496.0;
  static constexpr double kLn2High = 6.93147180369123816490e-01;
  static constexpr double kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kSeries[] = {1.479819860511658591e-01, 1.531383769920937332e-01,
                                       1.818357216161805012e-01, 2.222219843214978396e-01,
                                       2.857142874366239149e-01, 3.999999999940941908e-01,
                                       6.666666666666735130e-01};
};

// ln x = k ln 2 + ln(1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); s = f / (2 + f) and
// ln(1 + f) = 2 atanh(s) = f - (f^2/2 - s (f^2/2 + R(s^2))).
template <typename T>
SACCADE_MATH Vec<T> log(Vec<T> x) {
  using C = LogConstants<T>;
  using Bits = typename Simd<T>::Bits;
  using Int = typename Simd<T>::Int;
  const Mask<T> small = x < C::kSmallestNormal;
  const Bits bits = bits_of<T>(small ? x * C::kScale : x);
  const Bits from_sqrt_half = bits - C::kSqrtHalf;
  const Mask<T> exponent = reinterpret_cast<Mask<T>>(from_sqrt_half) >> C::kMantissa;
  const Vec<T> m = of_bits<T>(bits - (bits_of_mask<T>(exponent) << C::kMantissa));
  const Vec<T> k =
      to_float<T>(exponent + (small ? Mask<T>{} - static_cast<Int>(C::kMantissa) : Mask<T>{}));
  const Vec<T> f = m - T(1);
  const Vec<T> s = f / (T(2) + f);
  const Vec<T> z = s * s;
  const Vec<T> r = z * polynomial<T>(z, C::kSeries);
  const Vec<T> half = T(0.5) * f * f;
  Vec<T> y = k * C::kLn2High - ((half - (s * (half + r) + k * C::kLn2Low)) - f);
  y = x == kInfinity<T> ? x : y;
  y = x == T(0) ? broadcast<T>(-kInfinity<T>) : y;
  return x >= T(0) ? y : broadcast<T>(kInfinity<T> - kInfinity<T>);
}

// ln(1 + x): the rounding of 1 + x is made good to first order.
template <typename T>
SACCADE_MATH Vec<T> log1p(Vec<T> x) {
  const Vec<T> u = T(1) + x;
  const Vec<T> lost = x - (u - T(1));
  const Mask<T> plain = (u == T(0)) | (u == kInfinity<T>);
  return log<T>(u) + (plain ? Vec<T>{} : lost / u);
}

// sigma(x) = 1 / (1 + e^-x), with full relative accuracy on both sides.
template <typename T>
SACCADE_MATH Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> t = exp<T>(-abs<T>(x));
  const Vec<T> r = T(1) / (T(1) + t);
  return x < T(0) ? t * r : r;
}

// ln(1 + e^x), exact for large |x| too.
template <typename T>
SACCADE_MATH Vec<T> softplus(Vec<T> x) {
  const Vec<T> positive = x < T(0) ? Vec<T>{} : x;
  return positive + log1p<T>(exp<T>(-abs<T>(x)));
}

// tanh's odd function below 0.625: x + x z P(z), z = x^2.
SACCADE_MATH Vec<float> tanh_small(Vec<float> x) {
  constexpr float kP[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                          1.33314422036e-1f, -3.33332819422e-1f};
  const Vec<float> z = x * x;
  return x + x * z * polynomial<float>(z, kP);
}

SACCADE_MATH Vec<double> tanh_small(Vec<double> x) {
  constexpr double kP[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                           -1.61468768441708447952e3};
  constexpr double kQ[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                           4.84406305325125486048e3};
  const Vec<double> z = x * x;
  return x + x * z * (polynomial<double>(z, kP) / polynomial<double>(z, kQ));
}

template <typename T>
SACCADE_MATH Vec<T> tanh(Vec<T> x) {
  const Vec<T> a = abs<T>(x);
  const Vec<T> large = T(1) - T(2) / (exp<T>(a + a) + T(1));
  return a < T(0.625) ? tanh_small(x) : x == x ? copysign<T>(large, x) : x;
}

template <typename T>
struct CircleConstants;
template <>
struct CircleConstants<float> {
  static constexpr float kTwoOverPi = 0.636619772367581343f;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  static constexpr float kLargest = 8192.0f;
  static constexpr float kHalfPi[] = {1.5703125f, 4.837512969970703125e-4f, 7.549789948768648e-8f};
  static constexpr float kSin[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
  static constexpr float kCos[] = {2.443315711809948e-5f, -1.388731625493765e-3f,
                                   4.166664568298827e-2f};
};
template <>
struct CircleConstants<double> {
  static constexpr double kTwoOverPi = 0.63661977236758134308;
  static constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLargest = 1e6;
  static constexpr double kHalfPi[] = {1.57079632673412561417e+00, 6.07710050630396597660e-11,
                                       2.02226624879595063154e-21};
  static constexpr double kSin[] = {1.58969099521155010221e-10, -2.50507602534068634195e-08,
                                    2.75573137070700676789e-06, -1.98412698298579493134e-04,
                                    8.33333333332248946124e-03, -1.66666666666666324348e-01};
  static constexpr double kCos[] = {-1.13596475577881948265e-11, 2.08757232129817482790e-09,
                                    -2.75573143513906633035e-07, 2.48015872894767294178e-05,
                                    -1.38888888888741095749e-03, 4.16666666666666019037e-02};
};

inline float sin_of(float x) { return ::sinf(x); }
inline float cos_of(float x) { return ::cosf(x); }
inline double sin_of(double x) { return ::sin(x); }
inline double cos_of(double x) { return ::cos(x); }

// sin x and cos x, in at most 2.5 ulp of results above 1/64 and with that absolute error below. x =
// q pi/2 + r with pi/2 in three parts; lanes whose argument is too large for that go through the C
// library.
template <typename T>
SACCADE_MATH void sincos(Vec<T> x, Vec<T>* sin, Vec<T>* cos) {
  using C = CircleConstants<T>;
  using Bits = typename Simd<T>::Bits;
  const Vec<T> shifted = x * C::kTwoOverPi + C::kMagic;
  const Bits q = bits_of<T>(shifted);
  const Vec<T> n = shifted - C::kMagic;
  const Vec<T> r = ((x - n * C::kHalfPi[0]) - n * C::kHalfPi[1]) - n * C::kHalfPi[2];
  const Vec<T> z = r * r;
  const Vec<T> s = r + r * z * polynomial<T>(z, C::kSin);
  const Vec<T> c = T(1) - T(0.5) * z + z * z * polynomial<T>(z, C::kCos);
  const Mask<T> odd = reinterpret_cast<Mask<T>>(q << kSignBit<T>) < 0;
  const Bits sin_sign = q >> 1 << kSignBit<T>;
  const Bits cos_sign = (q + 1) >> 1 << kSignBit<T>;
  Vec<T> y = of_bits<T>(bits_of<T>(odd ? c : s) ^ sin_sign);
  Vec<T> w = of_bits<T>(bits_of<T>(odd ? s : c) ^ cos_sign);
  const Mask<T> beyond = !(abs<T>(x) <= C::kLargest);
  bool any = false;
  for (int i = 0; i < kWidth<T>; ++i) any |= beyond[i] != 0;
  if (__builtin_expect(any, 0)) {
    for (int i = 0; i < kWidth<T>; ++i) {
      if (beyond[i]) y[i] = sin_of(x[i]), w[i] = cos_of(x[i]);
    }
  }
  *sin = y;
  *cos = w;
}

#undef SACCADE_MATH

}  // namespace saccade::SACCADE_ISA_NAMESPACE
