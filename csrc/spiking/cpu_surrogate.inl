// The surrogates' derivatives at h - threshold, a row of a tile at a time.
#pragma once

#include "spiking/cpu_step.inl"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

template <typename T>
constexpr T kHalfPi = static_cast<T>(1.57079632679489661923);
template <typename T>
constexpr T kOneOverSqrtPi = static_cast<T>(0.56418958354775628695);

template <typename T, Surrogate kKind>
SACCADE_STEP Vec<T> slope_at(Vec<T> d, T alpha) {
  if constexpr (kKind == kSigmoid) {
    // sigma(z) (1 - sigma(z)) is even, and exact in the tails this way
    const Vec<T> t = exp<T>(-abs<T>(alpha * d));
    const Vec<T> r = T(1) / (T(1) + t);
    return alpha * t * r * r;
  } else if constexpr (kKind == kAtan) {
    const Vec<T> z = (kHalfPi<T> * alpha) * d;
    return (alpha / 2) / (T(1) + z * z);
  } else if constexpr (kKind == kPiecewiseQuadratic) {
    const Vec<T> y = alpha - (alpha * alpha) * abs<T>(d);
    return y < T(0) ? Vec<T>{} : y;  // NaN stays
  } else if constexpr (kKind == kPiecewiseExp) {
    return (alpha / 2) * exp<T>(-alpha * abs<T>(d));
  } else if constexpr (kKind == kSoftSign) {
    const Vec<T> z = T(1) + alpha * abs<T>(d);
    return (alpha / 2) / (z * z);
  } else if constexpr (kKind == kSuperSpike) {
    const Vec<T> z = T(1) + abs<T>(d);
    return alpha / (z * z);
  } else if constexpr (kKind == kErf) {
    const Vec<T> z = alpha * d;
    return (alpha * kOneOverSqrtPi<T>)*exp<T>(-(z * z));
  } else {
    return abs<T>(d) < T(0.5) / alpha ? broadcast<T>(alpha) : Vec<T>{};
  }
}

template <typename T, Surrogate kKind>
void fill_slopes(const T* h, const Operand<T>& threshold, int64_t count, T alpha, T* out) {
  for (int64_t i = 0; i < count; i += kWidth<T>) {
    const Vec<T> d = load(h + i) - load(threshold.data + i * threshold.step);
    store<T>(out + i, slope_at<T, kKind>(d, alpha));
  }
}

template <typename T>
using FillSlopes = void (*)(const T* h, const Operand<T>& threshold, int64_t count, T alpha,
                            T* out);

// Calls body with the surrogate as a type.
template <typename F>
inline auto for_surrogate(Surrogate kind, const F& body) {
  switch (kind) {
    case kSigmoid:
      return body(std::integral_constant<Surrogate, kSigmoid>{});
    case kAtan:
      return body(std::integral_constant<Surrogate, kAtan>{});
    case kPiecewiseQuadratic:
      return body(std::integral_constant<Surrogate, kPiecewiseQuadratic>{});
    case kPiecewiseExp:
      return body(std::integral_constant<Surrogate, kPiecewiseExp>{});
    case kSoftSign:
      return body(std::integral_constant<Surrogate, kSoftSign>{});
    case kSuperSpike:
      return body(std::integral_constant<Surrogate, kSuperSpike>{});
    case kErf:
      return body(std::integral_constant<Surrogate, kErf>{});
    case kRectangle:
      break;
  }
  return body(std::integral_constant<Surrogate, kRectangle>{});
}

template <typename T>
inline FillSlopes<T> slopes_of(Surrogate kind) {
  return for_surrogate(kind, [](auto surrogate) -> FillSlopes<T> {
    return fill_slopes<T, decltype(surrogate)::value>;
  });
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
