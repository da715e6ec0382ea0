// Sampling and its gradient on up to four channels side by side: a position then touches a third of
// the cache lines, and reads or writes a pixel at once.
#pragma once

#include <type_traits>

#include "logpolar/cpu_taps.inl"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

// The channels of a pixel, and two pixels of a row.
template <typename T>
struct Quads {
  typedef T Pixel __attribute__((vector_size(4 * sizeof(T)), may_alias));
  typedef T Pair __attribute__((vector_size(8 * sizeof(T)), aligned(4 * sizeof(T)), may_alias));
  typedef T LoosePair __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
  typedef T Loose __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));

  SACCADE_INLINE static void transpose(Pixel* p) {
    const Pixel a = __builtin_shufflevector(p[0], p[1], 0, 4, 1, 5);
    const Pixel b = __builtin_shufflevector(p[0], p[1], 2, 6, 3, 7);
    const Pixel c = __builtin_shufflevector(p[2], p[3], 0, 4, 1, 5);
    const Pixel d = __builtin_shufflevector(p[2], p[3], 2, 6, 3, 7);
    p[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    p[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    p[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    p[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
  }
};

// Eight pixels of four planes as four pairs of pixels.
template <typename T>
SACCADE_INLINE void planes_to_pairs(typename Quads<T>::Pair* p) {
  using Pair = typename Quads<T>::Pair;
  const Pair a = __builtin_shufflevector(p[0], p[1], 0, 8, 1, 9, 4, 12, 5, 13);
  const Pair b = __builtin_shufflevector(p[0], p[1], 2, 10, 3, 11, 6, 14, 7, 15);
  const Pair c = __builtin_shufflevector(p[2], p[3], 0, 8, 1, 9, 4, 12, 5, 13);
  const Pair d = __builtin_shufflevector(p[2], p[3], 2, 10, 3, 11, 6, 14, 7, 15);
  const Pair e = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);    // pixels 0 and 4
  const Pair f = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);  // 1 and 5
  const Pair g = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);    // 2 and 6
  const Pair h = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);  // 3 and 7
  p[0] = __builtin_shufflevector(e, f, 0, 1, 2, 3, 8, 9, 10, 11);
  p[1] = __builtin_shufflevector(g, h, 0, 1, 2, 3, 8, 9, 10, 11);
  p[2] = __builtin_shufflevector(e, f, 4, 5, 6, 7, 12, 13, 14, 15);
  p[3] = __builtin_shufflevector(g, h, 4, 5, 6, 7, 12, 13, 14, 15);
}

