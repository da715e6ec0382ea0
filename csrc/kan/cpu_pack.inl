// Scratch, and the transpositions that bring operands into the order in which the kernels read
// them.
#pragma once

#include "common/math.inl"
#include "kan/kernel.h"

namespace saccade::kan::SACCADE_ISA_NAMESPACE {

using namespace saccade::SACCADE_ISA_NAMESPACE;

inline int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Hands out parts of a block of memory; with no memory it only counts.
template <typename T>
class Scratch {
 public:
  explicit Scratch(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += round_up(count, 64 / static_cast<int64_t>(sizeof(T)));
    return part;
  }
  int64_t used() const { return used_; }

 private:
  T* memory_;
  int64_t used_ = 0;
};

// to[row(k) * width + r] = from[r * stride + k] for k below depth; zero for r in [rows, width).
// width is a multiple of the vector's.
template <typename T, typename F>
inline void transpose_in(const T* from, int64_t stride, int64_t rows, int64_t depth, int64_t width,
                         T* to, const F& row) {
  constexpr int W = kWidth<T>;
  if (depth == 1) {
    T* line = to + row(0) * width;
    for (int64_t r = 0; r < width; ++r) line[r] = r < rows ? from[r * stride] : T(0);
    return;
  }
  for (int64_t r = 0; r < width; r += W) {
    for (int64_t k = 0; k < depth; k += W) {
      const int64_t count = least(W, depth - k);
      Vec<T> square[W];
      for (int j = 0; j < W; ++j)
        square[j] = r + j < rows ? load_partial(from + (r + j) * stride + k, count) : Vec<T>{};
      transpose_square<T>(square);
      for (int j = 0; j < count; ++j) store<T>(to + row(k + j) * width + r, square[j]);
    }
  }
}

// to[r * stride + k] = from[row(k) * width + r] for r below rows and k below depth.
template <typename T, typename F>
inline void transpose_out(const T* from, int64_t width, int64_t rows, int64_t depth, T* to,
                          int64_t stride, const F& row) {
  constexpr int W = kWidth<T>;
  for (int64_t r = 0; r < rows; r += W) {
    const int64_t lines = least(W, rows - r);
    for (int64_t k = 0; k < depth; k += W) {
      const int64_t count = least(W, depth - k);
      Vec<T> square[W];
      for (int j = 0; j < W; ++j)
        square[j] = j < count ? load_partial(from + row(k + j) * width + r, lines) : Vec<T>{};
      transpose_square<T>(square);
      for (int j = 0; j < lines; ++j) store_partial<T>(to + (r + j) * stride + k, square[j], count);
    }
  }
}

// x of rows and inputs as [inputs][width].
template <typename T>
inline void pack_inputs(const Args<T>& args, const Block& block, int64_t input, int64_t inputs,
                        int64_t width, T* to) {
  const Problem& p = args.problem;
  const T* from = args.x + (block.head * p.rows + block.row) * p.in + input;
  transpose_in(from, p.in, block.row_end - block.row, inputs, width, to,
               [](int64_t k) { return k; });
}

constexpr int64_t kLinesAhead = 16;

// Weights of a panel of outputs as [inputs][slots][width], the base in the last slot.
template <typename T>
inline void pack_weights(const Args<T>& args, int64_t head, int64_t input, int64_t inputs,
                         int64_t out, int64_t outs, int64_t width, T* to) {
  const Problem& p = args.problem;
  const Weight<const T>& w = args.weight;
  const int64_t n = p.functions, slots = p.slots();
  const T* from = w.data + head * w.head + out * w.out + input * w.in;
  if (w.function == 1 && (w.in == n || inputs == 1)) {
    if (slots == n) {
      transpose_in(from, w.out, outs, inputs * n, width, to, [](int64_t k) { return k; });
    } else {
      transpose_in(from, w.out, outs, inputs * n, width, to,
                   [=](int64_t k) { return k / n * slots + k % n; });
    }
  } else {
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t f = 0; f < n; ++f) {
        T* line = to + (i * slots + f) * width;
        const T* source = from + i * w.in + f * w.function;
        if (w.out == 1) {
          // lines a stride apart, which the hardware does not foresee
          for (int64_t o = 0; o < outs; o += 64 / static_cast<int64_t>(sizeof(T)))
            __builtin_prefetch(source + kLinesAhead * w.function + o);
          for (int64_t o = 0; o < outs; ++o) line[o] = source[o];
        } else {
          for (int64_t o = 0; o < outs; ++o) line[o] = source[o * w.out];
        }
        for (int64_t o = outs; o < width; ++o) line[o] = T(0);
      }
    }
  }
  if (p.base) {
    transpose_in(args.base + (head * p.out + out) * p.in + input, p.in, outs, inputs, width, to,
                 [=](int64_t k) { return k * slots + n; });
  }
}

