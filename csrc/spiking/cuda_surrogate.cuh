// Derivatives of the surrogates at u = h - v_threshold.
#pragma once

#include "spiking/cuda_kernel.cuh"

namespace saccade::lif {

__device__ __forceinline__ float surrogate(Surrogate kind, float a, float u) {
  constexpr float kHalfPi = 1.57079632679489662f, kInverseRootPi = 0.564189583547756287f;
  const float distance = fabsf(u);
  switch (kind) {
    case Surrogate::kSigmoid: {
      // by e^-|au|, which does not overflow
      const float e = expf(-a * distance), one = 1.f + e;
      return a * e / (one * one);
    }
    case Surrogate::kAtan: {
      const float y = kHalfPi * a * u;
      return 0.5f * a / (1.f + y * y);
    }
    case Surrogate::kPiecewiseQuadratic: {
      const float slope = a - a * a * distance;
      return slope < 0.f ? 0.f : slope;
    }
    case Surrogate::kPiecewiseExp:
      return 0.5f * a * expf(-a * distance);
    case Surrogate::kSoftSign: {
      const float y = 1.f + a * distance;
      return 0.5f * a / (y * y);
    }
    case Surrogate::kSuperSpike: {
      const float y = 1.f + distance;
      return a / (y * y);
    }
    case Surrogate::kErf: {
      const float y = a * u;
      return a * kInverseRootPi * expf(-y * y);
    }
    case Surrogate::kRectangle:
      break;
  }
  return distance < 0.5f / a ? a : 0.f;
}

}  // namespace saccade::lif
