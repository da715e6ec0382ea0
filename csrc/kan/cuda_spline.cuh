// The k + 1 B-splines of order k that are not zero at a point, or their derivatives.
// Source: Piegl and Tiller, The NURBS Book, algorithms A2.1 to A2.3.
#pragma once

#include "common/cuda_device.cuh"
#include "kan/cuda_kernel.cuh"

namespace saccade::kan {

// The knots of one input: a row of a grid, or equal steps. Before the first and behind the last knot
// stand knots of step 1 that no basis function of the layer depends on.
struct Knots {
  const float* row;  // null: uniform
  float first, step;
  int count;

  __device__ __forceinline__ float operator()(int m) const {
    if (row == nullptr) return first + static_cast<float>(m) * step;
    const int inside = m < 0 ? 0 : (m < count ? m : count - 1);
    return row[inside] + static_cast<float>(m - inside);
  }
};
