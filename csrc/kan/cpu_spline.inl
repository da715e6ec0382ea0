// B-splines: the order + 1 functions that do not vanish at an input, and layers that touch their
// weights alone, so the cost does not grow with the number of intervals.
#pragma once

#include "kan/cpu_basis.inl"
#include "kan/cpu_gemm.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

constexpr int kMaxTerms = kMaxOrder + 1;
constexpr int kSplineVectors = 8;     // of outputs that a row's sums hold
constexpr int64_t kSplineInputs = 8;  // whose weights stay in the first-level cache

// The knots of one input.
template <typename T>
struct Knots {
  const T* t;
  int64_t count;
  int order;
  Beyond beyond;
  T inverse_step;
  bool equal;  // steps, to rounding

  Knots(const Problem& p, const T* points, int64_t input)
      : t(points + (p.knot_rows == 1 ? 0 : input * p.knots)),
        count(p.knots),
        order(p.order),
        beyond(p.beyond) {
    const T length = t[count - 1] - t[0];
    inverse_step = length > T(0) ? static_cast<T>(count - 1) / length : T(0);
    const T step = length / static_cast<T>(count - 1);
    const T far = -t[0] > t[count - 1] ? -t[0] : t[count - 1];
    const T allowed = far * (sizeof(T) == 4 ? T(2.4e-7) : T(4.5e-16));
    equal = length > T(0);
    for (int64_t i = 0; i < count; ++i) {
      const T off = t[i] - (t[0] + static_cast<T>(i) * step);
      equal &= -allowed <= off && off <= allowed;
    }
  }
  int64_t functions() const { return count - 1 - order; }
  T at(int64_t i) const { return t[i < 0 ? 0 : i >= count ? count - 1 : i]; }

  // The interval [t_j, t_j+1) of a number within the knots.
  int64_t find(T x) const {
    int64_t low = 0, high = count - 1;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (t[middle] <= x ? low : high) = middle;
    }
    return low;
  }
};

// Where an input of every lane falls.
template <typename T>
struct Place {
  Vec<T> x;       // within the knots, or the grid
  Vec<T> excess;  // what was cut off, 0 in range
  Mask<T> within;
  Mask<T> interval;
};

template <typename T>
inline Place<T> locate(const Knots<T>& knots, Vec<T> x) {
  using Int = typename Simd<T>::Int;
  const bool zero = knots.beyond == Beyond::kZero;
  const int64_t first = zero ? 0 : knots.order;
  const int64_t last = zero ? knots.count - 2 : knots.functions() - 1;
  const T low = knots.t[first], high = knots.t[last + 1];
  Place<T> place;
  const Vec<T> below = x > low ? x : broadcast<T>(low);  // also for NaN
  place.x = below < high ? below : broadcast<T>(high);
  place.excess = x - place.x;
  place.within = zero ? (x >= low) & (x < high) : (x >= low) & (x <= high);
  Mask<T> j = __builtin_convertvector((place.x - knots.t[0]) * knots.inverse_step, Mask<T>);
  j = j < static_cast<Int>(first) ? Mask<T>{} + static_cast<Int>(first) : j;
  j = j > static_cast<Int>(last) ? Mask<T>{} + static_cast<Int>(last) : j;
  place.interval = j;
  // a smooth piece goes on beyond its ends by as much as rounding may mistake the interval
  if (knots.equal && knots.order > 1) return place;
  Vec<T> left, right;
  for (int l = 0; l < kWidth<T>; ++l) left[l] = knots.t[j[l]], right[l] = knots.t[j[l] + 1];
  const Mask<T> missed = !((left <= place.x) & (place.x < right));
  bool any = false;
  for (int l = 0; l < kWidth<T>; ++l) any |= missed[l] != 0;
  if (__builtin_expect(any, 0)) {
    for (int l = 0; l < kWidth<T>; ++l) {
      if (missed[l]) {
        const int64_t found = knots.find(place.x[l]);
        j[l] = static_cast<Int>(most(first, least(last, found)));
      }
    }
  }
  place.interval = j;
  return place;
}

