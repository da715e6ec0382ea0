// The way back: a row of pixels at a time, each finding its ring and ray.
#pragma once

#include "logpolar/cpu_taps.inl"

namespace saccade::logpolar::SACCADE_ISA_NAMESPACE {

// atan x = x + x z P(z) with z = x^2, for |x| <= tan(pi / 8).
SACCADE_INLINE Vec<float> atan_small(Vec<float> x) {
  constexpr float kP[] = {8.05374449538e-2f, -1.38776856032e-1f, 1.99777106478e-1f,
                          -3.33329491539e-1f};
  const Vec<float> z = x * x;
  return x + x * z * polynomial<float>(z, kP);
}

SACCADE_INLINE Vec<double> atan_small(Vec<double> x) {
  constexpr double kP[] = {-8.750608600031904122785e-1, -1.615753718733365076637e1,
                           -7.500855792314704667340e1, -1.228866684490136173410e2,
                           -6.485021904942025371773e1};
  constexpr double kQ[] = {1.0,
                           2.485846490142306297962e1,
                           1.650270098316988542046e2,
                           4.328810604912902668951e2,
                           4.853903996359136964868e2,
                           1.945506571482613964425e2};
  const Vec<double> z = x * x;
  return x + x * z * (polynomial<double>(z, kP) / polynomial<double>(z, kQ));
}

inline float sqrt_of(float x) { return ::sqrtf(x); }
inline double sqrt_of(double x) { return ::sqrt(x); }

// The angle of (x, y), 0 for (0, 0); x and y are finite.
template <typename T>
SACCADE_INLINE Vec<T> angle_of(Vec<T> y, Vec<T> x) {
  constexpr T kPi = T(3.14159265358979323846);
  const Vec<T> ax = abs<T>(x), ay = abs<T>(y);
  const Mask<T> steep = ay > ax;
  const Vec<T> longer = steep ? ay : ax;
  const Vec<T> q = (steep ? ax : ay) / (longer > 0 ? longer : broadcast<T>(1));
  const Mask<T> large = q > T(0.41421356237309503);
  Vec<T> angle = atan_small(large ? (q - T(1)) / (q + T(1)) : q);
  angle = large ? angle + kPi / 4 : angle;
  angle = steep ? kPi / 2 - angle : angle;
  angle = x < 0 ? kPi - angle : angle;
  return y < 0 ? -angle : angle;
}

// Where a vector of pixels of one row lies in the map of one fixation.
template <typename T>
struct Place {
  Vec<T> dx, dy, r;                    // from the fixation, in units of radius
  Mask<T> covered, central;            // within the last ring; within half of the first one
  Vec<T> between_rings, between_rays;  // weights of the second ring and of the second ray
  Vec<T> slope;                        // d u / d r
  alignas(SACCADE_BYTES) Int<T> offset[2][2][kWidth<T>];  // [ring][ray], into a channel's map
};

// u = slope * (g(r) - g(r_0)) and its parts that all pixels share.
template <typename T>
struct Rule {
  const Inversion<T>& v;
  T first, last, origin, rate;

  explicit Rule(const Inversion<T>& inversion) : v(inversion) {
    first = v.radii[0];
    last = v.radii[v.rings - 1];
    origin = rate = 0;
    if (v.rings == 1) return;
    if (v.law == kLogarithmic) {
      origin = log_of(first + v.offset);
      rate = T(v.rings - 1) / (log_of(last + v.offset) - origin);
    } else {
      origin = first;
      rate = T(v.rings - 1) / (last - first);
    }
  }

