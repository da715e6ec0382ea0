// Sampling: a ring at a time, a vector of rays and up to four channels at a time.
#pragma once

#include "logpolar/cpu_quads.inl"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

// One tap of a vector of rays.
template <typename T, int kChannels, bool kInterior>
SACCADE_INLINE void add_tap(const Ground<T>& ground, Vec<T> x, Vec<T> y, int64_t padding, T weight,
                            const T* plane, int64_t channel, Vec<T>* low, Vec<T>* high) {
  Position<T, kInterior> at(ground, x, y, padding);
  at.row.weight[0] *= weight;
  at.row.weight[1] *= weight;
  Factors<T> factors;
  factors.set(at.column.weight, at.row.weight);
  for (int c = 0; c < kChannels; ++c) {
    const T* p = plane + c * channel;
    for (int row = 0; row < 2; ++row) {
      low[c] += times<T, kInterior>(factors.low[row], at.pixels(p, row, 0));
      high[c] += times<T, kInterior>(factors.high[row], at.pixels(p, row, 1));
    }
  }
}

// All taps on one level, for the rays whose directions are given.
template <typename T, int kChannels, bool kInterior>
SACCADE_INLINE void sum_taps(const Sampling<T>& s, const Ring<T>& ring, const Ground<T>& ground,
                             T scale, T share, Vec<T> base_cos, Vec<T> base_sin, const T* plane,
                             int64_t channel, Vec<T>* low, Vec<T>* high) {
  for (int64_t i = 0; i < ring.along; ++i) {
    const Vec<T> cos = base_cos * ring.cosine[i] - base_sin * ring.sine[i];
    const Vec<T> sin = base_sin * ring.cosine[i] + base_cos * ring.sine[i];
    for (int64_t a = 0; a < ring.across; ++a) {
      const T r = scale * ring.radius[a];
      const T weight = ring.weight[a] * share;
      const Vec<T> x = ground.x + ground.unit_x * r * cos, y = ground.y + ground.unit_y * r * sin;
      const Whereabouts where =
          kInterior ? Whereabouts::kInside : whereabouts<T>(ground, x, y, s.padding);
      if (where == Whereabouts::kInside) {
        add_tap<T, kChannels, true>(ground, x, y, s.padding, weight, plane, channel, low, high);
      } else if (where == Whereabouts::kBorder) {
        add_tap<T, kChannels, false>(ground, x, y, s.padding, weight, plane, channel, low, high);
      }
    }
  }
}

// out: this ring of the first channel.
template <typename T, int kChannels>
void sample_ring(const Sampling<T>& s, const Pose<T>& pose, const Ring<T>& ring,
                 const Ground<T>* grounds, int64_t batch, int64_t first, T* out) {
  for (int64_t j = 0; j < s.rays; j += kWidth<T>) {
    const Vec<T> cos = load(s.cosine + j), sin = load(s.sine + j);
    Vec<T> low[kChannels] = {}, high[kChannels] = {};
    for (int64_t l = 0; l < ring.levels; ++l) {
      const Level<T>& level = s.level[ring.level[l]];
      const T* plane = level.data + batch * level.batch + first * level.channel;
      if (grounds[l].interior) {
        sum_taps<T, kChannels, true>(s, ring, grounds[l], pose.scale, ring.share[l], cos, sin,
                                     plane, level.channel, low, high);
      } else {
        sum_taps<T, kChannels, false>(s, ring, grounds[l], pose.scale, ring.share[l], cos, sin,
                                      plane, level.channel, low, high);
      }
    }
    for (int c = 0; c < kChannels; ++c) {
      store_partial<T>(out + c * s.rings * s.rays + j, add_pairs<T>(low[c], high[c], Lanes<T>{}),
                       s.rays - j);
    }
  }
}

