// Where samples are taken: the pose of a fixation, the taps of a ring, and the pixels around a
// coordinate.
#pragma once

#include "common/cuda_device.cuh"
#include "logpolar/cuda_kernel.cuh"

namespace saccade::polar {

constexpr float kTurn = 6.283185307179586f;

__device__ __forceinline__ bool finite(float x) { return x - x == 0.f; }

struct Pose {
  float x, y, theta0, scale, unit_x, unit_y;
  bool is_finite;

  __device__ __forceinline__ Pose(const Poses& poses, int width, int height, int64_t index) {
    x = poses.fixation[2 * index];
    y = poses.fixation[2 * index + 1];
    theta0 = poses.theta0[index];
    scale = poses.scale[index];
    is_finite = finite(x) && finite(y) && finite(theta0) && finite(scale);
    unit_x = unit_y = 1.f;
    if (poses.normalized) {
      unit_x = 0.5f * static_cast<float>(width);
      unit_y = 0.5f * static_cast<float>(height);
      x = ((x + 1.f) * static_cast<float>(width) - 1.f) * 0.5f;
      y = ((y + 1.f) * static_cast<float>(height) - 1.f) * 0.5f;
    }
  }
};

__device__ __forceinline__ int tap_count(float side) {
  if (!(side >= 0.25f)) return 1;
  const float bounded = fminf(side, 2.f * kMaxTaps);
  const int taps = static_cast<int>(ceilf(1.f + 0.75f * bounded - 1e-3f));
  return taps < kMaxTaps ? taps : kMaxTaps;
}

// The taps of one ring, the same for all its rays: all combinations of radii, angles and levels.
struct Taps {
  int across = 1, along = 1, level = 0, levels = 1;
  float low, high, center, upper_share = 0.f;

  __device__ __forceinline__ Taps(const Sampling& s, const Pose& pose, int ring) {
    low = s.edges[ring];
    high = s.edges[ring + 1];
    center = s.radii[ring];
    const float factor = fabsf(pose.scale) * fmaxf(pose.unit_x, pose.unit_y);
    const float side_r = factor * (high - low);
    const float side_t = factor * kTurn * center / static_cast<float>(s.rays);
    if (s.antialias == Antialias::kArea) {
      across = tap_count(side_r);
      along = tap_count(side_t);
    } else if (s.antialias == Antialias::kMip && fmaxf(side_r, side_t) > 1.f) {
      // a cell that is longer than wide is covered by several squarish footprints
      const float ratio = fmaxf(side_r, side_t) / fmaxf(fminf(side_r, side_t), 1e-6f);
      const int taps = static_cast<int>(fminf(ratio, 1.f * kMaxMipTaps) + 0.5f);
      (side_r > side_t ? across : along) = taps;
      const float area = fmaxf(side_r * side_t / static_cast<float>(taps), 1e-6f);
      const float lod = fminf(fmaxf(0.5f * log2f(area), 0.f), 1.f * kLevels);
      level = lod < kLevels - 1.f ? static_cast<int>(lod) : kLevels - 1;
      upper_share = lod - static_cast<float>(level);
      levels = upper_share > 0.f ? 2 : 1;
    }
  }

  __device__ __forceinline__ int count() const { return across * along; }
  __device__ __forceinline__ float radius(int i) const {
    if (across == 1) return center;
    return low + (high - low) * (static_cast<float>(i) + 0.5f) / static_cast<float>(across);
  }
  // A tap stands for an area, which grows with its radius.
  __device__ __forceinline__ float weight(float radius) const {
    const float mean = 0.5f * (low + high);
    const float share = across > 1 && mean > 0.f ? radius / mean : 1.f;
    return share / static_cast<float>(count());
  }
  __device__ __forceinline__ float share(int which) const {
    return which == 0 ? 1.f - upper_share : upper_share;
  }
};

// A position on the rings: tap `tap` of a ray.
struct Spot {
  float radius, weight, cosine, sine;

