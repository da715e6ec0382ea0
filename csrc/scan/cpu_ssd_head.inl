// SSD: one head's inputs on their way in and out of scratch.
#pragma once

#include "scan/cpu_lanes.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// Into the second-level cache: the rows of a head stand a token apart, which the hardware does not
// foresee.
template <bool kWrite = false, typename T>
inline void prefetch_rows(const T* from, int64_t stride, int64_t count, int64_t width) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t p = 0; p < width; p += line)
      __builtin_prefetch(from + t * stride + p, kWrite ? 1 : 0, 2);
  }
}

// Rows of P channels, zeros behind them; those at `next` will be wanted next.
template <typename T>
inline void load_tokens(const Tokens<const T>& view, int64_t batch, int64_t head, int64_t width,
                        int64_t position, int64_t next, int64_t count, int64_t columns, T* rows) {
  const T* tokens = view.data + batch * view.batch + head * view.head;
  const T* from = tokens + position * view.position;
  if (view.width == 1) prefetch_rows(tokens + next * view.position, view.position, count, width);
  for (int64_t t = 0; t < count; ++t) {
    T* to = rows + t * columns;
    const T* row = from + t * view.position;
    if (view.width == 1) {
      memcpy(to, row, static_cast<size_t>(width) * sizeof(T));
    } else {
      for (int64_t p = 0; p < width; ++p) to[p] = row[p * view.width];
    }
    for (int64_t p = width; p < columns; ++p) to[p] = T(0);
  }
}

template <typename T>
inline void store_tokens(const T* rows, int64_t columns, int64_t width, int64_t count,
                         int64_t stride, T* to) {
  for (int64_t t = 0; t < count; ++t) {
    memcpy(to + t * stride, rows + t * columns, static_cast<size_t>(width) * sizeof(T));
  }
}

// to[j * to_stride + i] = from[i * from_stride + j] for `rows` i and `columns` j.
template <typename T>
inline void transpose_matrix(const T* from, int64_t rows, int64_t columns, int64_t from_stride,
                             int64_t to_stride, T* to) {
  constexpr int W = kWidth<T>;
  const int64_t whole_rows = rows / W * W, whole_columns = columns / W * W;
  for (int64_t i = 0; i < whole_rows; i += W) {
    for (int64_t j = 0; j < whole_columns; j += W) {
      Vec<T> square[W];
      SACCADE_UNROLL
      for (int k = 0; k < W; ++k) square[k] = load(from + (i + k) * from_stride + j);
      transpose_square<T>(square);
      SACCADE_UNROLL
      for (int k = 0; k < W; ++k) store<T>(to + (j + k) * to_stride + i, square[k]);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_stride + i] = from[i * from_stride + j];
  }
}

// [P, N] to [padded N][columns], zeros elsewhere, and back.
template <typename T>
inline void load_head_state(const T* from, const SsdProblem& problem, int64_t padded,
                            int64_t columns, T* state) {
  fill_zero(state, padded * columns);
  if (from == nullptr) return;
  transpose_matrix(from, problem.width, problem.state, problem.state, columns, state);
}

template <typename T>
inline void store_head_state(const T* state, const SsdProblem& problem, int64_t columns, T* to) {
  transpose_matrix(state, problem.state, problem.width, columns, problem.state, to);
}

// Numbers by step and state.
template <typename T>
struct Coefficients {
  const T* first;
  int64_t stride;  // from step to step
};

// One head of one batch entry.
template <typename T>
struct Head {
  const SsdProblem& problem;
  const SsdInputs<T>& in;
  int64_t batch, head;

  // B and C from a position on.
  Coefficients<T> b(int64_t position) const { return rows(in.b, position); }
  Coefficients<T> c(int64_t position) const { return rows(in.c, position); }
  // [B, H, P, N]
  int64_t state_at() const {
    return (batch * problem.heads + head) * problem.width * problem.state;
  }
  // [B, T, H, P, N]
  int64_t checkpoint_at(int64_t position) const {
    const int64_t saved = intervals(problem.length, problem.chunk);
    return ((batch * saved + position / problem.chunk) * problem.heads + head) * problem.width *
           problem.state;
  }
  // [B, L, H, ...]
  int64_t token_at(int64_t position) const {
    return (batch * problem.length + position) * problem.heads + head;
  }
  T bias() const { return in.dt_bias == nullptr ? T(0) : in.dt_bias[head]; }

  // Steps and decays of `count` positions; what the step is made of stays in `raw`, if wanted.
  void load_steps(int64_t position, int64_t count, T* step, T* decay, T* raw) const {
    constexpr int W = kWidth<T>;
    const T* dt = in.dt.data + batch * in.dt.batch + head * in.dt.head;
    for (int64_t t = 0; t < count; ++t) step[t] = dt[(position + t) * in.dt.position] + bias();
    const T octaves = in_octaves<T>(broadcast<T>(in.a[head]))[0];
    const Vec<T> low = broadcast<T>(static_cast<T>(problem.dt_min));
    const Vec<T> high = broadcast<T>(static_cast<T>(problem.dt_max));
    for (int64_t t = 0; t < count; t += W) {
      Vec<T> x = load_partial(step + t, count - t);
      if (raw != nullptr) store<T>(raw + t, x);
      if (problem.softplus) x = fast_softplus<T>(x);
      x = x < low ? low : x;
      x = x > high ? high : x;
      store<T>(step + t, x);
      store<T>(decay + t, exp2_clamped(x * octaves));
    }
  }

  void mark_forgotten(int64_t position, int64_t count, uint8_t* forget) const {
    const int32_t* sequence = in.sequence + batch * problem.length;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at = position + t;
      forget[t] = at > 0 && sequence[at] != sequence[at - 1];
    }
  }

 private:
  Coefficients<T> rows(const Tokens<const T>& view, int64_t position) const {
    const int64_t group = head / (problem.heads / problem.groups);
    return {view.data + batch * view.batch + group * view.head + position * view.position,
            view.position};
  }
};

// Every row by its factor.
template <typename T>
inline void scale_rows(const T* rows, const T* factors, int64_t count, int64_t columns, T* to) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t p = 0; p < columns; p += kWidth<T>) {
      store<T>(to + t * columns + p, load(rows + t * columns + p) * factors[t]);
    }
  }
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
