// B-splines: the order + 1 functions that do not vanish at an input, and layers that touch their
// weights alone, so the cost does not grow with the number of intervals. The rows of a tile go by
// their interval, one input at a time: the weights of an interval stay in registers for all of its
// rows. The functions of an interval add up to one, so one of them needs no product: its weights
// are added, and the others' are differences to it.
#pragma once

#include "kan/cpu_basis.inl"
#include "kan/cpu_gemm.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

constexpr int kMaxTerms = kMaxOrder + 1;
constexpr int kMaxLines = kMaxTerms + 1;  // of weights: the terms' and the base's

// Inputs whose terms are made at a time: a line of cache of x.
constexpr int64_t kTileInputs = 16;

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

// The place of intervals among a tile's buckets: where functions run out there is one more bucket,
// of inputs beyond the knots.
struct Buckets {
  int64_t first, intervals;
  bool outside;
  explicit Buckets(const Problem& p)
      : first(p.beyond == Beyond::kZero ? 0 : p.order),
        intervals(p.beyond == Beyond::kZero ? p.functions + p.order : p.functions - p.order),
        outside(p.beyond == Beyond::kZero) {}
  int64_t count() const { return intervals + (outside ? 1 : 0); }
};

// The functions interval - order .. interval at x, values or slopes; returns the buckets.
template <typename T, int kOrder, bool kSlope>
inline __attribute__((always_inline)) Mask<T> spline_terms(const Knots<T>& knots,
                                                           const Buckets& buckets, Vec<T> x,
                                                           Vec<T>* result) {
  using Int = typename Simd<T>::Int;
  const int order = kOrder < 0 ? knots.order : kOrder;
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
      if (knots.beyond == Beyond::kClamp) v = place.within ? v : Vec<T>{};
    } else {
      v = value[r];
      if (knots.beyond == Beyond::kExtend)
        v += place.within ? Vec<T>{} : place.excess * derivative[r];
    }
    result[r] = x == x ? v : x;
  }
  const Mask<T> bucket = place.interval - static_cast<Int>(buckets.first);
  if (!buckets.outside) return bucket;
  const Mask<T> beyond = ~place.within & (x == x);
  return beyond ? Mask<T>{} + static_cast<Int>(buckets.intervals) : bucket;
}

// Some rows of an input in one interval, and what their sums are made of: lines of weights by
// factors of the rows, of which the first `functions` belong to splines. Where those of the
// interval add up to one, the line `unit` stands for one that is not listed.
template <typename T>
struct Bucket {
  const int32_t* rows;
  int32_t count, lines, functions, unit;
  int32_t line[kMaxLines];
  const T* factor[kMaxLines];
};

// The terms of rows and inputs as [inputs][slots][width], and each input's rows by bucket.
template <typename T>
struct SplineTile {
  int64_t inputs, width, buckets;
  int slots;
  T *x, *terms;
  int32_t *rows, *begin, *place;
  Bucket<T>* lists;  // [inputs][buckets], those that have rows
  int64_t* filled;   // of each input
  SplineTile(const Problem& p, int64_t inputs_, int64_t rows_, Scratch<T>& scratch)
      : inputs(inputs_),
        width(round_up(rows_, kWidth<T>)),
        buckets(Buckets(p).count()),
        slots(p.order + 1 + (p.base ? 1 : 0)) {
    const auto integers = [&](int64_t count) {
      return reinterpret_cast<int32_t*>(scratch.take(count));
    };
    x = scratch.take(inputs * width);
    terms = scratch.take(inputs * slots * width);
    rows = integers(inputs * width);
    begin = integers(buckets + 2);
    place = integers(width);
    constexpr int64_t kBytes = sizeof(T);
    lists = reinterpret_cast<Bucket<T>*>(
        scratch.take(inputs * buckets * static_cast<int64_t>(sizeof(Bucket<T>)) / kBytes));
    filled = reinterpret_cast<int64_t*>(scratch.take(inputs * 8 / kBytes));
  }
};

