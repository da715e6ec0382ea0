// Where samples are taken: the pose of a fixation, the taps of a ring, the pixels and weights of a
// vector of positions.
#pragma once

#include "common/math.inl"
#include "logpolar/kernel.h"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

using namespace saccade::SACCADE_ISA_NAMESPACE;

#define SACCADE_INLINE inline __attribute__((always_inline))

template <typename T>
using Int = typename Simd<T>::Int;

template <typename T>
inline bool finite(T x) {
  return x - x == T(0);
}

template <typename T>
struct Pose {
  T x, y, theta0, scale;
  T unit_x, unit_y;  // pixels of radius 1 along x and y
  T cosine, sine;    // of theta0
  bool finite;

  Pose(const Poses<T>& poses, int64_t width, int64_t height, int64_t index) {
    x = poses.fixation[2 * index];
    y = poses.fixation[2 * index + 1];
    theta0 = poses.theta0[index];
    scale = poses.scale[index];
    finite = SACCADE_ISA_NAMESPACE::finite(x) && SACCADE_ISA_NAMESPACE::finite(y) &&
             SACCADE_ISA_NAMESPACE::finite(theta0) && SACCADE_ISA_NAMESPACE::finite(scale);
    Vec<T> sin, cos;
    sincos<T>(broadcast<T>(theta0), &sin, &cos);
    cosine = cos[0];
    sine = sin[0];
    unit_x = unit_y = T(1);
    if (poses.normalized) {
      unit_x = T(width) / 2;
      unit_y = T(height) / 2;
      x = ((x + 1) * T(width) - 1) / 2;
      y = ((y + 1) * T(height) - 1) / 2;
    }
  }
};

template <typename T>
inline int64_t tap_count(T side) {
  if (!(side >= T(0.25))) return 1;
  const T bounded = side < T(2 * kMaxTaps) ? side : T(2 * kMaxTaps);
  const int64_t taps = static_cast<int64_t>(::ceil(1 + T(0.75) * bounded - T(1e-3)));
  return taps < kMaxTaps ? taps : kMaxTaps;
}

// The taps of one ring: radii, angles and levels, of which all combinations are sampled.
template <typename T>
struct Ring {
  int64_t across = 1, along = 1, levels = 1;
  T radius[kMaxTaps], weight[kMaxTaps];  // the number of angles is in the weight
  T cosine[kMaxTaps], sine[kMaxTaps];    // of theta0 and the tap's distance from the ray
  int64_t level[2] = {0, 1};
  T share[2] = {1, 0};
  T reach;  // the largest radius

  Ring(const Sampling<T>& s, const Pose<T>& pose, int64_t k) {
    constexpr T kTurn = T(6.283185307179586);
    const T low = s.edges[k], high = s.edges[k + 1], center = s.radii[k];
    const T unit = pose.unit_x > pose.unit_y ? pose.unit_x : pose.unit_y;
    const T factor = (pose.scale < 0 ? -pose.scale : pose.scale) * unit;
    const T side_r = factor * (high - low);
    const T side_t = factor * kTurn * center / T(s.rays);
    if (s.antialias == kArea) {
      across = tap_count(side_r);
      along = tap_count(side_t);
    } else if (s.antialias == kMip) {
      choose_levels(side_r, side_t);
    }
    if (across == 1) {
      radius[0] = center;
      weight[0] = T(1) / T(along);
    } else {
      T total = 0;
      for (int64_t i = 0; i < across; ++i) {
        radius[i] = low + (high - low) * (T(i) + T(0.5)) / T(across);
        total += radius[i];
      }
      // a tap stands for an area, which grows with its radius
      for (int64_t i = 0; i < across; ++i)
        weight[i] = (total > 0 ? radius[i] / total : T(1) / T(across)) / T(along);
    }
    reach = radius[across - 1];
    cosine[0] = pose.cosine;
    sine[0] = pose.sine;
    if (along == 1) return;
    for (int64_t i = 0; i < along; i += kWidth<T>) {
      const Vec<T> lane = to_float<T>(iota<T>()) + T(i);
      const Vec<T> offset = (lane + T(0.5)) / T(along) - T(0.5);
      Vec<T> sin, cos;
      sincos<T>(pose.theta0 + kTurn / T(s.rays) * offset, &sin, &cos);
      store(cosine + i, cos);
      store(sine + i, sin);
    }
  }

 private:
  // A cell that is longer than wide is covered by several squarish footprints.
  void choose_levels(T side_r, T side_t) {
    const T longer = side_r > side_t ? side_r : side_t;
    const T shorter = side_r > side_t ? side_t : side_r;
    if (!(longer > 1)) return;
    const T ratio = longer / (shorter > T(1e-6) ? shorter : T(1e-6));
    const T bounded = ratio < T(kMaxMipTaps) ? ratio : T(kMaxMipTaps);
    const int64_t taps = static_cast<int64_t>(bounded + T(0.5));
    (side_r > side_t ? across : along) = taps;
    const T area = side_r * side_t / T(taps);
    T lod = T(0.5) * static_cast<T>(::log2(area > T(1e-6) ? area : T(1e-6)));
    lod = lod > 0 ? lod : 0;
    lod = lod < T(kLevels) ? lod : T(kLevels);
    level[0] = lod < T(kLevels - 1) ? static_cast<int64_t>(lod) : kLevels - 1;
    level[1] = level[0] + 1;
    share[1] = lod - T(level[0]);
    share[0] = 1 - share[1];
    levels = share[1] > 0 ? 2 : 1;
  }
};