// The same way back.
template <typename T>
SACCADE_INLINE void pairs_to_planes(typename Quads<T>::Pair* p) {
  using Pair = typename Quads<T>::Pair;
  const Pair e = __builtin_shufflevector(p[0], p[2], 0, 1, 2, 3, 8, 9, 10, 11);
  const Pair f = __builtin_shufflevector(p[0], p[2], 4, 5, 6, 7, 12, 13, 14, 15);
  const Pair g = __builtin_shufflevector(p[1], p[3], 0, 1, 2, 3, 8, 9, 10, 11);
  const Pair h = __builtin_shufflevector(p[1], p[3], 4, 5, 6, 7, 12, 13, 14, 15);
  const Pair a = __builtin_shufflevector(e, f, 0, 8, 1, 9, 4, 12, 5, 13);
  const Pair b = __builtin_shufflevector(e, f, 2, 10, 3, 11, 6, 14, 7, 15);
  const Pair c = __builtin_shufflevector(g, h, 0, 8, 1, 9, 4, 12, 5, 13);
  const Pair d = __builtin_shufflevector(g, h, 2, 10, 3, 11, 6, 14, 7, 15);
  p[0] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
  p[1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
  p[2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
  p[3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
}

// Whole eights of pixels; returns how many.
template <typename T, int kChannels>
int64_t interleave_planes(const T* plane, int64_t channel, int64_t pixels, T* quads) {
  using Q = Quads<T>;
  int64_t i = 0;
  for (; i + 8 <= pixels; i += 8) {
    typename Q::Pair p[4] = {};
    for (int c = 0; c < kChannels; ++c)
      p[c] = *reinterpret_cast<const typename Q::LoosePair*>(plane + c * channel + i);
    planes_to_pairs<T>(p);
    for (int k = 0; k < 4; ++k) *reinterpret_cast<typename Q::Pair*>(quads + 4 * i + 8 * k) = p[k];
  }
  return i;
}

template <typename T, int kChannels>
int64_t separate_planes(const T* quads, int64_t pixels, T* plane, int64_t channel) {
  using Q = Quads<T>;
  int64_t i = 0;
  for (; i + 8 <= pixels; i += 8) {
    typename Q::Pair p[4];
    for (int k = 0; k < 4; ++k)
      p[k] = *reinterpret_cast<const typename Q::Pair*>(quads + 4 * i + 8 * k);
    pairs_to_planes<T>(p);
    for (int c = 0; c < kChannels; ++c)
      *reinterpret_cast<typename Q::LoosePair*>(plane + c * channel + i) = p[c];
  }
  return i;
}

// Calls body with the number of channels, 1 to 4, as a type.
template <typename F>
SACCADE_INLINE int64_t for_channels(int64_t channels, const F& body) {
  switch (channels) {
    case 1:
      return body(std::integral_constant<int, 1>{});
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 3:
      return body(std::integral_constant<int, 3>{});
    default:
      return body(std::integral_constant<int, 4>{});
  }
}

// quads [pixels + 1, 4] from planes; zeros for channels that are not there, and behind the last
// pixel, where an image one pixel wide has its right neighbour.
template <typename T>
void to_quads(const T* plane, int64_t channel, int64_t channels, int64_t pixels, T* quads) {
  int64_t i = for_channels(channels, [&](auto count) {
    return interleave_planes<T, decltype(count)::value>(plane, channel, pixels, quads);
  });
  for (; i <= pixels; ++i) {
    for (int64_t c = 0; c < 4; ++c)
      quads[4 * i + c] = c < channels && i < pixels ? plane[c * channel + i] : T(0);
  }
}

template <typename T>
void from_quads(const T* quads, int64_t channels, int64_t pixels, T* plane, int64_t channel) {
  int64_t i = for_channels(channels, [&](auto count) {
    return separate_planes<T, decltype(count)::value>(quads, pixels, plane, channel);
  });
  for (; i < pixels; ++i) {
    for (int64_t c = 0; c < channels; ++c) plane[c * channel + i] = quads[4 * i + c];
  }
}

// The weights of a vector of positions: [upper left, upper right, lower left, lower right].
template <typename T>
struct Corners {
  alignas(SACCADE_BYTES) T weight[4][kWidth<T>];

  template <bool kInterior>
  SACCADE_INLINE Corners(const Position<T, kInterior>& at, T factor) {
    for (int r = 0; r < 2; ++r) {
      const Vec<T> row = at.row.weight[r] * factor;
      for (int c = 0; c < 2; ++c) store(weight[2 * r + c], row * at.column.weight[c]);
    }
  }
};

// Adds one tap of a vector of rays to their sums, left and right pixels apart.
template <typename T, bool kInterior>
SACCADE_INLINE void add_quads(const Ground<T>& ground, Vec<T> x, Vec<T> y, int64_t padding,
                              T factor, const T* quads, typename Quads<T>::Pair* sums) {
  using Pair = typename Quads<T>::Pair;
  const Position<T, kInterior> at(ground, x, y, padding);
  const Corners<T> corners(at, factor);
  const T* lower = quads + 4 * at.below;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) {
    const int64_t offset = 4 * static_cast<int64_t>(at.offset[i]);
    for (int r = 0; r < 2; ++r) {
      const T a = corners.weight[2 * r][i], b = corners.weight[2 * r + 1][i];
      const Pair weight = {a, a, a, a, b, b, b, b};
      const Pair pixels = *reinterpret_cast<const Pair*>((r == 0 ? quads : lower) + offset);
      if constexpr (kInterior) {
        sums[i] += weight * pixels;
      } else {
        sums[i] += weight == T(0) ? Pair{} : weight * pixels;
      }
    }
  }
}

// Runs body(x, y, ring's weight) for every tap of the rays whose directions are given.
template <typename T, typename F>
SACCADE_INLINE void for_each_tap(const Pose<T>& pose, const Ring<T>& ring, const Ground<T>& ground,
                                 Vec<T> base_cos, Vec<T> base_sin, const F& body) {
  for (int64_t i = 0; i < ring.along; ++i) {
    const Vec<T> cos = base_cos * ring.cosine[i] - base_sin * ring.sine[i];
    const Vec<T> sin = base_sin * ring.cosine[i] + base_cos * ring.sine[i];
    for (int64_t a = 0; a < ring.across; ++a) {
      const T r = pose.scale * ring.radius[a];
      body(ground.x + ground.unit_x * r * cos, ground.y + ground.unit_y * r * sin, ring.weight[a]);
    }
  }
}

// Rays whose pixels are transposed together.
template <typename T>
constexpr int kTogether = kWidth<T> < 4 ? kWidth<T> : 4;

// out: this ring of the block's first channel.
template <typename T>
void sample_ring_quads(const Sampling<T>& s, const Pose<T>& pose, const Ring<T>& ring,
                       const Ground<T>& ground, const T* quads, int64_t channels, T* out) {
  using Q = Quads<T>;
  for (int64_t j = 0; j < s.rays; j += kWidth<T>) {
    typename Q::Pair sums[kWidth<T>] = {};
    const auto tap = [&](Vec<T> x, Vec<T> y, T weight) __attribute__((always_inline)) {
      const Whereabouts where =
          ground.interior ? Whereabouts::kInside : whereabouts<T>(ground, x, y, s.padding);
      if (where == Whereabouts::kInside) {
        add_quads<T, true>(ground, x, y, s.padding, weight, quads, sums);
      } else if (where == Whereabouts::kBorder) {
        add_quads<T, false>(ground, x, y, s.padding, weight, quads, sums);
      }
    };
    for_each_tap<T>(pose, ring, ground, load(s.cosine + j), load(s.sine + j), tap);
    const int64_t left = s.rays - j;
#pragma GCC unroll 4
    for (int i = 0; i < kWidth<T>; i += kTogether<T>) {
      typename Q::Pixel p[4] = {};
#pragma GCC unroll 4
      for (int k = 0; k < kTogether<T>; ++k) {
        p[k] = __builtin_shufflevector(sums[i + k], sums[i + k], 0, 1, 2, 3) +
               __builtin_shufflevector(sums[i + k], sums[i + k], 4, 5, 6, 7);
      }
      Q::transpose(p);
      for (int64_t c = 0; c < channels; ++c) {
        T* to = out + c * s.rings * s.rays + j + i;
        if (kWidth<T> >= 4 && left >= i + 4) {
          *reinterpret_cast<typename Q::Loose*>(to) = p[c];
        } else {
          for (int k = 0; k < kTogether<T> && i + k < left; ++k) to[k] = p[c][k];
        }
      }
    }
  }
}

template <typename T>
void sample_quads(const Sampling<T>& s, const T* quads, T* out, int64_t batch, int64_t fixation,
                  int64_t begin, int64_t end, int64_t first, int64_t channels) {
  const int64_t index = batch * s.poses.fixations + fixation;
  const Pose<T> pose(s.poses, s.level[0].width, s.level[0].height, index);
  for (int64_t k = begin; k < end; ++k) {
    T* row = out + ((index * s.channels + first) * s.rings + k) * s.rays;
    if (!pose.finite) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t j = 0; j < s.rays; ++j)
          row[c * s.rings * s.rays + j] = kInfinity<T> - kInfinity<T>;
      continue;
    }
    const Ring<T> ring(s, pose, k);
    const Ground<T> ground(s.level[0], 0, pose, ring.reach);
    sample_ring_quads<T>(s, pose, ring, ground, quads, channels, row);
  }
}