// Sorts the rows of an input by their place and lists the buckets that add something.
template <typename T>
inline void list_buckets(const Problem& p, const T* knots, int64_t rows, int64_t i,
                         const SplineTile<T>& tile) {
  int32_t* begin = tile.begin;
  for (int64_t b = 0; b < tile.buckets + 2; ++b) begin[b] = 0;
  for (int64_t r = 0; r < rows; ++r) ++begin[tile.place[r] + 2];
  for (int64_t b = 2; b < tile.buckets + 2; ++b) begin[b] += begin[b - 1];
  int32_t* sorted = tile.rows + i * tile.width;
  for (int64_t r = 0; r < rows; ++r) sorted[begin[tile.place[r] + 1]++] = static_cast<int32_t>(r);

  const Buckets buckets(p);
  const T* terms = tile.terms + i * tile.slots * tile.width;
  Bucket<T>* to = tile.lists + i * tile.buckets;
  for (int64_t b = 0; b < tile.buckets; ++b) {
    // beyond the knots nothing but the base is left
    if (begin[b] == begin[b + 1] || (b == buckets.intervals && !p.base)) continue;
    Bucket<T>& bucket = *to++;
    bucket.rows = sorted + begin[b];
    bucket.count = begin[b + 1] - begin[b];
    bucket.lines = 0;
    bucket.unit = -1;
    const auto add = [&](int64_t line, int64_t term) {
      bucket.line[bucket.lines] = static_cast<int32_t>(line);
      bucket.factor[bucket.lines++] = terms + term * tile.width;
    };
    if (b < buckets.intervals) {
      const int64_t interval = b + buckets.first, first = interval - p.order;
      const int64_t low = most(first, 0), high = least(interval, p.functions - 1);
      if (p.order > 0 && high - low == p.order && knots[interval] < knots[interval + 1])
        bucket.unit = static_cast<int32_t>(first + p.order / 2);
      for (int64_t f = low; f <= high; ++f) {
        if (f != bucket.unit) add(f, f - first);
      }
    }
    bucket.functions = bucket.lines;
    if (p.base) add(p.functions, p.order + 1);
  }
  tile.filled[i] = to - (tile.lists + i * tile.buckets);
}

template <typename T, int kOrder, bool kSlope>
inline void fill_tile_of_order(const Args<T>& args, int64_t input, int64_t inputs, int64_t rows,
                               const SplineTile<T>& tile) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  const int order = kOrder < 0 ? p.order : kOrder;
  const Buckets buckets(p);
  for (int64_t i = 0; i < inputs; ++i) {
    const Knots<T> knots(p, args.points, input + i);
    T* terms = tile.terms + i * tile.slots * tile.width;
    for (int64_t r = 0; r < rows; r += W) {
      const Vec<T> x = load(tile.x + i * tile.width + r);
      Vec<T> result[kMaxTerms];
      const Mask<T> bucket = spline_terms<T, kOrder, kSlope>(knots, buckets, x, result);
      for (int k = 0; k <= order; ++k) store<T>(terms + k * tile.width + r, result[k]);
      if (p.base)
        store<T>(terms + (order + 1) * tile.width + r, kSlope ? silu_slope<T>(x) : silu<T>(x));
      for (int l = 0; l < W; ++l) tile.place[r + l] = static_cast<int32_t>(bucket[l]);
    }
    list_buckets(p, knots.t, rows, i, tile);
  }
}

template <typename T, bool kSlope>
inline void fill_tile(const Args<T>& args, const Block& rows, int64_t input, int64_t inputs,
                      const SplineTile<T>& tile) {
  pack_inputs(args, rows, input, inputs, tile.width, tile.x);
  const int64_t count = rows.row_end - rows.row;
  if (args.problem.order == 3) {
    fill_tile_of_order<T, 3, kSlope>(args, input, inputs, count, tile);
  } else {
    fill_tile_of_order<T, -1, kSlope>(args, input, inputs, count, tile);
  }
}

// Calls f(bucket, lines) for an input's buckets, `lines` being a constant. Runs of one number of
// lines share a jump, which is rarely foreseen.
template <typename T, typename F>
inline void for_buckets(const SplineTile<T>& tile, int64_t i, const F& f) {
  const Bucket<T>* bucket = tile.lists + i * tile.buckets;
  const Bucket<T>* const end = bucket + tile.filled[i];
  const auto run = [&](auto lines) {
    do f(*bucket++, lines);
    while (bucket < end && bucket->lines == decltype(lines)::value);
  };
  while (bucket < end) {
    switch (bucket->lines) {
      case 1:
        run(std::integral_constant<int, 1>{});
        break;
      case 2:
        run(std::integral_constant<int, 2>{});
        break;
      case 3:
        run(std::integral_constant<int, 3>{});
        break;
      case 4:
        run(std::integral_constant<int, 4>{});
        break;
      case 5:
        run(std::integral_constant<int, 5>{});
        break;
      case 6:
        run(std::integral_constant<int, 6>{});
        break;
      default:
        run(std::integral_constant<int, 7>{});
        break;
    }
  }
}