// a / b, 0 where b is 0.
template <typename T>
inline Vec<T> quotient(Vec<T> a, Vec<T> b) {
  return b == T(0) ? Vec<T>{} : a / b;
}

// Cubic functions on equal knots: polynomials of the place within the interval.
template <typename T>
inline __attribute__((always_inline)) void cubic(const Knots<T>& knots, const Place<T>& place,
                                                 Vec<T>* value, Vec<T>* derivative) {
  const Vec<T> f = (place.x - knots.t[0]) * knots.inverse_step - to_float<T>(place.interval);
  const Vec<T> g = T(1) - f, ff = f * f, gg = g * g;
  constexpr T kSixth = static_cast<T>(1.0 / 6), kThird = static_cast<T>(2.0 / 3);
  value[0] = kSixth * gg * g;
  value[1] = kThird - ff * (T(1) - T(0.5) * f);
  value[2] = kThird - gg * (T(1) - T(0.5) * g);
  value[3] = kSixth * ff * f;
  const T half = T(0.5) * knots.inverse_step;
  derivative[0] = -half * gg;
  derivative[1] = knots.inverse_step * f * (T(1.5) * f - T(2));
  derivative[2] = knots.inverse_step * g * (T(2) - T(1.5) * g);
  derivative[3] = half * ff;
}

// The functions interval - order .. interval at a place, and their slopes; those that do not exist
// hold anything. kOrder -1: the order is known at run time alone.
template <typename T, int kOrder>
inline __attribute__((always_inline)) void de_boor(const Knots<T>& knots, const Place<T>& place,
                                                   Vec<T>* value, Vec<T>* derivative) {
  const int order = kOrder < 0 ? knots.order : kOrder;
  Vec<T> left[kMaxTerms], right[kMaxTerms], term[kMaxTerms] = {};
  for (int d = 1; d <= order; ++d) {
    Vec<T> low, high;
    for (int l = 0; l < kWidth<T>; ++l) {
      low[l] = knots.at(place.interval[l] + 1 - d);
      high[l] = knots.at(place.interval[l] + d);
    }
    left[d] = place.x - low;
    right[d] = high - place.x;
  }
  value[0] = broadcast<T>(T(1));
  derivative[0] = Vec<T>{};
  for (int d = 1; d <= order; ++d) {
    Vec<T> saved{};
    for (int r = 0; r < d; ++r) {
      term[r] = quotient<T>(value[r], right[r + 1] + left[d - r]);
      value[r] = saved + right[r + 1] * term[r];
      saved = left[d - r] * term[r];
    }
    value[d] = saved;
  }
  for (int r = 0; r <= order && order > 0; ++r) {
    const Vec<T> before = r > 0 ? term[r - 1] : Vec<T>{};
    const Vec<T> after = r < order ? term[r] : Vec<T>{};
    derivative[r] = static_cast<T>(order) * (before - after);
  }
}

