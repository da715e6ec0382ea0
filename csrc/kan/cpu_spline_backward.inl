// Gradients of a spline layer: of the inputs by the slopes of the functions that do not vanish, of
// the weights by rows in order of their interval, of the knots through de Boor's scheme backwards.
#pragma once

#include "kan/cpu_spline.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

template <typename T>
struct SplineInput {
  int64_t inputs, outs;
  SplinePanel<T> panel;
  T *weights, *sums, *grads;
  SplineInput(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(kSplineInputs, block.end - block.begin)),
        outs(round_up(p.out, kWidth<T>)),
        panel(p, inputs, block.row_end - block.row, scratch) {
    const int64_t rows = block.row_end - block.row;
    weights = scratch.take(inputs * p.slots() * kSplineVectors * kWidth<T>);
    sums = scratch.take(rows * kSplineInputs);
    grads = p.out == outs ? nullptr : scratch.take(rows * outs);
  }
};

// sums[r][i] += sum_o grad[r][o] (sum_k slope_k W[i][first + k][o])
template <typename T, int N, int kTerms>
inline void spline_input_rows(const SplinePanel<T>& panel, int64_t inputs, int64_t rows, int order,
                              bool base, int64_t functions, const T* weights, const T* grads,
                              int64_t stride, T* sums) {
  constexpr int W = kWidth<T>;
  constexpr int64_t kInputs = kSplineInputs;
  const int terms = kTerms > 0 ? kTerms : order + 1;
  const int64_t step = (functions + (base ? 1 : 0)) * N * W;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t place = r / W * panel.inputs * W;
    const T* term = panel.terms + place * panel.slots + r % W;
    const int32_t* first = panel.first + place + r % W;
    const T* grad = grads + r * stride;
    Vec<T> g[N];
    for (int v = 0; v < N; ++v) g[v] = load(grad + v * W);
    const T* input = weights;
    Vec<T> total[kInputs] = {};
    for (int64_t i = 0; i < inputs; ++i) {
      const T* line = input + first[i * W] * (N * W);
      Vec<T> sum{};
      for (int k = 0; k < terms; ++k) {
        Vec<T> dot = g[0] * load(line + k * N * W);
        for (int v = 1; v < N; ++v) dot += g[v] * load(line + (k * N + v) * W);
        sum += dot * broadcast<T>(term[k * W]);
      }
      if (base) {
        Vec<T> dot = g[0] * load(input + functions * N * W);
        for (int v = 1; v < N; ++v) dot += g[v] * load(input + (functions * N + v) * W);
        sum += dot * broadcast<T>(term[terms * W]);
      }
      total[i] = sum;
      term += panel.slots * W;
      input += step;
    }
    T* to = sums + r * kInputs;
    if (inputs < kInputs) {
      for (int64_t i = 0; i < inputs; ++i) to[i] += horizontal_sum<T>(total[i]);
      continue;
    }
    for (int i = 0; i < kInputs; i += W) {
      transpose_square<T>(total + i);
      Vec<T> sum = total[i];
      for (int j = 1; j < W; ++j) sum += total[i + j];
      store<T>(to + i, load(to + i) + sum);
    }
  }
}

// The rows of grad_out with whole vectors: in place where they are, else copied.
template <typename T>
inline const T* padded_grads(const Args<T>& args, const Block& block, int64_t outs, T* copy) {
  const Problem& p = args.problem;
  const T* grad = args.grad_out + (block.head * p.rows + block.row) * p.out;
  if (copy == nullptr) return grad;
  for (int64_t r = 0; r < block.row_end - block.row; ++r) {
    for (int64_t o = 0; o < outs; ++o) copy[r * outs + o] = o < p.out ? grad[r * p.out + o] : T(0);
  }
  return copy;
}

template <typename T>
void spline_grad_input(const Args<T>& args, const Block& block, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineInput<T> buffer(p, block, scratch);
  const int64_t rows = block.row_end - block.row;
  const T* grads = padded_grads(args, block, buffer.outs, buffer.grads);
  for (int64_t i = block.begin; i < block.end; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, block.end - i);
    fill_panel<T, true>(args, block, i, inputs, buffer.panel);
    fill_zero(buffer.sums, rows * kSplineInputs);
    for (int64_t o = 0; o < buffer.outs;) {
      const int64_t vectors = panel_vectors((buffer.outs - o) / W);
      pack_weights(args, block.head, i, inputs, o, least(vectors * W, p.out - o), vectors * W,
                   buffer.weights);
      for_terms(p.order, vectors, [&](auto n, auto terms) {
        spline_input_rows<T, decltype(n)::value, decltype(terms)::value>(
            buffer.panel, inputs, rows, p.order, p.base, p.functions, buffer.weights, grads + o,
            buffer.outs, buffer.sums);
      });
      o += vectors * W;
    }
    T* to = args.grad_x + (block.head * p.rows + block.row) * p.in + i;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < inputs; ++j) to[r * p.in + j] = buffer.sums[r * kSplineInputs + j];
    }
  }
}

