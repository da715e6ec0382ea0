// Gradients of a spline layer: of the inputs by the slopes of the functions that do not vanish, of
// the weights by rows in order of their interval, of the knots through de Boor's scheme backwards.
#pragma once

#include "kan/cpu_spline.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

template <typename T>
struct SplineInput {
  int64_t inputs;
  SplineTile<T> tile;
  T* weights;
  Vec<T>* sums;
  SplineInput(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(kTileInputs, block.end - block.begin)),
        tile(p, inputs, block.row_end - block.row, scratch) {
    weights = scratch.take(inputs * p.slots() * kPanel<T>);
    sums = reinterpret_cast<Vec<T>*>(scratch.take(inputs * tile.width * kWidth<T>));
  }
};

// sums[r] += sum_k slope_k(r) line_k[o] grad[r][o], lane by lane of the outputs.
template <typename T, int N, int L>
inline void dot_lines(const Bucket<T>& bucket, const T* weights, const T* grads, Vec<T>* sums) {
  constexpr int W = kWidth<T>;
  Vec<T> unit[N], line[L][N];
  load_lines<T, N, L>(bucket, weights, unit, line);
  const T* factor[L];
  for (int k = 0; k < L; ++k) factor[k] = bucket.factor[k];
  for (int64_t j = 0; j < bucket.count; ++j) {
    const int64_t r = bucket.rows[j];
    Vec<T> slope[L];
    for (int k = 0; k < L; ++k) slope[k] = in_register(broadcast<T>(factor[k][r]));
    Vec<T> sum = sums[r];
    for (int v = 0; v < N; ++v) {
      Vec<T> of_grad{};
      for (int k = 0; k < L; ++k) of_grad += slope[k] * line[k][v];
      sum += of_grad * load(grads + r * kPanel<T> + v * W);
    }
    sums[r] = sum;
  }
}

// Of rows whose gradients were packed together, with others maybe.
template <typename T>
void spline_grad_input(const Args<T>& args, const Block& block, T* memory) {
  constexpr int W = kWidth<T>;
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineInput<T> buffer(p, block, scratch);
  const SplineTile<T>& tile = buffer.tile;
  const int64_t rows = block.row_end - block.row;
  const int64_t start = block.row / kGradRows * kGradRows;
  const int64_t together = least(kGradRows, p.rows - start);
  const T* grads = args.packed + (block.head * p.rows + start) * round_up(p.out, kPanel<T>) +
                   (block.row - start) * kPanel<T>;
  for (int64_t i = block.begin; i < block.end; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, block.end - i);
    fill_tile<T, true>(args, block, i, inputs, tile);
    fill_zero(reinterpret_cast<T*>(buffer.sums), inputs * tile.width * W);
    for (int64_t o = 0; o < p.out; o += kPanel<T>) {
      pack_weights(args, block.head, i, inputs, o, least(kPanel<T>, p.out - o), kPanel<T>,
                   buffer.weights);
      for (int64_t j = 0; j < inputs; ++j) {
        const T* weights = buffer.weights + j * p.slots() * kPanel<T>;
        for_buckets(tile, j, [&](const Bucket<T>& bucket, auto lines) {
          for_vectors<T>(p.out - o, [&](int64_t first, auto vectors) {
            dot_lines<T, decltype(vectors)::value, decltype(lines)::value>(
                bucket, weights + first, grads + o * together + first,
                buffer.sums + j * tile.width);
          });
        });
      }
    }
    for (int64_t j = 0; j < inputs; ++j) {
      for (int64_t r = 0; r < tile.width; r += W) {
        Vec<T>* square = buffer.sums + j * tile.width + r;
        transpose_square<T>(square);
        Vec<T> sum = square[0];
        for (int l = 1; l < W; ++l) sum += square[l];
        store<T>(tile.x + j * tile.width + r, sum);
      }
    }
    transpose_out(tile.x, tile.width, rows, inputs,
                  args.grad_x + (block.head * p.rows + block.row) * p.in + i, p.in,
                  [](int64_t k) { return k; });
  }
}

template <typename T>
struct SplineWeight {
  SplineTile<T> tile;
  SplineWeight(const Problem& p, const Block& block, Scratch<T>& scratch)
      : tile(p, block.end - block.begin, least(kGradRows, block.row_end - block.row), scratch) {}
};

// sums[line_k][o] += sum_r factor_k(r) grad[r][o]; the line `unit` gets what the others leave of
// the sum of grad.
template <typename T, int N, int L>
inline void sum_lines(const Bucket<T>& bucket, const T* grads, T* sums, int64_t stride) {
  constexpr int W = kWidth<T>;
  Vec<T> total[N] = {}, sum[L][N] = {};
  const T* factor[L];
  for (int k = 0; k < L; ++k) factor[k] = bucket.factor[k];
  for (int64_t j = 0; j < bucket.count; ++j) {
    const int64_t r = bucket.rows[j];
    Vec<T> g[N];
    for (int v = 0; v < N; ++v) {
      g[v] = in_register(load(grads + r * kPanel<T> + v * W));
      total[v] += g[v];
    }
    for (int k = 0; k < L; ++k) {
      const Vec<T> left = in_register(broadcast<T>(factor[k][r]));
      for (int v = 0; v < N; ++v) sum[k][v] += left * g[v];
    }
  }
  const auto add = [&](int64_t line, const Vec<T>(&more)[N]) {
    T* to = sums + line * stride;
    for (int v = 0; v < N; ++v) store<T>(to + v * W, load(to + v * W) + more[v]);
  };
  for (int k = 0; k < L; ++k) {
    add(bucket.line[k], sum[k]);
    for (int v = 0; v < N; ++v) total[v] -= k < bucket.functions ? sum[k][v] : Vec<T>{};
  }
  if (bucket.unit >= 0) add(bucket.unit, total);
}

template <typename T>
void spline_grad_weight(const Args<T>& args, const Block& block, T* sums, T* memory) {
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const SplineWeight<T> buffer(p, block, scratch);
  const int64_t inputs = block.end - block.begin, width = round_up(p.out, kWidth<T>);
  for (int64_t row = block.row; row < block.row_end; row += kGradRows) {
    const Block part{block.head, row, least(row + kGradRows, block.row_end), 0, 0};
    const int64_t rows = part.row_end - row;
    fill_tile<T, false>(args, part, block.begin, inputs, buffer.tile);
    const T* grads = args.packed + (block.head * p.rows + row) * round_up(p.out, kPanel<T>);
    for (int64_t o = 0; o < p.out; o += kPanel<T>) {
      for (int64_t j = 0; j < inputs; ++j) {
        T* to = sums + j * p.slots() * width + o;
        for_buckets(buffer.tile, j, [&](const Bucket<T>& bucket, auto lines) {
          for_vectors<T>(p.out - o, [&](int64_t first, auto vectors) {
            sum_lines<T, decltype(vectors)::value, decltype(lines)::value>(
                bucket, grads + o * rows + first, to + first, width);
          });
        });
      }
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
