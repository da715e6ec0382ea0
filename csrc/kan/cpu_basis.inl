// The dense bases on vectors of rows: values, and the gradient of x and of the parameters from the
// gradient of the values.
#pragma once

#include "kan/cpu_pack.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

template <typename T>
inline Vec<T> silu(Vec<T> x) {
  return x * sigmoid<T>(x);
}

template <typename T>
inline Vec<T> silu_slope(Vec<T> x) {
  const Vec<T> s = sigmoid<T>(x);
  return s * (T(1) + x * (T(1) - s));
}

// Phi_n(x) to to[n * stride].
template <typename T>
inline void values(const Args<T>& args, Vec<T> x, T* to, int64_t stride) {
  const Problem& p = args.problem;
  const int64_t n = p.functions;
  switch (p.basis) {
    case Basis::kGaussian:
      for (int64_t f = 0; f < n; ++f) {
        const Vec<T> z = (x - args.points[f]) / args.scales[p.num_scales == 1 ? 0 : f];
        store<T>(to + f * stride, exp_bounded(-(z * z)));
      }
      break;
    case Basis::kRswaf:
      for (int64_t f = 0; f < n; ++f) {
        const T scale = p.published ? T(1) : args.scales[p.num_scales == 1 ? 0 : f];
        const Vec<T> e = exp_bounded(T(-2) * abs<T>((x - args.points[f]) * scale));
        const Vec<T> q = T(1) + e;
        store<T>(to + f * stride, T(4) * e / (q * q));
      }
      break;
    case Basis::kChebyshev: {
      const Vec<T> u = tanh<T>(x);
      Vec<T> last = u - u + T(1), t = u;
      for (int64_t f = 0; f < n; ++f) {
        store<T>(to + f * stride, last);
        const Vec<T> next = T(2) * u * t - last;
        last = t;
        t = next;
      }
      break;
    }
    case Basis::kFourier: {
      if (p.constant) {
        store<T>(to, x - x == Vec<T>{} ? broadcast<T>(T(1)) : x - x);
        to += stride;
      }
      const int64_t g = n / 2;
      Vec<T> sin1, cos1;
      sincos<T>(x, &sin1, &cos1);
      Vec<T> s = sin1, c = cos1;
      for (int64_t k = 0; k < g; ++k) {
        store<T>(to + k * stride, c);
        store<T>(to + (g + k) * stride, s);
        const Vec<T> turned = c * cos1 - s * sin1;
        s = s * cos1 + c * sin1;
        c = turned;
      }
      break;
    }
    default:
      break;
  }
}

// sum_n grad[n * stride] Phi_n'(x); adds to points[n] and scales[n] unless null.
template <typename T>
inline Vec<T> slope(const Args<T>& args, Vec<T> x, const T* grad, int64_t stride, Vec<T>* points,
                    Vec<T>* scales) {
  const Problem& p = args.problem;
  const int64_t n = p.functions;
  Vec<T> sum{};
  switch (p.basis) {
    case Basis::kGaussian:
      for (int64_t f = 0; f < n; ++f) {
        const T inverse = T(1) / args.scales[p.num_scales == 1 ? 0 : f];
        const Vec<T> z = (x - args.points[f]) * inverse;
        const Vec<T> g = load(grad + f * stride) * T(-2) * inverse * z * exp_bounded(-(z * z));
        sum += g;
        if (points != nullptr) {
          points[f] -= g;
          scales[f] -= g * z;
        }
      }
      break;
    case Basis::kRswaf:
      for (int64_t f = 0; f < n; ++f) {
        const T scale = args.scales[p.num_scales == 1 ? 0 : f];
        const Vec<T> distance = x - args.points[f];
        const Vec<T> z = p.published ? distance : distance * scale;
        const Vec<T> e = exp_bounded(T(-2) * abs<T>(z));
        const Vec<T> r = T(1) / (T(1) + e);
        const Vec<T> tanh_z = copysign<T>((T(1) - e) * r, z);
        const Vec<T> g = load(grad + f * stride) * T(-8) * e * r * r * tanh_z;
        sum += g * scale;
        if (points != nullptr) {
          points[f] -= g * scale;
          scales[f] += g * distance;
        }
      }
      break;
    case Basis::kChebyshev: {
      const Vec<T> u = tanh<T>(x);
      Vec<T> last{}, now = u - u + T(1);  // U_{n-2} and U_{n-1}
      for (int64_t f = 1; f < n; ++f) {
        sum += static_cast<T>(f) * load(grad + f * stride) * now;
        const Vec<T> next = T(2) * u * now - last;
        last = now;
        now = next;
      }
      sum *= T(1) - u * u;
      break;
    }
    case Basis::kFourier: {
      if (p.constant) grad += stride;
      const int64_t g = n / 2;
      Vec<T> sin1, cos1;
      sincos<T>(x, &sin1, &cos1);
      Vec<T> s = sin1, c = cos1;
      for (int64_t k = 0; k < g; ++k) {
        sum += static_cast<T>(k + 1) *
               (load(grad + (g + k) * stride) * c - load(grad + k * stride) * s);
        const Vec<T> turned = c * cos1 - s * sin1;
        s = s * cos1 + c * sin1;
        c = turned;
      }
      break;
    }
    default:
      break;
  }
  return sum;
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
