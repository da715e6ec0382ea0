// Sampling: a ring at a time, a vector of rays and up to four channels at a time.
#pragma once

#include "logpolar/cpu_taps.inl"

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

template <typename T>
void sample(const Sampling<T>& s, T* out, int64_t batch, int64_t fixation, int64_t begin,
            int64_t end) {
  const int64_t index = batch * s.poses.fixations + fixation;
  const Pose<T> pose(s.poses, s.level[0].width, s.level[0].height, index);
  for (int64_t k = begin; k < end; ++k) {
    T* row = out + (index * s.channels * s.rings + k) * s.rays;
    if (!pose.finite) {
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t j = 0; j < s.rays; ++j)
          row[c * s.rings * s.rays + j] = kInfinity<T> - kInfinity<T>;
      continue;
    }
    const Ring<T> ring(s, pose, k);
    const Ground<T> grounds[2] = {
        {s.level[ring.level[0]], ring.level[0], pose, ring.reach},
        {s.level[ring.levels > 1 ? ring.level[1] : 0], ring.level[1], pose, ring.reach}};
    for (int64_t c = 0; c < s.channels; c += 4) {
      T* to = row + c * s.rings * s.rays;
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