// Calls f(first, vectors) for the panel's vectors that hold outputs: all at once, or one by one.
template <typename T, typename F>
inline void for_vectors(int64_t outs, const F& f) {
  if (outs > kPanel<T> - kWidth<T>) return f(0, std::integral_constant<int, kPanelVectors>{});
  for (int64_t o = 0; o < outs; o += kWidth<T>) f(o, std::integral_constant<int, 1>{});
}

// The lines of a bucket in registers, from weights [slots][panel].
template <typename T, int N, int L>
inline __attribute__((always_inline)) void load_lines(const Bucket<T>& bucket, const T* weights,
                                                      Vec<T> (&unit)[N], Vec<T> (&line)[L][N]) {
  for (int v = 0; v < N; ++v) {
    const int64_t place = v * kWidth<T>;
    unit[v] = bucket.unit < 0 ? Vec<T>{} : load(weights + bucket.unit * kPanel<T> + place);
    for (int k = 0; k < L; ++k) {
      line[k][v] = load(weights + bucket.line[k] * kPanel<T> + place);
      if (k < bucket.functions) line[k][v] -= unit[v];
    }
  }
}

// sums[r][o] += unit[o] + sum_k factor_k(r) line_k[o]
template <typename T, int N, int L>
inline void add_lines(const Bucket<T>& bucket, const T* weights, T* sums) {
  constexpr int W = kWidth<T>;
  Vec<T> unit[N], line[L][N];
  load_lines<T, N, L>(bucket, weights, unit, line);
  const T* factor[L];
  for (int k = 0; k < L; ++k) factor[k] = bucket.factor[k];
  for (int64_t j = 0; j < bucket.count; ++j) {
    const int64_t r = bucket.rows[j];
    T* to = sums + r * kPanel<T>;
    Vec<T> sum[N];
    for (int v = 0; v < N; ++v) sum[v] = load(to + v * W) + unit[v];
    for (int k = 0; k < L; ++k) {
      const Vec<T> left = in_register(broadcast<T>(factor[k][r]));
      for (int v = 0; v < N; ++v) sum[v] += left * line[k][v];
    }
    for (int v = 0; v < N; ++v) store<T>(to + v * W, sum[v]);
  }
}

template <typename T>
struct SplineForward {
  int64_t inputs, rows, outs;
  SplineTile<T> tile;
  T *weights, *sums;
  SplineForward(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(kTileInputs, p.in)),
        rows(block.row_end - block.row),
        outs(block.end - block.begin),
        tile(p, inputs, rows, scratch) {
    weights = scratch.take(inputs * p.slots() * kPanel<T>);
    sums = scratch.take(rows * round_up(outs, kPanel<T>));
  }
};

template <typename T>
void spline_forward(const Args<T>& args, const Block& block, T* memory) {
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineForward<T> buffer(p, block, scratch);
  const int64_t rows = buffer.rows, outs = buffer.outs;
  fill_zero(buffer.sums, rows * round_up(outs, kPanel<T>));
  for (int64_t i = 0; i < p.in; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, p.in - i);
    fill_tile<T, false>(args, block, i, inputs, buffer.tile);
    for (int64_t o = 0; o < outs; o += kPanel<T>) {
      pack_weights(args, block.head, i, inputs, block.begin + o, least(kPanel<T>, outs - o),
                   kPanel<T>, buffer.weights);
      for (int64_t j = 0; j < inputs; ++j) {
        const T* weights = buffer.weights + j * p.slots() * kPanel<T>;
        for_buckets(buffer.tile, j, [&](const Bucket<T>& bucket, auto lines) {
          for_vectors<T>(outs - o, [&](int64_t first, auto vectors) {
            add_lines<T, decltype(vectors)::value, decltype(lines)::value>(
                bucket, weights + first, buffer.sums + o * rows + first);
          });
        });
      }
    }
  }
  const T* bias = args.bias == nullptr ? nullptr : args.bias + block.head * p.out + block.begin;
  T* y = args.y + (block.head * p.rows + block.row) * p.out + block.begin;
  for (int64_t o = 0; o < outs; o += kPanel<T>) {
    const int64_t count = least(kPanel<T>, outs - o);
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = buffer.sums + o * rows + r * kPanel<T>;
      T* to = y + r * p.out + o;
      for (int64_t j = 0; j < count; ++j) to[j] = from[j] + (bias == nullptr ? T(0) : bias[o + j]);
    }
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