template <typename T>
struct SplineWeight {
  SplinePanel<T> panel;
  T* sorted;
  int32_t *rows, *begin;
  SplineWeight(const Problem& p, const Block& block, Scratch<T>& scratch)
      : panel(p, block.end - block.begin, least(kGradRows, block.row_end - block.row), scratch) {
    sorted = scratch.take(kGradRows * (kMaxTerms + 1));
    rows = reinterpret_cast<int32_t*>(scratch.take(kGradRows));
    begin = reinterpret_cast<int32_t*>(scratch.take(p.functions + 2));
  }
};

// Rows in order of their interval, each with its terms side by side.
template <typename T>
inline void sort_rows(const SplineWeight<T>& buffer, int64_t i, int64_t rows, int64_t buckets) {
  constexpr int W = kWidth<T>;
  const SplinePanel<T>& panel = buffer.panel;
  const auto first = [&](int64_t r) { return panel.first[(r / W * panel.inputs + i) * W + r % W]; };
  for (int64_t b = 0; b <= buckets + 1; ++b) buffer.begin[b] = 0;
  for (int64_t r = 0; r < rows; ++r) ++buffer.begin[first(r) + 2];
  for (int64_t b = 2; b <= buckets; ++b) buffer.begin[b] += buffer.begin[b - 1];
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t place = buffer.begin[first(r) + 1]++;
    buffer.rows[place] = static_cast<int32_t>(r);
    const T* term = panel.terms + (r / W * panel.inputs + i) * panel.slots * W + r % W;
    for (int k = 0; k < panel.slots; ++k) buffer.sorted[place * panel.slots + k] = term[k * W];
  }
}

// sums[first + k][o] += sum_r term_k(r) grad[r][o] over the rows of each interval.
template <typename T, int kTerms, bool kBase>
inline void spline_weight_panel(const SplineWeight<T>& buffer, int order, int64_t functions,
                                const T* grads, T* sums, int64_t stride, int64_t vectors) {
  constexpr int W = kWidth<T>;
  constexpr int N = kPanelVectors;
  constexpr int kSums = kTerms > 0 ? kTerms : kMaxTerms;
  const int terms = kTerms > 0 ? kTerms : order + 1;
  const int slots = terms + (kBase ? 1 : 0);
  const auto each = [&](const auto& f) {
    for (int v = 0; v < N; ++v) {
      if (v < vectors) f(v);
    }
  };
  Vec<T> base[N] = {};
  for (int64_t b = 0; b < functions - order; ++b) {
    const int32_t end = buffer.begin[b + 1];
    if (buffer.begin[b] == end) continue;
    Vec<T> sum[kSums][N];
    for (int k = 0; k < kSums; ++k) {
      for (int v = 0; v < N; ++v) sum[k][v] = Vec<T>{};
    }
    for (int32_t place = buffer.begin[b]; place < end; ++place) {
      const T* grad = grads + buffer.rows[place] * kPanel<T>;
      const T* term = buffer.sorted + static_cast<int64_t>(place) * slots;
      Vec<T> g[N];
      for (int v = 0; v < N; ++v) g[v] = in_register(load(grad + v * W));
      for (int k = 0; k < terms; ++k) {
        const Vec<T> left = broadcast<T>(term[k]);
        for (int v = 0; v < N; ++v) sum[k][v] += left * g[v];
      }
      if constexpr (kBase) {
        const Vec<T> left = broadcast<T>(term[terms]);
        for (int v = 0; v < N; ++v) base[v] += left * g[v];
      }
    }
    for (int k = 0; k < terms; ++k) {
      T* to = sums + (b + k) * stride;
      each([&](int v) { store<T>(to + v * W, load(to + v * W) + sum[k][v]); });
    }
  }
  if constexpr (kBase) {
    T* to = sums + functions * stride;
    each([&](int v) { store<T>(to + v * W, load(to + v * W) + base[v]); });
  }
}

template <typename T>
void spline_grad_weight(const Args<T>& args, const Block& block, T* sums, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineWeight<T> buffer(p, block, scratch);
  const int64_t inputs = block.end - block.begin;
  const int64_t width = round_up(p.out, W), padded = round_up(p.out, kPanel<T>);
  for (int64_t row = block.row; row < block.row_end; row += kGradRows) {
    const Block part{block.head, row, least(row + kGradRows, block.row_end), block.begin,
                     block.end};
    const int64_t rows = part.row_end - row;
    fill_panel<T, false>(args, part, block.begin, inputs, buffer.panel);
    for (int64_t i = 0; i < inputs; ++i) {
      sort_rows(buffer, i, rows, p.functions - p.order);
      const T* grads = args.packed + (block.head * p.rows + row) * padded;
      T* to = sums + i * p.slots() * width;
      for (int64_t o = 0; o < width; o += kPanel<T>, grads += rows * kPanel<T>) {
        const int64_t vectors = (width - o) / W;
        const auto run = [&](auto terms, auto base) {
          spline_weight_panel<T, decltype(terms)::value, decltype(base)::value>(
              buffer, p.order, p.functions, grads, to + o, width, vectors);
        };
        const auto with_terms = [&](auto base) {
          if (p.order == 3) {
            run(std::integral_constant<int, 4>{}, base);
          } else {
            run(std::integral_constant<int, 0>{}, base);
          }
        };
        if (p.base) {
          with_terms(std::true_type{});
        } else {
          with_terms(std::false_type{});
        }
      }
    }
  }
}