// Weights as [outs][line], a line holding inputs by slots.
template <typename T>
inline void pack_weight_lines(const Args<T>& args, int64_t head, int64_t input, int64_t inputs,
                              int64_t out, int64_t outs, int64_t line, T* to) {
  const Problem& p = args.problem;
  const Weight<const T>& w = args.weight;
  const int64_t n = p.functions, slots = p.slots();
  const T* from = w.data + head * w.head + out * w.out + input * w.in;
  if (w.out == 1 && slots == n && (w.in == n * w.function || inputs == 1)) {
    transpose_in(from, w.function, inputs * n, outs, line, to, [](int64_t k) { return k; });
    return;
  }
  for (int64_t o = 0; o < outs; ++o) {
    for (int64_t i = 0; i < inputs; ++i) {
      const T* source = from + o * w.out + i * w.in;
      T* cell = to + o * line + i * slots;
      for (int64_t f = 0; f < n; ++f) cell[f] = source[f * w.function];
      if (p.base) cell[n] = args.base[(head * p.out + out + o) * p.in + input + i];
    }
    for (int64_t k = inputs * slots; k < line; ++k) to[o * line + k] = T(0);
  }
}

// The weights' gradients from sums [inputs][slots][padded outputs].
template <typename T>
void write_weight(const Args<T>& args, const Block& block, const T* sums) {
  const Problem& p = args.problem;
  const int64_t n = p.functions, slots = p.slots(), inputs = block.end - block.begin;
  const int64_t width = round_up(p.out, kWidth<T>);
  const Weight<T>& w = args.grad_weight;
  if (w.data != nullptr) {
    T* to = w.data + block.head * w.head + block.begin * w.in;
    if (w.function == 1 && (w.in == n || inputs == 1)) {
      transpose_out(sums, width, p.out, inputs * n, to, w.out,
                    [=](int64_t k) { return k / n * slots + k % n; });
    } else {
      for (int64_t i = 0; i < inputs; ++i) {
        for (int64_t f = 0; f < n; ++f) {
          const T* line = sums + (i * slots + f) * width;
          T* target = to + i * w.in + f * w.function;
          for (int64_t o = 0; o < p.out; ++o) target[o * w.out] = line[o];
        }
      }
    }
  }
  if (args.grad_base != nullptr) {
    transpose_out(sums, width, p.out, inputs,
                  args.grad_base + block.head * p.out * p.in + block.begin, p.in,
                  [=](int64_t k) { return k * slots + n; });
  }
}

// y of a block starts as the bias.
template <typename T>
inline void start_from_bias(const Args<T>& args, const Block& block) {
  const Problem& p = args.problem;
  for (int64_t r = block.row; r < block.row_end; ++r) {
    T* y = args.y + (block.head * p.rows + r) * p.out;
    for (int64_t o = block.begin; o < block.end; ++o)
      y[o] = args.bias == nullptr ? T(0) : args.bias[block.head * p.out + o];
  }
}

}  // namespace saccade::kan::SACCADE_ISA_NAMESPACE