// A fixation on one level of the pyramid.
template <typename T>
struct Ground {
  int64_t width, height;
  T x, y, unit_x, unit_y;
  T shrink;       // pixels of this level that one pixel of the image is
  bool interior;  // whether no tap of the ring meets a border

  Ground(const Level<T>& level, int64_t number, const Pose<T>& pose, T reach)
      : width(level.width), height(level.height), shrink(T(1) / T(int64_t{1} << number)) {
    x = (pose.x + T(0.5)) * shrink - T(0.5);
    y = (pose.y + T(0.5)) * shrink - T(0.5);
    unit_x = pose.unit_x * shrink;
    unit_y = pose.unit_y * shrink;
    // a margin for the rounding of positions
    const T longest = (pose.scale < 0 ? -pose.scale : pose.scale) * reach * T(1.001);
    const T far_x = unit_x * longest + T(1e-3), far_y = unit_y * longest + T(1e-3);
    interior =
        x - far_x >= 0 && x + far_x < T(width - 1) && y - far_y >= 0 && y + far_y < T(height - 1);
  }
};

// Whether all lanes of a mask are set.
template <typename T>
SACCADE_INLINE bool all(Mask<T> mask) {
  typedef uint64_t Words __attribute__((vector_size(SACCADE_BYTES)));
  const Words words = reinterpret_cast<Words>(mask);
  uint64_t every = words[0];
  for (int i = 1; i < SACCADE_BYTES / 8; ++i) every &= words[i];
  return every == ~uint64_t{0};
}

// Where a vector of positions lies: all within the image, all where there is nothing, or neither.
enum class Whereabouts { kInside, kNowhere, kBorder };

template <typename T>
SACCADE_INLINE Whereabouts whereabouts(const Ground<T>& ground, Vec<T> x, Vec<T> y,
                                       int64_t padding) {
  const T w = T(ground.width), h = T(ground.height);
  if (all<T>((x >= 0) & (x < w - 1) & (y >= 0) & (y < h - 1))) return Whereabouts::kInside;
  if (padding != kZeros) return Whereabouts::kBorder;
  const Mask<T> nowhere = (x <= -1) | (x >= w) | (y <= -1) | (y >= h);
  return all<T>(nowhere) ? Whereabouts::kNowhere : Whereabouts::kBorder;
}

// The two pixels around a coordinate: the first one's index, their weights and their derivatives.
template <typename T>
struct Neighbours {
  Mask<T> first;
  Vec<T> weight[2];
  Vec<T> slope[2];
};

template <typename T>
SACCADE_INLINE Vec<T> clamp(Vec<T> x, T low, T high) {
  x = x > low ? x : broadcast<T>(low);  // NaN becomes low
  return x < high ? x : broadcast<T>(high);
}

// x in [0, length - 1) already.
template <typename T>
SACCADE_INLINE Neighbours<T> inner_neighbours(Vec<T> x) {
  Neighbours<T> at;
  at.first = __builtin_convertvector(x, Mask<T>);
  at.weight[1] = x - to_float<T>(at.first);
  at.weight[0] = T(1) - at.weight[1];
  at.slope[0] = broadcast<T>(-1);
  at.slope[1] = broadcast<T>(1);
  return at;
}

// Any x. The pair always lies within the axis; where the coordinate's own pair does not, weights
// are what the axis has of it. An axis of length 1 has its only pixel first.
template <typename T>
SACCADE_INLINE Neighbours<T> outer_neighbours(Vec<T> x, int64_t length, int64_t padding) {
  const T n = static_cast<T>(length);
  Vec<T> slope = broadcast<T>(1);
  if (padding == kReflection) {
    x = x + T(0.5);
    slope = x < 0 ? -slope : slope;
    x = abs<T>(x);
    // too far for a period to be told from the next, it is some point of the axis
    const Vec<T> period = x / (2 * n);
    const Vec<T> whole = period < T(1 << 30) ? to_float<T>(floor_to_int<T>(period)) : period;
    x = clamp<T>(x - whole * (2 * n), T(0), 2 * n);
    slope = x > n ? -slope : slope;
    x = min<T>(x, 2 * n - x) - T(0.5);
  }
  if (padding != kZeros) {
    slope = (x >= 0) & (x <= n - 1) ? slope : Vec<T>{};
    x = clamp<T>(x, T(0), n - 1);
  }
  x = clamp<T>(x, T(-2), n + 1);
  const Mask<T> own = floor_to_int<T>(x);
  const Mask<T> last = Mask<T>{} + static_cast<Int<T>>(length > 1 ? length - 2 : 0);
  Neighbours<T> at;
  at.first = own > 0 ? own : Mask<T>{};
  at.first = at.first < last ? at.first : last;
  for (int i = 0; i < 2; ++i) {
    const Mask<T> pixel = at.first + static_cast<Int<T>>(i);
    const Vec<T> weight = T(1) - abs<T>(x - to_float<T>(pixel));
    at.weight[i] = weight > 0 ? weight : Vec<T>{};
    at.slope[i] = pixel == own ? -slope : (pixel == own + 1 ? slope : Vec<T>{});
    if (i == 1 && length == 1) at.weight[1] = at.slope[1] = Vec<T>{};
  }
  return at;
}

