// Layers of a dense basis: blocked products whose features are made in scratch, lanes being rows.
#pragma once

#include "kan/cpu_basis.inl"
#include "kan/cpu_gemm.inl"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

// Slots that a chunk of inputs holds, at least those of one input.
constexpr int64_t kChunk = 128;
// Rows of the weights' gradient that one product sums over.
constexpr int64_t kDepth = 128;

inline int64_t chunk_inputs(const Problem& p) { return most(1, kChunk / p.slots()); }

// A multiple of both the tile's rows and any vector.
inline int64_t padded_rows(int64_t rows) { return round_up(rows, 48); }

// Features of inputs as [inputs][slots][width], from x as [inputs][width].
template <typename T>
inline void make_features(const Args<T>& args, const T* x, int64_t inputs, int64_t width,
                          T* features) {
  const Problem& p = args.problem;
  for (int64_t i = 0; i < inputs; ++i) {
    T* to = features + i * p.slots() * width;
    for (int64_t r = 0; r < width; r += kWidth<T>) {
      const Vec<T> u = load(x + i * width + r);
      values(args, u, to + r, width);
      if (p.base) store<T>(to + p.functions * width + r, silu<T>(u));
    }
  }
}

template <typename T>
struct DenseForward {
  int64_t inputs, width;
  T *x, *features, *weights;
  DenseForward(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(chunk_inputs(p), p.in)), width(padded_rows(block.row_end - block.row)) {
    x = scratch.take(inputs * width);
    features = scratch.take(inputs * p.slots() * width);
    weights = scratch.take(inputs * p.slots() * kPanel<T>);
  }
};

template <typename T>
void dense_forward(const Args<T>& args, const Block& block, T* memory) {
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const DenseForward<T> buffer(p, block, scratch);
  start_from_bias(args, block);
  T* y = args.y + (block.head * p.rows + block.row) * p.out;
  for (int64_t i = 0; i < p.in; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, p.in - i);
    pack_inputs(args, block, i, inputs, buffer.width, buffer.x);
    make_features(args, buffer.x, inputs, buffer.width, buffer.features);
    for (int64_t o = block.begin; o < block.end; o += kPanel<T>) {
      const int64_t outs = least(kPanel<T>, block.end - o);
      pack_weights(args, block.head, i, inputs, o, outs, kPanel<T>, buffer.weights);
      product<T, true>(buffer.features, buffer.width, block.row_end - block.row, buffer.weights,
                       inputs * p.slots(), y + o, p.out, outs);
    }
  }
}

template <typename T>
struct DenseInput {
  int64_t inputs, width, line;
  T *x, *grads, *weights, *products;
  Vec<T>* parameters;
  DenseInput(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(least(chunk_inputs(p), block.end - block.begin)),
        width(round_up(padded_rows(block.row_end - block.row), kPanel<T>)),
        line(round_up(inputs * p.slots(), 48)) {
    x = scratch.take(inputs * width);
    grads = scratch.take(p.out * width);
    weights = scratch.take(p.out * line);
    products = scratch.take(line * width);
    parameters = reinterpret_cast<Vec<T>*>(scratch.take(2 * p.functions * kWidth<T>));
  }
};

// The gradient of every feature, then through the basis.
template <typename T>
void dense_grad_input(const Args<T>& args, const Block& block, T* sums, T* memory) {
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const DenseInput<T> buffer(p, block, scratch);
  const int64_t rows = block.row_end - block.row, slots = p.slots(), width = buffer.width;
  const T* grad = args.grad_out + (block.head * p.rows + block.row) * p.out;
  for (int64_t r = 0; r < width; r += kPanel<T>) {
    transpose_in(grad + r * p.out, p.out, most(0, least(kPanel<T>, rows - r)), p.out, kPanel<T>,
                 buffer.grads + r * p.out, [](int64_t k) { return k; });
  }
  Vec<T>* points = sums == nullptr ? nullptr : buffer.parameters;
  Vec<T>* scales = sums == nullptr ? nullptr : buffer.parameters + p.functions;
  if (sums != nullptr) fill_zero(reinterpret_cast<T*>(points), 2 * p.functions * kWidth<T>);
  for (int64_t i = block.begin; i < block.end; i += buffer.inputs) {
    const int64_t inputs = least(buffer.inputs, block.end - i);
    pack_inputs(args, block, i, inputs, width, buffer.x);
    pack_weight_lines(args, block.head, i, inputs, 0, p.out, buffer.line, buffer.weights);
    fill_zero(buffer.products, buffer.line * width);
    for (int64_t o = 0; o < p.out; o += kDepth) {
      const int64_t depth = least(kDepth, p.out - o);
      for (int64_t r = 0; r < width; r += kPanel<T>) {
        product<T, true>(buffer.weights + o * buffer.line, buffer.line, inputs * slots,
                         buffer.grads + r * p.out + o * kPanel<T>, depth, buffer.products + r,
                         width, kPanel<T>);
      }
    }
    for (int64_t j = 0; j < inputs; ++j) {
      for (int64_t r = 0; r < width; r += kWidth<T>) {
        T* x = buffer.x + j * width + r;
        const T* features = buffer.products + j * slots * width + r;
        const Vec<T> u = load(x);
        Vec<T> g = slope(args, u, features, width, points, scales);
        if (p.base) g += silu_slope<T>(u) * load(features + p.functions * width);
        store<T>(x, g);
      }
    }
    transpose_out(buffer.x, width, rows, inputs,
                  args.grad_x + (block.head * p.rows + block.row) * p.in + i, p.in,
                  [](int64_t k) { return k; });
  }
  if (sums == nullptr) return;
  for (int64_t f = 0; f < 2 * p.functions; ++f) sums[f] += horizontal_sum<T>(points[f]);
}

template <typename T>
struct DenseWeight {
  int64_t inputs;
  T *x, *features;
  DenseWeight(const Problem& p, const Block& block, Scratch<T>& scratch)
      : inputs(block.end - block.begin) {
    x = scratch.take(inputs * kDepth);
    features = scratch.take(round_up(inputs * p.slots(), kTileRows) * kDepth);
  }
};

template <typename T>
void dense_grad_weight(const Args<T>& args, const Block& block, T* sums, T* memory) {
  const Problem& p = args.problem;
  Scratch<T> scratch(memory);
  const DenseWeight<T> buffer(p, block, scratch);
  const int64_t width = round_up(p.out, kWidth<T>), padded = round_up(p.out, kPanel<T>);
  for (int64_t r = block.row; r < block.row_end; r += kDepth) {
    const Block part{block.head, r, least(r + kDepth, block.row_end), block.begin, block.end};
    const int64_t depth = part.row_end - part.row;
    pack_inputs(args, part, block.begin, buffer.inputs, kDepth, buffer.x);
    make_features(args, buffer.x, buffer.inputs, kDepth, buffer.features);
    const int64_t first = r / kGradRows * kGradRows;
    const int64_t rows = least(kGradRows, p.rows - first);
    const T* grad = args.packed + (block.head * p.rows + first) * padded + (r - first) * kPanel<T>;
    for (int64_t o = 0; o < p.out; o += kPanel<T>, grad += rows * kPanel<T>) {
      product<T, false>(buffer.features, kDepth, buffer.inputs * p.slots(), grad, depth, sums + o,
                        width, width - o);
    }
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