// The inner rings of a fixation, where samples are about as many as pixels: a window of the image
// around it, with the channels side by side.
template <typename T>
class Window {
 public:
  // Of rings [begin, end) those before `last()` have theirs in the window.
  Window(const Sampling<T>& s, const Pose<T>& pose, int64_t begin, int64_t end, T* quads)
      : quads_(quads), last_(begin) {
    if (s.channels < 3 || s.antialias == kMip) return;
    const Level<T>& level = s.level[0];
    const T unit = pose.unit_x > pose.unit_y ? pose.unit_x : pose.unit_y;
    const T scale = (pose.scale < 0 ? -pose.scale : pose.scale) * unit;
    for (int64_t k = begin; k < end; ++k) {
      const T reach = scale * s.edges[k + 1];
      if (!(reach < T(kWindowSide / 2 - 3))) break;
      const int64_t half = static_cast<int64_t>(reach) + 3, side = 2 * half;
      const T least = T(half), width = T(level.width - half), height = T(level.height - half);
      if (!(pose.x >= least && pose.y >= least && pose.x < width && pose.y < height)) break;
      // a tap gains about what two pixels cost
      if (2 * (k + 1 - begin) * s.rays < side * side) continue;
      last_ = k + 1;
      side_ = side;
      x_ = static_cast<int64_t>(pose.x) - half;
      y_ = static_cast<int64_t>(pose.y) - half;
    }
  }

  int64_t last() const { return last_; }

  // Channels [first, first + channels) of the rings before `last()`; out: the first one's map.
  void sample(const Sampling<T>& s, const Pose<T>& pose, int64_t batch, int64_t begin,
              int64_t first, int64_t channels, T* out) const {
    const Level<T>& level = s.level[0];
    const T* plane = level.data + batch * level.batch + first * level.channel;
    for (int64_t row = 0; row < side_; ++row) {
      to_quads<T>(plane + (y_ + row) * level.width + x_, level.channel, channels, side_,
                  quads_ + 4 * row * side_);
    }
    Pose<T> here = pose;
    here.x -= T(x_);
    here.y -= T(y_);
    const Level<T> window{nullptr, 0, 0, side_, side_};
    for (int64_t k = begin; k < last_; ++k) {
      const Ring<T> ring(s, pose, k);
      const Ground<T> ground(window, 0, here, ring.reach);
      sample_ring_quads<T>(s, here, ring, ground, quads_, channels, out + k * s.rays);
    }
  }

 private:
  T* quads_;
  int64_t last_, side_ = 0, x_ = 0, y_ = 0;
};

template <typename T>
void sample(const Sampling<T>& s, T* out, int64_t batch, int64_t fixation, int64_t begin,
            int64_t end, T* scratch) {
  const int64_t index = batch * s.poses.fixations + fixation;
  const Pose<T> pose(s.poses, s.level[0].width, s.level[0].height, index);
  T* map = out + index * s.channels * s.rings * s.rays;
  if (!pose.finite) {
    for (int64_t c = 0; c < s.channels; ++c) {
      T* to = map + c * s.rings * s.rays;
      for (int64_t i = begin * s.rays; i < end * s.rays; ++i) to[i] = kInfinity<T> - kInfinity<T>;
    }
    return;
  }
  const Window<T> window(s, pose, begin, end, scratch);
  if (window.last() > begin) {
    for (int64_t c = 0; c < s.channels; c += 4) {
      const int64_t left = s.channels - c;
      window.sample(s, pose, batch, begin, c, left < 4 ? left : 4, map + c * s.rings * s.rays);
    }
  }
  for (int64_t k = window.last(); k < end; ++k) {
    const Ring<T> ring(s, pose, k);
    const Ground<T> grounds[2] = {
        {s.level[ring.level[0]], ring.level[0], pose, ring.reach},
        {s.level[ring.levels > 1 ? ring.level[1] : 0], ring.level[1], pose, ring.reach}};
    for (int64_t c = 0; c < s.channels; c += 4) {
      T* to = map + (c * s.rings + k) * s.rays;
      switch (s.channels - c) {
        case 1:
          sample_ring<T, 1>(s, pose, ring, grounds, batch, c, to);
          break;
        case 2:
          sample_ring<T, 2>(s, pose, ring, grounds, batch, c, to);
          break;
        case 3:
          sample_ring<T, 3>(s, pose, ring, grounds, batch, c, to);
          break;
        default:
          sample_ring<T, 4>(s, pose, ring, grounds, batch, c, to);
      }
    }
  }
}

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