// Lanes of a and b in turn, the first and the second half of them.
template <typename T, int... i>
SACCADE_INLINE void interleave(Vec<T> a, Vec<T> b, Vec<T>* low, Vec<T>* high,
                               std::integer_sequence<int, i...>) {
  constexpr int W = kWidth<T>;
  *low = __builtin_shufflevector(a, b, ((i & 1) ? W + i / 2 : i / 2)...);
  *high = __builtin_shufflevector(a, b, ((i & 1) ? W + W / 2 + i / 2 : W / 2 + i / 2)...);
}

// Sums of the pairs of lanes that interleave made.
template <typename T, int... i>
SACCADE_INLINE Vec<T> add_pairs(Vec<T> low, Vec<T> high, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(low, high, (2 * i)...) +
         __builtin_shufflevector(low, high, (2 * i + 1)...);
}

// Factors of the pixels of a vector of positions: for the upper and the lower row, left and right
// pixels in turn.
template <typename T>
struct Factors {
  Vec<T> low[2], high[2];

  SACCADE_INLINE void set(const Vec<T>* columns, const Vec<T>* rows) {
    for (int r = 0; r < 2; ++r)
      interleave<T>(columns[0] * rows[r], columns[1] * rows[r], &low[r], &high[r], Lanes<T>{});
  }
};

// The left and right pixels of half a vector of positions in turn.
template <int... i>
SACCADE_INLINE Vec<float> load_pairs(const float* p, const int32_t* offset,
                                     std::integer_sequence<int, i...>) {
  typedef double Pairs __attribute__((vector_size(SACCADE_BYTES)));
  typedef double Pair __attribute__((aligned(4), may_alias));
  return reinterpret_cast<Vec<float>>(Pairs{*reinterpret_cast<const Pair*>(p + offset[i])...});
}

template <int... i>
SACCADE_INLINE Vec<double> load_pairs(const double* p, const int64_t* offset,
                                      std::integer_sequence<int, i...>) {
  Vec<double> v{};
  ((v[2 * i] = p[offset[i]], v[2 * i + 1] = p[offset[i] + 1]), ...);
  return v;
}

template <typename T>
using HalfLanes = std::make_integer_sequence<int, kWidth<T> / 2>;

// As load_pairs, in a plane one pixel wide: there is no right pixel.
template <typename T>
inline Vec<T> load_narrow(const T* p, const Int<T>* offset) {
  Vec<T> v{};
  for (int i = 0; i < kWidth<T> / 2; ++i) v[2 * i] = p[offset[i]];
  return v;
}

// A vector of positions on one level: offsets of their upper left pixels in a plane.
template <typename T, bool kInterior>
struct Position {
  alignas(SACCADE_BYTES) Int<T> offset[kWidth<T>];
  Neighbours<T> column, row;
  int64_t below;  // from a row to the next one
  bool narrow;

  SACCADE_INLINE Position(const Ground<T>& ground, Vec<T> x, Vec<T> y, int64_t padding) {
    if constexpr (kInterior) {
      column = inner_neighbours<T>(x);
      row = inner_neighbours<T>(y);
    } else {
      column = outer_neighbours<T>(x, ground.width, padding);
      row = outer_neighbours<T>(y, ground.height, padding);
    }
    const Mask<T> place = row.first * static_cast<Int<T>>(ground.width) + column.first;
    memcpy(offset, &place, sizeof(place));
    // read back one by one: eight loads cost less than taking the register apart
    __asm__("" : "+m"(offset));
    below = ground.height > 1 ? ground.width : 0;
    narrow = !kInterior && ground.width == 1;
  }

  // Pixels of a row (0 upper, 1 lower) of half a vector (0 low, 1 high).
  SACCADE_INLINE Vec<T> pixels(const T* plane, int r, int half) const {
    const T* p = plane + r * below;
    const Int<T>* at = offset + half * (kWidth<T> / 2);
    if (!kInterior && narrow) return load_narrow<T>(p, at);
    return load_pairs(p, at, HalfLanes<T>{});
  }
};

// Products with pixels that are not there are zero, whatever the pixel in their place holds.
template <typename T, bool kInterior>
SACCADE_INLINE Vec<T> times(Vec<T> factor, Vec<T> value) {
  if constexpr (kInterior) return factor * value;
  return factor == T(0) ? Vec<T>{} : factor * value;
}

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
