// The marginal of one side on the device, and sums of exponentials without overflow.
#pragma once

#include "transport/cuda_tiles.cuh"

namespace saccade::transport {

struct DeviceSide {
  const float* weights;
  double rho;
  bool kl;

  __device__ __forceinline__ bool balanced() const { return rho - rho != 0.0; }
  // what no measure has is not a number
  __device__ __forceinline__ float weight_at(int64_t i) const {
    return weights[i] >= 0.f ? weights[i] : not_a_number();
  }

  // The potential that meets the marginal; a number without weight or without a partner gets -inf.
  __device__ __forceinline__ float updated(float weight, float lse, double eps) const {
    if (weight == 0.f || lse == -infinity()) return -infinity();
    const float strength = static_cast<float>(eps), log_weight = logf(weight);
    const float meets = strength * (log_weight - lse);
    if (balanced()) return meets;
    const float base = kl ? strength * log_weight : 0.f;
    return base + static_cast<float>(rho / (rho + eps)) * (meets - base);
  }

  // Mass that an update moves; balanced, the error of the marginal.
  __device__ __forceinline__ float moved(float weight, float before, float after, float lse,
                                         float inverse) const {
    if (balanced() && after == -infinity()) return weight;
    const float sum = expf(before * inverse + lse);
    if (sum == 0.f) return 0.f;
    const float change = 1.f - expf((after - before) * inverse);
    return sum * (change < 0.f ? -change : change);
  }

  // This number's part of the value.
  __device__ __forceinline__ double value(float weight, float sum, float potential,
                                          double eps) const {
    const double log_weight = logf(weight);
    double value = 0.0;
    if (sum != 0.f) value = sum * (potential - (kl ? eps * log_weight : 0.0));
    if (balanced()) return value;
    const double entropy = sum > 0.f ? sum * (logf(sum) - log_weight) : sum;
    return value + rho * (entropy - sum + weight);
  }
};

// A lane's part of the logarithm of a sum of exponentials.
struct Exponentials {
  float largest = -infinity(), sum = 0.f;

  __device__ __forceinline__ void add(const float* other, int64_t j, int64_t columns,
                                      const float (&c)[kLaneColumns], float inverse) {
    float z[kLaneColumns], top = largest;
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) {
      z[u] = j + 32 * u < columns ? (other[j + 32 * u] - c[u]) * inverse : -infinity();
      top = fmaxf(top, z[u]);
    }
    // nothing yet: exponents of -inf, not of NaN
    const float safe = top == -infinity() ? 0.f : top;
    sum *= expf(largest - safe);
#pragma unroll
    for (int u = 0; u < kLaneColumns; ++u) sum += expf(z[u] - safe);
    largest = top;
  }

  // Over the warp.
  __device__ __forceinline__ float lse() const {
    const float top = warp_max(largest), safe = top == -infinity() ? 0.f : top;
    return safe + logf(warp_sum(sum * expf(largest - safe)));
  }
};

}  // namespace saccade::transport