// Adds the gradients of a vector of rays to the pixels of one tap. Near the fixation neighbouring
// rays meet in one pixel and would wait for each other: the vector's parts take turns.
template <typename T, bool kInterior>
SACCADE_INLINE void scatter_quads(const Ground<T>& ground, Vec<T> x, Vec<T> y, int64_t padding,
                                  T factor, const typename Quads<T>::Pixel* grads, int64_t count,
                                  T* quads) {
  using Pixel = typename Quads<T>::Pixel;
  constexpr int kParts = kWidth<T> < 4 ? 1 : 4;
  const Position<T, kInterior> at(ground, x, y, padding);
  const Corners<T> corners(at, factor);
  T* lower = quads + 4 * at.below;
  const auto add = [&](int i) __attribute__((always_inline)) {
    const int64_t offset = 4 * static_cast<int64_t>(at.offset[i]);
    for (int k = 0; k < 4; ++k) {
      const T weight = corners.weight[k][i];
      Pixel more = grads[i] * weight;
      if constexpr (!kInterior) more = weight == T(0) ? Pixel{} : more;
      *reinterpret_cast<Pixel*>((k < 2 ? quads : lower) + offset + 4 * (k & 1)) += more;
    }
  };
  if (count < kWidth<T>) {
    for (int i = 0; i < count; ++i) add(i);
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) add(i % kParts * (kWidth<T> / kParts) + i / kParts);
}