// What a layer does with an input: `terms` weights from function `first` on. Values, or slopes.
template <typename T, int kOrder, bool kSlope>
inline __attribute__((always_inline)) Mask<T> spline_terms(const Knots<T>& knots, Vec<T> x,
                                                           Vec<T>* result) {
  using Int = typename Simd<T>::Int;
  const int order = kOrder < 0 ? knots.order : kOrder;
  const int64_t last = knots.functions() - 1 - order;
  const Place<T> place = locate(knots, x);
  Vec<T> value[kMaxTerms], derivative[kMaxTerms];
  if (kOrder == 3 && knots.equal) {
    cubic(knots, place, value, derivative);
  } else {
    de_boor<T, kOrder>(knots, place, value, derivative);
  }
  for (int r = 0; r <= order; ++r) {
    Vec<T> v;
    if constexpr (kSlope) {
      v = derivative[r];
      if (knots.beyond != Beyond::kExtend) v = place.within ? v : Vec<T>{};
    } else {
      v = value[r];
      if (knots.beyond == Beyond::kZero) v = place.within ? v : Vec<T>{};
      if (knots.beyond == Beyond::kExtend)
        v += place.within ? Vec<T>{} : place.excess * derivative[r];
    }
    result[r] = v;
  }
  const Mask<T> wanted = place.interval - static_cast<Int>(order);
  Mask<T> first = wanted < 0 ? Mask<T>{} : wanted;
  first = first > static_cast<Int>(last) ? Mask<T>{} + static_cast<Int>(last) : first;
  // functions that do not exist make room for zeros
  const Mask<T> shift = first - wanted;
  Vec<T> shifted[kMaxTerms];
  for (int r = 0; r <= order; ++r) shifted[r] = result[r];
  for (int by = 1; by <= order; ++by) {
    const Mask<T> up = shift == static_cast<Int>(by), down = shift == static_cast<Int>(-by);
    for (int r = 0; r <= order; ++r) {
      shifted[r] = up ? (r + by <= order ? result[r + by] : Vec<T>{}) : shifted[r];
      shifted[r] = down ? (r - by >= 0 ? result[r - by] : Vec<T>{}) : shifted[r];
    }
  }
  for (int r = 0; r <= order; ++r) result[r] = x == x ? shifted[r] : x;
  return first;
}

// A chunk of inputs as [row vectors][inputs][slots][lanes], and the place of the first weight.
template <typename T>
struct SplinePanel {
  int64_t inputs, width;
  int slots;
  T *x, *terms;
  int32_t* first;
  SplinePanel(const Problem& p, int64_t inputs_, int64_t rows, Scratch<T>& scratch)
      : inputs(inputs_), width(round_up(rows, kWidth<T>)), slots(p.order + 1 + (p.base ? 1 : 0)) {
    x = scratch.take(inputs * width);
    terms = scratch.take(inputs * slots * width);
    first = reinterpret_cast<int32_t*>(scratch.take(inputs * width));
  }
};

template <typename T, int kOrder, bool kSlope>
inline void fill_panel_of_order(const Args<T>& args, int64_t input, int64_t inputs,
                                const SplinePanel<T>& panel) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  const int terms = p.order + 1;
  for (int64_t i = 0; i < inputs; ++i) {
    const Knots<T> knots(p, args.points, input + i);
    for (int64_t r = 0; r < panel.width; r += W) {
      const Vec<T> x = load(panel.x + i * panel.width + r);
      Vec<T> result[kMaxTerms];
      const Mask<T> first = spline_terms<T, kOrder, kSlope>(knots, x, result);
      const int64_t place = r * panel.inputs + i * W;
      T* to = panel.terms + place * panel.slots;
      for (int k = 0; k < terms; ++k) store<T>(to + k * W, result[k]);
      if (p.base) store<T>(to + terms * W, kSlope ? silu_slope<T>(x) : silu<T>(x));
      for (int l = 0; l < W; ++l) panel.first[place + l] = static_cast<int32_t>(first[l]);
    }
  }
}

template <typename T, bool kSlope>
inline void fill_panel(const Args<T>& args, const Block& block, int64_t input, int64_t inputs,
                       const SplinePanel<T>& panel) {
  pack_inputs(args, block, input, inputs, panel.width, panel.x);
  if (args.problem.order == 3) {
    fill_panel_of_order<T, 3, kSlope>(args, input, inputs, panel);
  } else {
    fill_panel_of_order<T, -1, kSlope>(args, input, inputs, panel);
  }
}

// Calls f(vectors, terms) with constants: 4 terms are those of cubic splines, 0 means any number.
template <typename F>
inline void for_terms(int order, int64_t vectors, const F& f) {
  const auto terms = [&](auto n) {
    if (order == 3) {
      f(n, std::integral_constant<int, 4>{});
    } else {
      f(n, std::integral_constant<int, 0>{});
    }
  };
  if (vectors == kSplineVectors) {
    terms(std::integral_constant<int, kSplineVectors>{});
  } else if (vectors == 2) {
    terms(std::integral_constant<int, 2>{});
  } else {
    terms(std::integral_constant<int, 1>{});
  }
}