  __device__ __forceinline__ Spot(const Taps& taps, const Pose& pose, int rays, int ray, int tap) {
    radius = taps.radius(tap / taps.along);
    weight = taps.weight(radius);
    const float offset =
        (static_cast<float>(tap % taps.along) + 0.5f) / static_cast<float>(taps.along) - 0.5f;
    const float angle =
        pose.theta0 + kTurn / static_cast<float>(rays) * (static_cast<float>(ray) + offset);
    sincosf(angle, &sine, &cosine);
  }
  __device__ __forceinline__ float x(const Pose& pose) const {
    return pose.x + pose.unit_x * pose.scale * radius * cosine;
  }
  __device__ __forceinline__ float y(const Pose& pose) const {
    return pose.y + pose.unit_y * pose.scale * radius * sine;
  }
};

__host__ __device__ __forceinline__ int level_size(int size, int level) {
  return (size + (1 << level) - 1) >> level;
}

// Pixels `first` and first + 1 around a coordinate: weights and their derivatives, zero for what is
// not on the axis.
struct Pair {
  int first;
  float weight[2], slope[2];
  bool there[2];

  __device__ __forceinline__ Pair(float x, int length, Padding padding) {
    const float n = static_cast<float>(length);
    float direction = 1.f;
    if (padding == Padding::kReflection) {
      x += 0.5f;
      direction = x < 0.f ? -1.f : 1.f;
      x = fabsf(x);
      x = fminf(fmaxf(x - 2.f * n * floorf(x / (2.f * n)), 0.f), 2.f * n);
      if (x > n) direction = -direction;
      x = fminf(x, 2.f * n - x) - 0.5f;
    }
    if (padding != Padding::kZeros) {
      if (!(x >= 0.f && x <= n - 1.f)) direction = 0.f;
      x = fminf(fmaxf(x, 0.f), n - 1.f);
    }
    x = fminf(fmaxf(x, -2.f), n + 1.f);  // NaN becomes -2
    first = static_cast<int>(floorf(x));
    const float fraction = x - static_cast<float>(first);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      there[i] = first + i >= 0 && first + i < length;
      weight[i] = there[i] ? (i == 0 ? 1.f - fraction : fraction) : 0.f;
      slope[i] = there[i] ? (i == 0 ? -direction : direction) : 0.f;
    }
  }
};

// The pixels around a position on one level.
struct Corners {
  int width, height;
  float shrink;
  Pair column, row;

  __device__ __forceinline__ Corners(const Sampling& s, int level, float x, float y)
      : width(level_size(s.width, level)),
        height(level_size(s.height, level)),
        shrink(1.f / static_cast<float>(1 << level)),
        column((x + 0.5f) * shrink - 0.5f, width, s.padding),
        row((y + 0.5f) * shrink - 0.5f, height, s.padding) {}

  __device__ __forceinline__ bool there(int corner) const {
    return column.there[corner & 1] && row.there[corner >> 1];
  }
  __device__ __forceinline__ int pixel(int corner) const {
    return (row.first + (corner >> 1)) * width + column.first + (corner & 1);
  }
  __device__ __forceinline__ float weight(int corner) const {
    return column.weight[corner & 1] * row.weight[corner >> 1];
  }
};

// Where a level stands in a channel of the pyramid.
__device__ __forceinline__ int64_t level_offset(const Sampling& s, int level) {
  int64_t offset = 0;
  for (int i = 1; i < level; ++i)
    offset += int64_t{level_size(s.height, i)} * level_size(s.width, i);
  return offset;
}

__device__ __forceinline__ float pixel_value(float x) { return x; }
__device__ __forceinline__ float pixel_value(__half x) { return cuda::to_float(x); }
__device__ __forceinline__ float pixel_value(__nv_bfloat16 x) { return cuda::to_float(x); }
__device__ __forceinline__ float pixel_value(uint8_t x) { return static_cast<float>(x); }

inline int64_t blocks_for(int64_t items, int threads) { return (items + threads - 1) / threads; }

}  // namespace saccade::polar