template <typename T>
void ring_backward_quads(const Sampling<T>& s, const Pose<T>& pose, const Ring<T>& ring,
                         const Ground<T>& ground, const T* out, int64_t channels, T* quads) {
  using Q = Quads<T>;
  for (int64_t j = 0; j < s.rays; j += kWidth<T>) {
    const int64_t left = s.rays - j;
    const int64_t count = left < kWidth<T> ? left : kWidth<T>;
    typename Q::Pixel grads[kWidth<T> < 4 ? 4 : kWidth<T>];
    for (int64_t i = 0; i < count; i += 4) {
      typename Q::Pixel* p = grads + i;
      for (int64_t c = 0; c < 4; ++c) {
        const T* from = out + c * s.rings * s.rays + j + i;
        p[c] = typename Q::Pixel{};
        if (c >= channels) continue;
        if (i + 4 <= left) {
          p[c] = *reinterpret_cast<const typename Q::Loose*>(from);
        } else {
          for (int64_t k = 0; k < left - i; ++k) p[c][k] = from[k];
        }
      }
      Q::transpose(p);
    }
    const auto tap = [&](Vec<T> x, Vec<T> y, T weight) __attribute__((always_inline)) {
      const Whereabouts where =
          ground.interior ? Whereabouts::kInside : whereabouts<T>(ground, x, y, s.padding);
      if (where == Whereabouts::kInside) {
        scatter_quads<T, true>(ground, x, y, s.padding, weight, grads, count, quads);
      } else if (where == Whereabouts::kBorder) {
        scatter_quads<T, false>(ground, x, y, s.padding, weight, grads, count, quads);
      }
    };
    for_each_tap<T>(pose, ring, ground, load(s.cosine + j), load(s.sine + j), tap);
  }
}

// The gradient of the part's image alone, up to four channels, which is written and not added to.
template <typename T>
void sample_backward_quads(const Sampling<T>& s, const SamplingGradients<T>& gradients,
                           const Part& part, T* quads) {
  const int64_t channels = part.last - part.first;
  const int64_t pixels = s.level[0].height * s.level[0].width;
  fill_zero(quads, 4 * (pixels + 1));
  for (int64_t n = part.begin; n < part.end; ++n) {
    const int64_t index = part.batch * s.poses.fixations + n;
    const Pose<T> pose(s.poses, s.level[0].width, s.level[0].height, index);
    if (!pose.finite) continue;
    for (int64_t k = 0; k < s.rings; ++k) {
      const Ring<T> ring(s, pose, k);
      const Ground<T> ground(s.level[0], 0, pose, ring.reach);
      const T* out = gradients.out + ((index * s.channels + part.first) * s.rings + k) * s.rays;
      ring_backward_quads<T>(s, pose, ring, ground, out, channels, quads);
    }
  }
  from_quads<T>(quads, channels, pixels, gradients.plane(0, part), gradients.channel[0]);
}

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
