// Gradients of sampling: of the image's planes and of the poses, in one pass over the same taps.
#pragma once

#include "logpolar/cpu_taps.inl"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

// to[0] += v[0] and to[1] += v[1].
SACCADE_INLINE void add_pair(float* to, const float* v) {
  typedef float Pair __attribute__((vector_size(8), aligned(4), may_alias));
  *reinterpret_cast<Pair*>(to) += *reinterpret_cast<const Pair*>(v);
}

SACCADE_INLINE void add_pair(double* to, const double* v) {
  typedef double Pair __attribute__((vector_size(16), aligned(8), may_alias));
  *reinterpret_cast<Pair*>(to) += *reinterpret_cast<const Pair*>(v);
}

// Adds a vector of gradients to the pixels of its positions, one position after another: several
// may meet in one pixel.
template <typename T, bool kInterior>
SACCADE_INLINE void scatter(const Position<T, kInterior>& at, const Factors<T>& factors, Vec<T> low,
                            Vec<T> high, T* plane, int64_t count) {
  constexpr int W = kWidth<T>;
  alignas(SACCADE_BYTES) T values[2][2 * W];
  for (int row = 0; row < 2; ++row) {
    store(values[row], times<T, kInterior>(factors.low[row], low));
    store(values[row] + W, times<T, kInterior>(factors.high[row], high));
  }
  if (!kInterior && at.narrow) {
    for (int64_t i = 0; i < count; ++i) {
      plane[at.offset[i]] += values[0][2 * i];
      plane[at.offset[i] + at.below] += values[1][2 * i];
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    add_pair(plane + at.offset[i], values[0] + 2 * i);
    add_pair(plane + at.offset[i] + at.below, values[1] + 2 * i);
  }
}

// Around the fixation the samples are closer than the pixels, and one would wait for the pair of
// pixels that the last one has just written, or worse, half of it. There, every pixel has a place
// for each of the four positions that a sample can have it in.
constexpr int64_t kWindow = 24;  // pixels a side
static_assert(kScratch >= kWidth<float> + 4 * kWindow * kWindow);
constexpr int64_t kWindowReach = kWindow / 2 - 2;

template <typename T>
struct Fovea {
  T* places;  // [channels, kWindow, kWindow, 2, 2]
  int64_t x, y;
  bool used = false;

  Fovea(T* memory, const Pose<T>& pose) : places(memory) {
    // beyond this no ring is within the image
    const bool near = pose.x > -1 && pose.y > -1 && pose.x < T(INT32_MAX) && pose.y < T(INT32_MAX);
    x = near ? static_cast<int64_t>(pose.x) - kWindow / 2 : 0;
    y = near ? static_cast<int64_t>(pose.y) - kWindow / 2 : 0;
  }

  // All taps of the ring within the window, and within the image.
  bool holds(const Pose<T>& pose, const Ring<T>& ring, const Ground<T>& ground) const {
    const T unit = pose.unit_x > pose.unit_y ? pose.unit_x : pose.unit_y;
    const T scale = pose.scale < 0 ? -pose.scale : pose.scale;
    return ring.level[0] == 0 && ring.levels == 1 && ground.interior &&
           scale * unit * ring.reach < T(kWindowReach);
  }

  void open(int64_t channels) {
    if (!used) fill_zero(places, channels * kWindow * kWindow * 4);
    used = true;
  }

  // Adds the window to the gradient of the part's first channel and those behind it.
  void close(T* grad, int64_t channel, int64_t width, int64_t height, int64_t channels) const {
    if (!used) return;
    const int64_t top = y < 0 ? -y : 0, left = x < 0 ? -x : 0;
    const int64_t bottom = height - y < kWindow ? height - y : kWindow;
    const int64_t right = width - x < kWindow ? width - x : kWindow;
    for (int64_t c = 0; c < channels; ++c) {
      const T* q = places + c * kWindow * kWindow * 4;
      for (int64_t r = top; r < bottom; ++r) {
        T* to = grad + c * channel + (y + r) * width + x;
        for (int64_t i = left; i < right; ++i) {
          const T* at = q + 4 * (r * kWindow + i);
          T sum = at[0];
          if (i > 0) sum += at[-3];
          if (r > 0) sum += at[2 - 4 * kWindow];
          if (i > 0 && r > 0) sum += at[-1 - 4 * kWindow];
          to[i] += sum;
        }
      }
    }
  }
};

// As scatter, into one channel of a fovea: [kWindow, kWindow, 2, 2].
template <typename T>
SACCADE_INLINE void scatter_fovea(const Int<T>* places, const Factors<T>& factors, Vec<T> low,
                                  Vec<T> high, T* to, int64_t count) {
  constexpr int W = kWidth<T>;
  typedef T Quad __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
  alignas(SACCADE_BYTES) T values[2][2 * W];
  for (int row = 0; row < 2; ++row) {
    store(values[row], factors.low[row] * low);
    store(values[row] + W, factors.high[row] * high);
  }
  for (int64_t i = 0; i < count; ++i) {
    const Quad more = {values[0][2 * i], values[0][2 * i + 1], values[1][2 * i],
                       values[1][2 * i + 1]};
    *reinterpret_cast<Quad*>(to + places[i]) += more;
  }
}

// What the taps of one vector of rays add to the gradients of x, y, theta0 and scale.
template <typename T>
struct PoseSums {
  Vec<T> x{}, y{}, theta0{}, scale{};
};

template <typename T>
struct LevelGradient {
  const T* plane;  // the image's, of the part's first channel
  T* grad;         // the same of its gradient
  int64_t channel, grad_channel;
  const Fovea<T>* fovea;  // that takes the gradient instead, or null
};

template <typename T, bool kImage, bool kPose, bool kInterior>
void taps_backward(const Sampling<T>& s, const Pose<T>& pose, const Ring<T>& ring,
                   const Ground<T>& ground, T share, Vec<T> base_cos, Vec<T> base_sin,
                   const LevelGradient<T>& level, const T* grads, int64_t channels, int64_t count,
                   PoseSums<T>& sums) {
  const Mask<T> there = lanes_between<T>(0, count);
  for (int64_t i = 0; i < ring.along; ++i) {
    const Vec<T> cos = base_cos * ring.cosine[i] - base_sin * ring.sine[i];
    const Vec<T> sin = base_sin * ring.cosine[i] + base_cos * ring.sine[i];
    for (int64_t a = 0; a < ring.across; ++a) {
      const T r = pose.scale * ring.radius[a];
      const Position<T, kInterior> at(ground, ground.x + ground.unit_x * r * cos,
                                      ground.y + ground.unit_y * r * sin, s.padding);
      const T weight = ring.weight[a] * share;
      const Vec<T> rows[2] = {at.row.weight[0] * weight, at.row.weight[1] * weight};
      Factors<T> factors, by_x, by_y;
      if constexpr (kImage) factors.set(at.column.weight, rows);
      if constexpr (kPose) {
        const Vec<T> slopes[2] = {at.row.slope[0] * weight, at.row.slope[1] * weight};
        by_x.set(at.column.slope, rows);
        by_y.set(at.column.weight, slopes);
      }
      alignas(SACCADE_BYTES) Int<T> places[kWidth<T>];
      const bool foveal = kImage && kInterior && level.fovea != nullptr;
      if (foveal) {
        const Mask<T> row = at.row.first - static_cast<Int<T>>(level.fovea->y);
        const Mask<T> column = at.column.first - static_cast<Int<T>>(level.fovea->x);
        const Mask<T> place = (row * static_cast<Int<T>>(kWindow) + column) * 4;
        memcpy(places, &place, sizeof(place));
      }
      Vec<T> x[2] = {}, y[2] = {};
      for (int64_t c = 0; c < channels; ++c) {
        const Vec<T> g = load(grads + c * kWidth<T>);
        Vec<T> low, high;
        interleave<T>(g, g, &low, &high, Lanes<T>{});
        if (foveal) {
          T* to = level.fovea->places + c * kWindow * kWindow * 4;
          scatter_fovea<T>(places, factors, low, high, to, count);
        } else if constexpr (kImage) {
          scatter<T, kInterior>(at, factors, low, high, level.grad + c * level.grad_channel, count);
        }
        if constexpr (kPose) {
          const T* p = level.plane + c * level.channel;
          for (int row = 0; row < 2; ++row) {
            const Vec<T> left = at.pixels(p, row, 0), right = at.pixels(p, row, 1);
            x[0] += low * times<T, kInterior>(by_x.low[row], left);
            x[1] += high * times<T, kInterior>(by_x.high[row], right);
            y[0] += low * times<T, kInterior>(by_y.low[row], left);
            y[1] += high * times<T, kInterior>(by_y.high[row], right);
          }
        }
      }
      if constexpr (kPose) {
        Vec<T> gx = add_pairs<T>(x[0], x[1], Lanes<T>{}) * ground.shrink;
        Vec<T> gy = add_pairs<T>(y[0], y[1], Lanes<T>{}) * ground.shrink;
        gx = there ? gx : Vec<T>{};
        gy = there ? gy : Vec<T>{};
        const Vec<T> px = gx * (pose.unit_x * ring.radius[a]);
        const Vec<T> py = gy * (pose.unit_y * ring.radius[a]);
        sums.x += gx;
        sums.y += gy;
        sums.theta0 += (py * cos - px * sin) * pose.scale;
        sums.scale += px * cos + py * sin;
      }
    }
  }
}

template <typename T, bool kImage, bool kPose>
void ring_backward(const Sampling<T>& s, const SamplingGradients<T>& gradients, const Part& part,
                   const Pose<T>& pose, int64_t index, int64_t k, T* scratch, Fovea<T>& fovea,
                   double* to) {
  const Ring<T> ring(s, pose, k);
  const int64_t channels = part.last - part.first;
  const T* out = gradients.out + ((index * s.channels + part.first) * s.rings + k) * s.rays;
  PoseSums<T> sums;
  const Ground<T> grounds[2] = {
      {s.level[ring.level[0]], ring.level[0], pose, ring.reach},
      {s.level[ring.levels > 1 ? ring.level[1] : 0], ring.level[1], pose, ring.reach}};
  const bool foveal = kImage && fovea.holds(pose, ring, grounds[0]);
  if (foveal) fovea.open(channels);
  for (int64_t j = 0; j < s.rays; j += kWidth<T>) {
    const Vec<T> cos = load(s.cosine + j), sin = load(s.sine + j);
    const int64_t left = s.rays - j;
    const int64_t count = left < kWidth<T> ? left : kWidth<T>;
    for (int64_t c = 0; c < channels; ++c)
      store(scratch + c * kWidth<T>, load_partial<T>(out + c * s.rings * s.rays + j, left));
    for (int64_t l = 0; l < ring.levels; ++l) {
      const int64_t number = ring.level[l];
      const Level<T>& level = s.level[number];
      LevelGradient<T> here{level.data + part.batch * level.batch + part.first * level.channel,
                            nullptr, level.channel, gradients.channel[number],
                            foveal ? &fovea : nullptr};
      if constexpr (kImage) here.grad = gradients.plane(number, part);
      if (grounds[l].interior) {
        taps_backward<T, kImage, kPose, true>(s, pose, ring, grounds[l], ring.share[l], cos, sin,
                                              here, scratch, channels, count, sums);
      } else {
        taps_backward<T, kImage, kPose, false>(s, pose, ring, grounds[l], ring.share[l], cos, sin,
                                               here, scratch, channels, count, sums);
      }
    }
  }
  if constexpr (kPose) {
    const double unit_x = s.poses.normalized ? pose.unit_x : 1;
    const double unit_y = s.poses.normalized ? pose.unit_y : 1;
    to[0] += unit_x * horizontal_sum<T>(sums.x);
    to[1] += unit_y * horizontal_sum<T>(sums.y);
    to[2] += horizontal_sum<T>(sums.theta0);
    to[3] += horizontal_sum<T>(sums.scale);
  }
}

template <typename T, bool kImage, bool kPose>
void part_backward(const Sampling<T>& s, const SamplingGradients<T>& gradients, const Part& part,
                   T* scratch) {
  for (int64_t n = part.begin; n < part.end; ++n) {
    const int64_t index = part.batch * s.poses.fixations + n;
    const Pose<T> pose(s.poses, s.level[0].width, s.level[0].height, index);
    if (!pose.finite) continue;
    double* to = kPose ? gradients.pose + 4 * (n - part.begin) : nullptr;
    const int64_t channels = part.last - part.first;
    Fovea<T> fovea(scratch + channels * kWidth<T>, pose);
    for (int64_t k = 0; k < s.rings; ++k)
      ring_backward<T, kImage, kPose>(s, gradients, part, pose, index, k, scratch, fovea, to);
    if constexpr (kImage) {
      fovea.close(gradients.plane(0, part), gradients.channel[0], s.level[0].width,
                  s.level[0].height, channels);
    }
  }
}

template <typename T>
void sample_backward(const Sampling<T>& s, const SamplingGradients<T>& gradients, const Part& part,
                     T* scratch) {
  if (gradients.level[0] == nullptr)
    return part_backward<T, false, true>(s, gradients, part, scratch);
  if (gradients.pose == nullptr) return part_backward<T, true, false>(s, gradients, part, scratch);
  part_backward<T, true, true>(s, gradients, part, scratch);
}

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