  // u within [0, R - 1] and d u / d r, of radii within [0, last].
  SACCADE_INLINE void find(Vec<T> r, Vec<T>* u, Vec<T>* slope) const {
    const Mask<T> inner = r < first;
    const Vec<T> bounded = inner ? broadcast<T>(first) : r;
    if (v.rings == 1) {
      *u = *slope = Vec<T>{};
      return;
    }
    if (v.law == kLogarithmic) {
      const Vec<T> moved = bounded + v.offset;
      *u = rate * (log<T>(moved) - origin);
      *slope = rate / moved;
    } else if (v.law == kLinear) {
      *u = rate * (bounded - origin);
      *slope = broadcast<T>(rate);
    } else {
      for (int i = 0; i < kWidth<T>; ++i) {
        int64_t low = 0, high = v.rings - 1;  // radii[low] <= r, low <= R - 2
        while (high - low > 1) {
          const int64_t middle = (low + high) / 2;
          (v.radii[middle] <= bounded[i] ? low : high) = middle;
        }
        const T step = v.radii[low + 1] - v.radii[low];
        (*u)[i] = T(low) + (bounded[i] - v.radii[low]) / step;
        (*slope)[i] = 1 / step;
      }
    }
    *u = clamp<T>(*u, T(0), T(v.rings - 1));
    *slope = inner ? Vec<T>{} : *slope;
  }
};

// False where the fixation covers none of the pixels.
template <typename T>
SACCADE_INLINE bool locate(const Rule<T>& rule, const Pose<T>& pose, int64_t row, int64_t column,
                           Place<T>& at) {
  const Inversion<T>& v = rule.v;
  const T rays = T(v.rays);
  at.dx = (to_float<T>(iota<T>()) + (T(column) - pose.x)) / (pose.unit_x * pose.scale);
  at.dy = broadcast<T>((T(row) - pose.y) / (pose.unit_y * pose.scale));
  const Vec<T> square = at.dx * at.dx + at.dy * at.dy;
  for (int i = 0; i < kWidth<T>; ++i) at.r[i] = sqrt_of(square[i]);
  at.covered = (at.r <= rule.last) & lanes_between<T>(0, v.width - column);
  bool any = false;
  for (int i = 0; i < kWidth<T>; ++i) any |= at.covered[i] != 0;
  if (!any) return false;
  at.central = at.r < rule.first / 2;
  // lanes that are not covered may hold anything: they stay at ring 0, ray 0
  Vec<T> u;
  rule.find(at.covered ? at.r : broadcast<T>(rule.first), &u, &at.slope);
  const Vec<T> x = at.covered ? at.dx : broadcast<T>(1);
  const Vec<T> y = at.covered ? at.dy : Vec<T>{};
  Vec<T> turn = (angle_of<T>(y, x) - pose.theta0) * (rays / T(6.283185307179586));
  // of a huge theta0 not even the sign of the angle is left
  turn = abs<T>(turn / rays) < T(1 << 30) ? turn : Vec<T>{};
  turn -= rays * to_float<T>(floor_to_int<T>(turn / rays));
  turn = clamp<T>(turn, T(0), rays);
  const Mask<T> ray = __builtin_convertvector(turn, Mask<T>);
  const Mask<T> end = Mask<T>{} + static_cast<Int<T>>(v.rays);
  const Mask<T> from = ray >= end ? ray - end : ray;
  const Mask<T> next = from + 1 >= end ? Mask<T>{} : from + 1;
  at.between_rays = turn - to_float<T>(ray);
  Mask<T> ring = __builtin_convertvector(u, Mask<T>);
  const Mask<T> before = Mask<T>{} + static_cast<Int<T>>(v.rings > 1 ? v.rings - 2 : 0);
  ring = ring < before ? ring : before;
  at.between_rings = u - to_float<T>(ring);
  const Mask<T> start = ring * static_cast<Int<T>>(v.rays);
  const Mask<T> step = Mask<T>{} + static_cast<Int<T>>(v.rings > 1 ? v.rays : 0);
  const Mask<T> offsets[2][2] = {{start + from, start + next},
                                 {start + step + from, start + step + next}};
  memcpy(at.offset, offsets, sizeof(offsets));
  return true;
}

template <typename T>
SACCADE_INLINE Vec<T> gather(const T* p, const Int<T>* offset) {
  Vec<T> v;
  for (int i = 0; i < kWidth<T>; ++i) v[i] = p[offset[i]];
  return v;
}

// The mean over the rays of ring 0.
template <typename T>
inline T center_of(const T* map, int64_t rays) {
  T sum = 0;
  for (int64_t j = 0; j < rays; ++j) sum += map[j];
  return sum / T(rays);
}

// Writes (or adds, for a mean) the rows [begin, end) of one fixation; false if its pose is not
// finite.
template <typename T>
bool inverse_one(const Inversion<T>& v, T* out, T* count, int64_t index, int64_t begin,
                 int64_t end) {
  const Pose<T> pose(v.poses, v.width, v.height, index);
  if (!pose.finite) return false;
  const Rule<T> rule(v);
  const int64_t plane = v.height * v.width, size = v.rings * v.rays;
  const T* map = v.map + index * v.channels * size;
  Place<T> at;
  for (int64_t y = begin; y < end; ++y) {
    for (int64_t x = 0; x < v.width; x += kWidth<T>) {
      const int64_t left = v.width - x;
      const int64_t pixel = y * v.width + x;
      if (!locate<T>(rule, pose, y, x, at)) {
        if (v.mean) continue;
        for (int64_t c = 0; c < v.channels; ++c)
          store_partial<T>(out + c * plane + pixel, broadcast<T>(v.fill), left);
        continue;
      }
      if (v.mean) {
        const Vec<T> more = at.covered ? broadcast<T>(1) : Vec<T>{};
        store_partial<T>(count + pixel, load_partial<T>(count + pixel, left) + more, left);
      }
      const Vec<T> outer[2] = {T(1) - at.between_rings, at.between_rings};
      const Vec<T> along[2] = {T(1) - at.between_rays, at.between_rays};
      for (int64_t c = 0; c < v.channels; ++c) {
        const T* p = map + c * size;
        Vec<T> value{};
        for (int a = 0; a < 2; ++a) {
          for (int b = 0; b < 2; ++b) value += outer[a] * along[b] * gather<T>(p, at.offset[a][b]);
        }
        bool any = false;
        for (int i = 0; i < kWidth<T>; ++i) any |= at.central[i] != 0;
        if (__builtin_expect(any, 0))
          value = at.central ? broadcast<T>(center_of(p, v.rays)) : value;
        T* to = out + c * plane + pixel;
        if (v.mean) {
          const Vec<T> more = at.covered ? value : Vec<T>{};
          store_partial<T>(to, load_partial<T>(to, left) + more, left);
        } else {
          store_partial<T>(to, at.covered ? value : broadcast<T>(v.fill), left);
        }
      }
    }
  }
  return true;
}

template <typename T>
void inverse(const Inversion<T>& v, T* out, T* count, int64_t batch, int64_t fixation,
             int64_t begin, int64_t end) {
  const int64_t plane = v.height * v.width, from = begin * v.width, to = end * v.width;
  const int64_t n = v.poses.fixations;
  bool finite = true;
  if (!v.mean) {
    out += (batch * n + fixation) * v.channels * plane;
    finite = inverse_one(v, out, count, batch * n + fixation, begin, end);
  } else {
    out += batch * v.channels * plane;
    count += batch * plane;
    fill_zero(count + from, to - from);
    for (int64_t c = 0; c < v.channels; ++c) fill_zero(out + c * plane + from, to - from);
    for (int64_t i = 0; i < n; ++i) finite &= inverse_one(v, out, count, batch * n + i, begin, end);
    for (int64_t c = 0; c < v.channels; ++c) {
      T* p = out + c * plane;
      for (int64_t i = from; i < to; ++i) p[i] = count[i] > 0 ? p[i] / count[i] : v.fill;
    }
  }
  if (finite) return;
  for (int64_t c = 0; c < v.channels; ++c) {
    for (int64_t i = from; i < to; ++i) out[c * plane + i] = kInfinity<T> - kInfinity<T>;
  }
}

template <typename T>
void inverse_backward(const Inversion<T>& v, const InversionGradients<T>& gradients, int64_t batch,
                      int64_t fixation, T* scratch) {
  const int64_t index = batch * v.poses.fixations + fixation;
  const Pose<T> pose(v.poses, v.width, v.height, index);
  if (!pose.finite) return;
  const Rule<T> rule(v);
  const int64_t plane = v.height * v.width, size = v.rings * v.rays;
  const int64_t image = v.mean ? batch : index;
  const T* map = v.map + index * v.channels * size;
  T* grad_map = gradients.map == nullptr ? nullptr : gradients.map + index * v.channels * size;
  const T turns = T(v.rays) / T(6.283185307179586);
  fill_zero(scratch, v.channels);  // gradients of the centres
  double sums[4] = {};
  Place<T> at;
  for (int64_t y = 0; y < v.height; ++y) {
    Vec<T> row_sums[4] = {};
    for (int64_t x = 0; x < v.width; x += kWidth<T>) {
      if (!locate<T>(rule, pose, y, x, at)) continue;
      const int64_t left = v.width - x, pixel = y * v.width + x;
      const int64_t lanes = left < kWidth<T> ? left : kWidth<T>;
      const Vec<T> outer[2] = {T(1) - at.between_rings, at.between_rings};
      const Vec<T> along[2] = {T(1) - at.between_rays, at.between_rays};
      Vec<T> by_u{}, by_v{};
      for (int64_t c = 0; c < v.channels; ++c) {
        Vec<T> g = load_partial<T>(gradients.out + (image * v.channels + c) * plane + pixel, left);
        if (v.mean) {
          const Vec<T> count = load_partial<T>(gradients.count + batch * plane + pixel, left);
          g = g / (count > 0 ? count : broadcast<T>(1));
        }
        if (grad_map != nullptr) {
          T* to = grad_map + c * size;
          for (int64_t i = 0; i < lanes; ++i) {
            if (!at.covered[i]) continue;
            if (at.central[i]) {
              scratch[c] += g[i];
              continue;
            }
            for (int a = 0; a < 2; ++a) {
              for (int b = 0; b < 2; ++b)
                to[at.offset[a][b][i]] += outer[a][i] * along[b][i] * g[i];
            }
          }
        }
        if (gradients.pose != nullptr) {
          const T* p = map + c * size;
          const Vec<T> near[2] = {gather<T>(p, at.offset[0][0]), gather<T>(p, at.offset[0][1])};
          const Vec<T> far[2] = {gather<T>(p, at.offset[1][0]), gather<T>(p, at.offset[1][1])};
          by_u += g * (along[0] * (far[0] - near[0]) + along[1] * (far[1] - near[1]));
          by_v += g * (outer[0] * (near[1] - near[0]) + outer[1] * (far[1] - far[0]));
        }
      }
      if (gradients.pose != nullptr) {
        const Mask<T> moves = at.covered & !at.central & (at.r > 0);
        const Vec<T> dx = moves ? at.dx : broadcast<T>(1), dy = moves ? at.dy : Vec<T>{};
        const Vec<T> r = moves ? at.r : broadcast<T>(1);
        const Vec<T> by_r = moves ? by_u * at.slope : Vec<T>{};
        const Vec<T> by_angle = moves ? by_v * turns : Vec<T>{};
        row_sums[0] -= (by_r * dx - by_angle * dy / r) / r;
        row_sums[1] -= (by_r * dy + by_angle * dx / r) / r;
        row_sums[2] -= by_angle;
        row_sums[3] -= by_r * r;
      }
    }
    for (int i = 0; i < 4; ++i) sums[i] += static_cast<double>(horizontal_sum<T>(row_sums[i]));
  }
  if (grad_map != nullptr) {
    for (int64_t c = 0; c < v.channels; ++c) {
      for (int64_t j = 0; j < v.rays; ++j) grad_map[c * size + j] += scratch[c] / T(v.rays);
    }
  }
  if (gradients.pose == nullptr) return;
  double* to = gradients.pose + 4 * index;
  const double scale = static_cast<double>(pose.scale);
  if (scale == 0) {
    for (int i = 0; i < 4; ++i) to[i] = 0;
    return;
  }
  // fixations are given in the unit that radii have, so no factor of it is left
  to[0] = sums[0] / scale;
  to[1] = sums[1] / scale;
  to[2] = sums[2];
  to[3] = sums[3] / scale;
}

}  // namespace saccade::logpolar::SACCADE_ISA_NAMESPACE