// The vectors of the next panel of outputs.
inline int64_t panel_vectors(int64_t left) {
  return left >= kSplineVectors ? kSplineVectors : left >= 2 ? 2 : 1;
}

template <typename T, int N, int kTerms>
inline void spline_rows(const SplinePanel<T>& panel, int64_t inputs, int64_t rows, int order,
                        bool base, int64_t functions, const T* weights, T* y, int64_t stride) {
  constexpr int W = kWidth<T>;
  const int terms = kTerms > 0 ? kTerms : order + 1;
  const int64_t step = (functions + (base ? 1 : 0)) * N * W;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t place = r / W * panel.inputs * W;
    const T* term = panel.terms + place * panel.slots + r % W;
    const int32_t* first = panel.first + place + r % W;
    T* to = y + r * stride;
    Vec<T> sum[N];
    for (int v = 0; v < N; ++v) sum[v] = load(to + v * W);
    const T* input = weights;
    for (int64_t i = 0; i < inputs; ++i) {
      const T* line = input + first[i * W] * (N * W);
      for (int k = 0; k < terms; ++k) {
        const Vec<T> left = broadcast<T>(term[k * W]);
        for (int v = 0; v < N; ++v) sum[v] += left * load(line + (k * N + v) * W);
      }
      if (base) {
        const Vec<T> left = broadcast<T>(term[terms * W]);
        for (int v = 0; v < N; ++v) sum[v] += left * load(input + (functions * N + v) * W);
      }
      term += panel.slots * W;
      input += step;
    }
    for (int v = 0; v < N; ++v) store<T>(to + v * W, sum[v]);
  }
}

template <typename T>
struct SplineForward {
  int64_t inputs, outs;
  SplinePanel<T> panel;
  T *weights, *sums;
  SplineForward(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(kSplineInputs, p.in)),
        outs(round_up(block.end - block.begin, kWidth<T>)),
        panel(p, inputs, block.row_end - block.row, scratch) {
    weights = scratch.take(inputs * p.slots() * kSplineVectors * kWidth<T>);
    // where the last vector of outputs would run over
    sums = (block.end - block.begin) % kWidth<T> == 0
               ? nullptr
               : scratch.take((block.row_end - block.row) * outs);
  }
};

template <typename T>
void spline_forward(const Args<T>& args, const Block& block, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineForward<T> buffer(p, block, scratch);
  const int64_t rows = block.row_end - block.row, outs = block.end - block.begin;
  start_from_bias(args, block);
  T* y = args.y + (block.head * p.rows + block.row) * p.out + block.begin;
  T* sums = buffer.sums == nullptr ? y : buffer.sums;
  const int64_t stride = buffer.sums == nullptr ? p.out : buffer.outs;
  if (buffer.sums != nullptr) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < stride; ++o)
        sums[r * stride + o] = o < outs ? y[r * p.out + o] : T(0);
    }
  }
  for (int64_t i = 0; i < p.in; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, p.in - i);
    fill_panel<T, false>(args, block, i, inputs, buffer.panel);
    for (int64_t o = 0; o < buffer.outs;) {
      const int64_t vectors = panel_vectors((buffer.outs - o) / W);
      pack_weights(args, block.head, i, inputs, block.begin + o, least(vectors * W, outs - o),
                   vectors * W, buffer.weights);
      for_terms(p.order, vectors, [&](auto n, auto terms) {
        spline_rows<T, decltype(n)::value, decltype(terms)::value>(
            buffer.panel, inputs, rows, p.order, p.base, p.functions, buffer.weights, sums + o,
            stride);
      });
      o += vectors * W;
    }
  }
  if (buffer.sums == nullptr) return;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < outs; ++o) y[r * p.out + o] = sums[r * stride + o];
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
