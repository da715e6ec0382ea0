// The k + 1 B-splines of order k that are not zero at a point, their derivatives, and the gradients
// of knots. Functions and knots before the first and behind the last are computed from repeated
// knots; no function of the layer depends on them.
// Source: Piegl and Tiller, The NURBS Book, algorithms A2.1 to A2.3.
#pragma once

#include "common/cuda_device.cuh"
#include "kan/cuda_kernel.cuh"

namespace saccade::kan_gpu {

constexpr int kReach = kMostOrder;  // knots on either side of a point that a function depends on

// a / b, and 0 where b is 0: knots that coincide.
__device__ __forceinline__ float quotient(float a, float b) {
  return b == 0.f ? 0.f : __fdividef(a, b);
}

struct SplinePoint {
  int interval;            // j, t_j <= x < t_{j+1}; -1 before the first knot
  float at;                // x, or the border that it was clamped to
  bool inside;             // some function may be non-zero
  float knot[2 * kReach];  // t_{j+1-kReach} .., as far as the order reaches
};

__device__ __forceinline__ SplinePoint locate(const Basis& b, const float* knots, float x) {
  SplinePoint p;
  const int order = b.option, last = b.knots - 1;
  p.at = x;
  if (b.range != kZero) {
    const float low = knots[order], high = knots[last - order];
    p.at = x < low ? low : (x > high ? high : x);
  }
  // equal steps guess the interval; the knots correct the guess
  const float first = knots[0], whole = knots[last] - first;
  const float guess = __fdividef(p.at - first, whole) * static_cast<float>(last);
  int j = static_cast<int>(fminf(fmaxf(guess, 0.f), static_cast<float>(last)));
  while (j < last && knots[j + 1] <= p.at) ++j;
  while (j >= 0 && knots[j] > p.at) --j;
  if (b.range != kZero) j = min(max(j, order), last - 1 - order);
  p.interval = j;
  p.inside = j >= 0 && j < last;
#pragma unroll
  for (int i = 0; i < 2 * kReach; ++i) {
    const int from = i - kReach;
    p.knot[i] = from >= -order && from < order ? knots[min(max(j + 1 + from, 0), last)] : 0.f;
  }
  return p;
}

// The level + 1 functions of order `level`; the first is number j - level.
__device__ __forceinline__ void triangle(const SplinePoint& p, int level, float (&n)[kReach + 1]) {
  n[0] = 1.f;
#pragma unroll
  for (int d = 1; d <= kReach; ++d) {
    n[d] = 0.f;
    if (d > level) continue;
    float saved = 0.f;
#pragma unroll
    for (int r = 0; r < d; ++r) {
      const float low = p.knot[kReach + r - d], high = p.knot[kReach + r];
      const float share = quotient(n[r], high - low);
      n[r] = saved + (high - p.at) * share;
      saved = (p.at - low) * share;
    }
    n[d] = saved;
  }
}

// The derivatives of the order + 1 functions.
__device__ __forceinline__ void slopes(const SplinePoint& p, const float* knots, int last,
                                       int order, float (&n)[kReach + 1]) {
  triangle(p, order - 1, n);
  float before = 0.f;
#pragma unroll
  for (int r = 0; r <= kReach; ++r) {
    float share = 0.f;
    if (r < order) {
      const float low = knots[min(max(p.interval + 1 + r - order, 0), last)];
      share = static_cast<float>(order) * quotient(n[r], p.knot[(kReach + r) % (2 * kReach)] - low);
    }
    n[r] = before - share;
    before = share;
  }
}

// Values or derivatives of functions first .. first + 7, zero for those that are not there.
template <bool kSlope>
__device__ __forceinline__ void spline(const Basis& b, int input, int first, float x,
                                       float (&phi)[8]) {
  const float* knots = b.points + input * b.stride;
  const int order = b.option;
  SplinePoint p = locate(b, knots, x);
  const int lowest = p.interval - order;
#pragma unroll
  for (int i = 0; i < 8; ++i) phi[i] = 0.f;
  if (!p.inside || lowest > first + 7 || p.interval < first) return;
  const bool moved = p.at != x;
  if (kSlope && moved && b.range == kClamp) return;
  float n[kReach + 1];
  if constexpr (kSlope) {
    slopes(p, knots, b.knots - 1, order, n);
  } else {
    triangle(p, order, n);
    if (moved && b.range == kExtend) {
      float slope[kReach + 1];
      slopes(p, knots, b.knots - 1, order, slope);
#pragma unroll
      for (int r = 0; r <= kReach; ++r) n[r] += (x - p.at) * slope[r];
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int r = 0; r <= kReach; ++r) {
      if (first + i == lowest + r && r <= order) phi[i] = n[r];
    }
  }
}

// Backwards through the triangle: grad holds the gradients of the order + 1 values, and comes to
// hold those of the orders below; of_knot gains the gradients of p.knot.
__device__ __forceinline__ void knot_gradients(const SplinePoint& p, int order,
                                               float (&grad)[kReach + 1],
                                               float (&of_knot)[2 * kReach]) {
#pragma unroll
  for (int d = kReach; d >= 1; --d) {
    if (d > order) continue;
    float lower[kReach + 1];
    triangle(p, d - 1, lower);
#pragma unroll
    for (int r = 0; r < d; ++r) {
      const float low = p.knot[kReach + r - d], high = p.knot[kReach + r], gap = high - low;
      const float share = quotient(lower[r], gap);
      // value r has (high - x) share, value r + 1 has (x - low) share
      const float of_share = grad[r] * (high - p.at) + grad[r + 1] * (p.at - low);
      const float of_gap = -quotient(of_share * share, gap);
      of_knot[kReach + r] += grad[r] * share + of_gap;
      of_knot[kReach + r - d] -= grad[r + 1] * share + of_gap;
      grad[r] = quotient(of_share, gap);
    }
  }
}

}  // namespace saccade::kan_gpu
