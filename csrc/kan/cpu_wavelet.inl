// Wavelet layers: every edge has a scale and a shift of its own. Lanes are rows, so an edge's
// numbers are read once for all of them.
#pragma once

#include "kan/cpu_basis.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

constexpr int64_t kWaveletRows = 128;  // of a backward block

template <typename T, Wavelet kind, bool kSlope>
inline __attribute__((always_inline)) Vec<T> psi(Vec<T> z, Vec<T>* slope) {
  constexpr T kPi = static_cast<T>(3.14159265358979323846);
  if constexpr (kind == Wavelet::kMexicanHat) {
    constexpr T kNorm = static_cast<T>(0.86732507058407748);  // 2 / (sqrt 3 pi^(1/4))
    const Vec<T> zz = z * z;
    const Vec<T> e = kNorm * exp_bounded(T(-0.5) * zz);
    if constexpr (kSlope) *slope = z * (T(3) - zz) * e;
    return (zz - T(1)) * e;
  } else if constexpr (kind == Wavelet::kMorlet) {
    const Vec<T> e = exp_bounded(T(-0.5) * z * z);
    Vec<T> s, c;
    sincos<T>(T(5) * z, &s, &c);
    if constexpr (kSlope) *slope = (T(-5) * s - z * c) * e;
    return c * e;
  } else if constexpr (kind == Wavelet::kDog) {
    const Vec<T> zz = z * z;
    const Vec<T> e = exp_bounded(T(-0.5) * zz);
    if constexpr (kSlope) *slope = (zz - T(1)) * e;
    return -z * e;
  } else if constexpr (kind == Wavelet::kMeyer) {
    const Vec<T> v = abs<T>(z);
    Vec<T> t = T(2) * v - T(1);
    t = t < T(0) ? Vec<T>{} : t;
    t = t > T(1) ? broadcast<T>(T(1)) : t;
    const Vec<T> tt = t * t;
    const Vec<T> step = tt * tt * (T(35) + t * (T(-84) + t * (T(70) - T(20) * t)));
    Vec<T> s, c, step_sin, step_cos;
    sincos<T>(kPi * v, &s, &c);
    sincos<T>(kPi / 2 * step, &step_sin, &step_cos);
    const Mask<T> beyond = v >= T(1);
    const Vec<T> nothing = z - z;
    if constexpr (kSlope) {
      // nu' = 140 t^3 (1 - t)^3
      const Vec<T> u = t * (T(1) - t);
      const Vec<T> rise = T(280) * u * u * u;
      const Vec<T> d = kPi * c * step_cos - kPi / 2 * s * step_sin * rise;
      *slope = beyond ? nothing : z > T(0) ? d : z < T(0) ? -d : nothing;
    }
    return beyond ? nothing : s * step_cos;
  } else {
    Vec<T> s, c;
    sincos<T>(z, &s, &c);
    const Mask<T> small = abs<T>(z) < T(0.0625);
    const Vec<T> zz = z * z;
    const Vec<T> series = T(1) - zz * (T(1) / 6) * (T(1) - zz * (T(1) / 20) * (T(1) - zz / 42));
    const Vec<T> value = small ? series : s / z;
    if constexpr (kSlope) {
      const Vec<T> near = -z * (T(1) / 3) * (T(1) - zz * (T(1) / 10) * (T(1) - zz / 28));
      *slope = small ? near : (c - value) / z;
    }
    return value;
  }
}

template <typename F>
inline void for_kind(Wavelet kind, const F& f) {
  switch (kind) {
    case Wavelet::kMexicanHat:
      return f(std::integral_constant<Wavelet, Wavelet::kMexicanHat>{});
    case Wavelet::kMorlet:
      return f(std::integral_constant<Wavelet, Wavelet::kMorlet>{});
    case Wavelet::kDog:
      return f(std::integral_constant<Wavelet, Wavelet::kDog>{});
    case Wavelet::kMeyer:
      return f(std::integral_constant<Wavelet, Wavelet::kMeyer>{});
    case Wavelet::kShannon:
      return f(std::integral_constant<Wavelet, Wavelet::kShannon>{});
  }
}

template <typename T>
struct WaveletForward {
  int64_t width;
  T *x, *base, *sums;
  WaveletForward(const Problem& p, const Block& block, Scratch<T>& scratch)
      : width(round_up(block.row_end - block.row, 4 * kWidth<T>)) {
    x = scratch.take(p.in * width);
    base = p.base ? scratch.take(p.in * width) : nullptr;
    sums = scratch.take(kWidth<T> * width);
  }
};

// Sums of one output over all inputs, for four vectors of rows at a time.
template <typename T, Wavelet kind>
inline void wavelet_output(const Args<T>& args, int64_t head, int64_t out,
                           const WaveletForward<T>& buffer, T* sums) {
  constexpr int W = kWidth<T>;
  constexpr int N = 4;
  const Problem& p = args.problem;
  const int64_t edge = (head * p.out + out) * p.in;
  const Weight<const T>& w = args.weight;
  const T* weight = w.data + head * w.head + out * w.out;
  for (int64_t r = 0; r < buffer.width; r += N * W) {
    Vec<T> sum[N] = {};
    for (int64_t i = 0; i < p.in; ++i) {
      const T inverse = T(1) / args.scales[edge + i], shift = args.points[edge + i];
      const T* x = buffer.x + i * buffer.width + r;
      for (int v = 0; v < N; ++v)
        sum[v] +=
            weight[i * w.in] * psi<T, kind, false>((load(x + v * W) - shift) * inverse, nullptr);
      if (p.base) {
        const T* b = buffer.base + i * buffer.width + r;
        for (int v = 0; v < N; ++v) sum[v] += args.base[edge + i] * load(b + v * W);
      }
    }
    for (int v = 0; v < N; ++v) store<T>(sums + r + v * W, sum[v]);
  }
}

