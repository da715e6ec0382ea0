// Basis functions, eight at a time, their derivatives by x, and those by centres and widths. The
// basis is a number at run time: a warp has one, and a switch costs less than a kernel a basis.
#pragma once

#include "kan/cuda_spline.cuh"

namespace saccade::kan_gpu {

constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float exponential(float x) { return exp2f(x * kLog2E); }

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.f, 1.f + exponential(-x)); }

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

__device__ __forceinline__ float silu_slope(float x) {
  const float s = sigmoid(x);
  return s * (1.f + x * (1.f - s));
}

__device__ __forceinline__ float hyperbolic_tangent(float x) {
  const float size = fabsf(x), small = exponential(-2.f * size);
  // near 0 the quotient has the rounding of 1, and the series has none
  const float value = size < 0.05f
                          ? size * (1.f - size * size * (0.33333334f - size * size * 0.13333334f))
                          : __fdividef(1.f - small, 1.f + small);
  return x < 0.f ? -value : value;
}

__device__ __forceinline__ float sech2(float z) {
  const float small = exponential(-2.f * fabsf(z));
  return __fdividef(4.f * small, (1.f + small) * (1.f + small));
}

// x in half turns, within one turn; pi is the sum of the reciprocals of two numbers here, so that
// large x keep their digits.
__device__ __forceinline__ float half_turns(float x) {
  constexpr float kUpper = 0.31830987f, kLower = 1.2841276e-08f;
  const float upper = x * kUpper;
  const float lower = fmaf(x, kUpper, -upper) + x * kLower;
  return (upper - 2.f * rintf(0.5f * upper)) + lower;
}

template <bool kSlope>
__device__ __forceinline__ void chebyshev(int first, float x, float (&phi)[8]) {
  const float u = hyperbolic_tangent(x);
  // values: T_{n-1}, T_n with T_{-1} = u; derivatives: U_{n-2}, U_{n-1} with U_{-2} = -1
  float before = kSlope ? -1.f : u, value = kSlope ? 0.f : 1.f;
  const float factor = 1.f - u * u;
  for (int n = 0; n < first; ++n) {
    const float next = 2.f * u * value - before;
    before = value, value = next;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    phi[i] = kSlope ? static_cast<float>(first + i) * value * factor : value;
    const float next = 2.f * u * value - before;
    before = value, value = next;
  }
}

template <bool kSlope>
__device__ __forceinline__ void fourier(const Basis& b, int first, float x, float (&phi)[8]) {
  const int dc = b.option, waves = (b.count - dc) / 2;
  const float turn = half_turns(x);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int n = first + i - dc;
    const bool sine = n >= waves;
    const float k = static_cast<float>(n < 0 ? 0 : (sine ? n - waves : n) + 1);
    float s, c;
    sincospif(k * turn, &s, &c);
    phi[i] = kSlope ? k * (sine ? c : -s) : (sine ? s : c);
  }
}

// Functions first .. first + 7 of an input at x, or their derivatives by x; those beyond n are 0.
template <bool kSlope>
__device__ __forceinline__ void evaluate(const Basis& b, int input, int first, float x,
                                         float (&phi)[8]) {
  switch (b.code) {
    case kBspline:
      spline<kSlope>(b, input, first, x, phi);
      break;
    case kGaussian:
    case kRswaf: {
      const bool gaussian = b.code == kGaussian;
      const bool exact = b.option == 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int n = min(first + i, b.count - 1);
        const float distance = x - b.points[n], scale = b.scales[n * b.scale_step];
        if (gaussian) {
          const float z = __fdividef(distance, scale), value = exponential(-z * z);
          phi[i] = kSlope ? -2.f * __fdividef(z, scale) * value : value;
        } else {
          // FasterKAN's gradient has the factor that its forward leaves out
          const float z = exact ? distance * scale : distance, value = sech2(z);
          phi[i] = kSlope ? -2.f * scale * hyperbolic_tangent(z) * value : value;
        }
      }
      break;
    }
    case kChebyshev:
      chebyshev<kSlope>(first, x, phi);
      break;
    default:
      fourier<kSlope>(b, first, x, phi);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (x != x) phi[i] = x;
    if (first + i >= b.count) phi[i] = 0.f;
  }
}

// The derivatives of function n by its centre and by its width (inverse width).
__device__ __forceinline__ float2 by_parameters(const Basis& b, int n, float x) {
  const float distance = x - b.points[n], scale = b.scales[n * b.scale_step];
  if (b.code == kGaussian) {
    const float z = __fdividef(distance, scale);
    const float by_centre = 2.f * __fdividef(z, scale) * exponential(-z * z);
    return make_float2(by_centre, z * by_centre);
  }
  const float z = distance * scale, factor = 2.f * hyperbolic_tangent(z) * sech2(z);
  return make_float2(scale * factor, -distance * factor);
}

__device__ __forceinline__ float load_number(const void* data, Dtype dtype, int64_t at) {
  switch (dtype) {
    case Dtype::kFloat:
      return static_cast<const float*>(data)[at];
    case Dtype::kHalf:
      return cuda::to_float(static_cast<const __half*>(data)[at]);
    default:
      return cuda::to_float(static_cast<const __nv_bfloat16*>(data)[at]);
  }
}

__device__ __forceinline__ void store_number(void* data, Dtype dtype, int64_t at, float x) {
  switch (dtype) {
    case Dtype::kFloat:
      static_cast<float*>(data)[at] = x;
      break;
    case Dtype::kHalf:
      static_cast<__half*>(data)[at] = cuda::from_float<__half>(x);
      break;
    default:
      static_cast<__nv_bfloat16*>(data)[at] = cuda::from_float<__nv_bfloat16>(x);
  }
}

// Calls f(T{}) with the layer's type.
template <class F>
cudaError_t dispatch(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::kFloat:
      return f(float{});
    case Dtype::kHalf:
      return f(__half{});
    default:
      return f(__nv_bfloat16{});
  }
}

}  // namespace saccade::kan_gpu