template <typename T>
struct SplineGrid {
  int64_t outs;
  T *x, *weights, *grads, *dots;
  SplineGrid(const Problem& p, const Block& block, Scratch<T>& scratch)
      : outs(round_up(p.out, kWidth<T>)) {
    const int64_t rows = block.row_end - block.row;
    x = scratch.take(round_up(rows, kWidth<T>));
    weights = scratch.take(p.slots() * outs);
    grads = scratch.take(rows * outs);
    dots = scratch.take(kMaxTerms * kWidth<T>);
  }
};

// The adjoints of the knots (and of x, where it was clamped to one) from those of the functions.
template <typename T>
inline void knot_adjoints(const Knots<T>& knots, const Place<T>& place, Vec<T> x,
                          Vec<T> adjoint[kMaxTerms], int64_t lanes, T* sums) {
  const int order = knots.order;
  Vec<T> left[kMaxTerms], right[kMaxTerms];
  Vec<T> value[kMaxTerms][kMaxTerms], term[kMaxTerms][kMaxTerms], gap[kMaxTerms][kMaxTerms];
  for (int d = 1; d <= order; ++d) {
    Vec<T> low, high;
    for (int l = 0; l < kWidth<T>; ++l) {
      low[l] = knots.at(place.interval[l] + 1 - d);
      high[l] = knots.at(place.interval[l] + d);
    }
    left[d] = place.x - low;
    right[d] = high - place.x;
  }
  value[0][0] = broadcast<T>(T(1));
  for (int d = 1; d <= order; ++d) {
    Vec<T> saved{};
    for (int r = 0; r < d; ++r) {
      gap[d][r] = right[r + 1] + left[d - r];
      term[d][r] = quotient<T>(value[d - 1][r], gap[d][r]);
      value[d][r] = saved + right[r + 1] * term[d][r];
      saved = left[d - r] * term[d][r];
    }
    value[d][d] = saved;
  }
  Vec<T> left_adjoint[kMaxTerms] = {}, right_adjoint[kMaxTerms] = {};
  for (int d = order; d >= 1; --d) {
    Vec<T> below[kMaxTerms];
    for (int r = 0; r < d; ++r) {
      const Vec<T> of_term = adjoint[r] * right[r + 1] + adjoint[r + 1] * left[d - r];
      right_adjoint[r + 1] += adjoint[r] * term[d][r];
      left_adjoint[d - r] += adjoint[r + 1] * term[d][r];
      below[r] = quotient<T>(of_term, gap[d][r]);
      const Vec<T> of_gap = -below[r] * term[d][r];
      right_adjoint[r + 1] += of_gap;
      left_adjoint[d - r] += of_gap;
    }
    for (int r = 0; r < d; ++r) adjoint[r] = below[r];
  }
  const bool clamp = knots.beyond == Beyond::kClamp;
  for (int l = 0; l < lanes; ++l) {
    if (!clamp && place.within[l] == 0) continue;
    T of_x = T(0);
    for (int d = 1; d <= order; ++d) {
      const int64_t low = place.interval[l] + 1 - d, high = place.interval[l] + d;
      of_x += left_adjoint[d][l] - right_adjoint[d][l];
      if (low >= 0) sums[low] -= left_adjoint[d][l];
      if (high < knots.count) sums[high] += right_adjoint[d][l];
    }
    if (place.within[l] == 0) {
      sums[x[l] < place.x[l] ? knots.order : knots.functions()] += of_x;
    }
  }
}

template <typename T>
void spline_grad_grid(const Args<T>& args, const Block& block, T* sums, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineGrid<T> buffer(p, block, scratch);
  const int64_t rows = block.row_end - block.row;
  const T* grads = padded_grads(args, block, buffer.outs, buffer.grads);
  for (int64_t i = block.begin; i < block.end; ++i) {
    pack_inputs(args, block, i, 1, round_up(rows, W), buffer.x);
    pack_weights(args, block.head, i, 1, 0, p.out, buffer.outs, buffer.weights);
    const Knots<T> knots(p, args.points, i);
    T* to = sums + (p.knot_rows == 1 ? 0 : i * p.knots);
    for (int64_t r = 0; r < rows; r += W) {
      const int64_t lanes = least(W, rows - r);
      const Vec<T> x = load(buffer.x + r);
      const Place<T> place = locate(knots, x);
      Vec<T> adjoint[kMaxTerms] = {};
      for (int k = 0; k <= p.order; ++k) {
        for (int l = 0; l < lanes; ++l) {
          const int64_t function = place.interval[l] - p.order + k;
          if (function < 0 || function >= p.functions) continue;
          adjoint[k][l] = dot(grads + (r + l) * buffer.outs,
                              buffer.weights + function * buffer.outs, buffer.outs);
        }
      }
      knot_adjoints(knots, place, x, adjoint, lanes, to);
    }
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