template <typename T>
void wavelet_forward(const Args<T>& args, const Block& block, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const WaveletForward<T> buffer(p, block, scratch);
  const int64_t rows = block.row_end - block.row, width = buffer.width;
  start_from_bias(args, block);
  pack_inputs(args, block, 0, p.in, width, buffer.x);
  if (p.base) {
    for (int64_t k = 0; k < p.in * width; k += W)
      store<T>(buffer.base + k, silu<T>(load(buffer.x + k)));
  }
  T* y = args.y + (block.head * p.rows + block.row) * p.out;
  for_kind(p.wavelet, [&](auto kind) {
    for (int64_t o = block.begin; o < block.end; ++o) {
      wavelet_output<T, decltype(kind)::value>(args, block.head, o, buffer, buffer.sums);
      for (int64_t r = 0; r < rows; ++r) y[r * p.out + o] += buffer.sums[r];
    }
  });
}

template <typename T>
struct WaveletBackward {
  int64_t inputs;
  T *x, *grad_x, *base, *grads, *edges;
  WaveletBackward(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(block.end - block.begin) {
    x = scratch.take(inputs * kWaveletRows);
    grad_x = scratch.take(inputs * kWaveletRows);
    base = scratch.take(kWaveletRows);
    grads = scratch.take(p.out * kWaveletRows);
    edges = scratch.take(inputs * p.out * 4);
  }
};

// One input's edges for a block of rows: adds to its x gradient, and to weight, shift, scale and
// base of every edge.
template <typename T, Wavelet kind>
inline void wavelet_input(const Args<T>& args, int64_t head, int64_t input, int64_t width,
                          const T* x, const T* base, const T* grads, T* grad_x, T* edges) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  const Weight<const T>& w = args.weight;
  for (int64_t o = 0; o < p.out; ++o) {
    const int64_t edge = (head * p.out + o) * p.in + input;
    const T inverse = T(1) / args.scales[edge], shift = args.points[edge];
    const T weight = w.data[head * w.head + o * w.out + input * w.in] * inverse;
    const T* grad = grads + o * kWaveletRows;
    Vec<T> of_value{}, of_slope{}, of_stretch{};
    for (int64_t r = 0; r < width; r += W) {
      const Vec<T> z = (load(x + r) - shift) * inverse, g = load(grad + r);
      Vec<T> slope;
      of_value += g * psi<T, kind, true>(z, &slope);
      slope *= g;
      of_slope += slope;
      of_stretch += slope * z;
      store<T>(grad_x + r, load(grad_x + r) + weight * slope);
    }
    T* to = edges + o * 4;
    to[0] += horizontal_sum<T>(of_value);
    to[1] -= weight * horizontal_sum<T>(of_slope);
    to[2] -= weight * horizontal_sum<T>(of_stretch);
    if (p.base) to[3] += dot(grad, base, width);
  }
}

template <typename T>
void wavelet_backward(const Args<T>& args, const Block& block, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const WaveletBackward<T> buffer(p, block, scratch);
  fill_zero(buffer.edges, buffer.inputs * p.out * 4);
  const auto same = [](int64_t k) { return k; };
  for (int64_t row = block.row; row < block.row_end; row += kWaveletRows) {
    const Block part{block.head, row, least(row + kWaveletRows, block.row_end), block.begin,
                     block.end};
    const int64_t rows = part.row_end - row, width = round_up(rows, W);
    pack_inputs(args, part, block.begin, buffer.inputs, kWaveletRows, buffer.x);
    transpose_in(args.grad_out + (block.head * p.rows + row) * p.out, p.out, rows, p.out,
                 kWaveletRows, buffer.grads, same);
    for (int64_t i = 0; i < buffer.inputs; ++i) {
      const T* x = buffer.x + i * kWaveletRows;
      T* grad_x = buffer.grad_x + i * kWaveletRows;
      fill_zero(grad_x, width);
      if (p.base) {
        for (int64_t r = 0; r < width; r += W) store<T>(buffer.base + r, silu<T>(load(x + r)));
      }
      for_kind(p.wavelet, [&](auto kind) {
        wavelet_input<T, decltype(kind)::value>(args, block.head, block.begin + i, width, x,
                                                buffer.base, buffer.grads, grad_x,
                                                buffer.edges + i * p.out * 4);
      });
      if (!p.base) continue;
      for (int64_t r = 0; r < width; r += W) {
        Vec<T> sum{};
        for (int64_t o = 0; o < p.out; ++o)
          sum += args.base[(block.head * p.out + o) * p.in + block.begin + i] *
                 load(buffer.grads + o * kWaveletRows + r);
        store<T>(grad_x + r, load(grad_x + r) + sum * silu_slope<T>(load(x + r)));
      }
    }
    transpose_out(buffer.grad_x, kWaveletRows, rows, buffer.inputs,
                  args.grad_x + (block.head * p.rows + row) * p.in + block.begin, p.in, same);
  }
  const Weight<T>& w = args.grad_weight;
  for (int64_t o = 0; o < p.out; ++o) {
    for (int64_t i = 0; i < buffer.inputs; ++i) {
      const T* from = buffer.edges + (i * p.out + o) * 4;
      const int64_t edge = (block.head * p.out + o) * p.in + block.begin + i;
      w.data[block.head * w.head + o * w.out + (block.begin + i) * w.in] = from[0];
      args.grad_points[edge] = from[1];
      args.grad_scales[edge] = from[2];
      if (p.base) args.grad_base[edge] = from[3];
    }
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
