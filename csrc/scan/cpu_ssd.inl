// SSD, forward: a head's state [N][P] stays in the first-level cache, and a tile of it in registers
// while a stretch of time passes. At N = P = 64 this costs about as many multiply-adds as the form
// with matrix products over chunks, and no differences of large sums of decays.
#pragma once

#include "scan/cpu_lanes.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// A tile of the state: kSsdStates rows of kTile vectors.
constexpr int kSsdStates = 4;
constexpr int kTile = SACCADE_REGISTERS / 8;
// Steps that are packed at once where no states are saved.
constexpr int64_t kStretch = 64;

template <typename T>
struct SsdBuffers {
  int64_t stretch, columns, padded;  // columns: P, padded: N, both rounded up
  T *x, *y;                          // [stretch][columns]
  T *step, *decay;                   // [stretch]
  T* state;                          // [padded N][columns]
  uint8_t* forget;

  SsdBuffers(const SsdProblem& problem, Arena<T>& arena) {
    constexpr int W = kWidth<T>;
    stretch = problem.chunk > 0 ? problem.chunk : kStretch;
    columns = (problem.width + W - 1) / W * W;
    padded = (problem.state + kSsdStates - 1) / kSsdStates * kSsdStates;
    const int64_t steps = (stretch + W - 1) / W * W;
    x = arena.take(stretch * columns);
    y = arena.take(stretch * columns);
    step = arena.take(steps);
    decay = arena.take(steps);
    state = arena.take(padded * columns);
    forget = reinterpret_cast<uint8_t*>(arena.take(stretch));
  }
};

// Rows of P channels, zeros behind them.
template <typename T>
inline void load_tokens(const Tokens<const T>& view, int64_t batch, int64_t head, int64_t width,
                        int64_t position, int64_t count, int64_t columns, T* rows) {
  const T* from = view.data + batch * view.batch + head * view.head + position * view.position;
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

// [P, N] to [padded N][columns], zeros elsewhere, and back.
template <typename T>
inline void load_head_state(const T* from, const SsdProblem& problem, int64_t padded,
                            int64_t columns, T* state) {
  fill_zero(state, padded * columns);
  if (from == nullptr) return;
  for (int64_t n = 0; n < problem.state; ++n) {
    for (int64_t p = 0; p < problem.width; ++p) {
      state[n * columns + p] = from[p * problem.state + n];
    }
  }
}

template <typename T>
inline void store_head_state(const T* state, const SsdProblem& problem, int64_t columns, T* to) {
  for (int64_t p = 0; p < problem.width; ++p) {
    for (int64_t n = 0; n < problem.state; ++n) {
      to[p * problem.state + n] = state[n * columns + p];
    }
  }
}

// One head of one batch entry.
template <typename T>
struct Head {
  const SsdProblem& problem;
  const SsdInputs<T>& in;
  int64_t batch, head;

  const T* b_row(int64_t position) const { return row(in.b, position); }
  const T* c_row(int64_t position) const { return row(in.c, position); }
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
  const T* row(const Tokens<const T>& view, int64_t position) const {
    const int64_t group = head / (problem.heads / problem.groups);
    return view.data + batch * view.batch + group * view.head + position * view.position;
  }
};

// kVectors columns of kSsdStates states through a stretch.
template <typename T, int kVectors>
inline void ssd_advance(const SsdBuffers<T>& buffer, int64_t count, int64_t column, int64_t n,
                        const T* b, int64_t b_stride, const T* c, int64_t c_stride,
                        bool any_forgotten) {
  constexpr int W = kWidth<T>;
  Vec<T> h[kSsdStates][kVectors];
  T* state = buffer.state + n * buffer.columns + column;
  SACCADE_UNROLL
  for (int i = 0; i < kSsdStates; ++i) {
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) h[i][v] = load(state + i * buffer.columns + v * W);
  }
  for (int64_t t = 0; t < count; ++t) {
    const T decay = buffer.decay[t];
    if (any_forgotten && buffer.forget[t]) {
      SACCADE_UNROLL
      for (int i = 0; i < kSsdStates; ++i) {
        SACCADE_UNROLL
        for (int v = 0; v < kVectors; ++v) h[i][v] = Vec<T>{};
      }
    }
    const T* x = buffer.x + t * buffer.columns + column;
    T* y = buffer.y + t * buffer.columns + column;
    Vec<T> out[kVectors];
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) out[v] = load(y + v * W);
    SACCADE_UNROLL
    for (int i = 0; i < kSsdStates; ++i) {
      const T bi = b[t * b_stride + n + i], ci = c[t * c_stride + n + i];
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        h[i][v] = decay * h[i][v] + load(x + v * W) * bi;
        out[v] += h[i][v] * ci;
      }
    }
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) store<T>(y + v * W, out[v]);
  }
  SACCADE_UNROLL
  for (int i = 0; i < kSsdStates; ++i) {
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) store<T>(state + i * buffer.columns + v * W, h[i][v]);
  }
}

// buffer.x holds x times step; y grows.
template <typename T>
inline void ssd_stretch(const SsdBuffers<T>& buffer, const Head<T>& head, int64_t position,
                        int64_t count) {
  constexpr int W = kWidth<T>;
  const T* b = head.b_row(position);
  const T* c = head.c_row(position);
  const int64_t b_stride = head.in.b.position, c_stride = head.in.c.position;
  const bool forgets = head.in.sequence != nullptr;
  int64_t column = 0;
  for (; column + kTile * W <= buffer.columns; column += kTile * W) {
    for (int64_t n = 0; n < buffer.padded; n += kSsdStates) {
      ssd_advance<T, kTile>(buffer, count, column, n, b, b_stride, c, c_stride, forgets);
    }
  }
  for (; column < buffer.columns; column += W) {
    for (int64_t n = 0; n < buffer.padded; n += kSsdStates) {
      ssd_advance<T, 1>(buffer, count, column, n, b, b_stride, c, c_stride, forgets);
    }
  }
}

// Every row by its factor.
template <typename T>
inline void scale_rows(const T* factors, int64_t count, int64_t columns, T* rows) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t p = 0; p < columns; p += kWidth<T>) {
      store<T>(rows + t * columns + p, load(rows + t * columns + p) * factors[t]);
    }
  }
}

template <typename T>
inline void ssd_forward(const SsdForward<T>& args, int64_t batch, int64_t head_index, T* scratch) {
  constexpr int W = kWidth<T>;
  const SsdProblem& problem = args.problem;
  const SsdInputs<T>& in = args.in;
  const Head<T> head{problem, in, batch, head_index};
  Arena<T> arena(scratch);
  const SsdBuffers<T> buffer(problem, arena);
  const int64_t columns = buffer.columns;
  load_head_state(in.initial == nullptr ? nullptr : in.initial + head.state_at(), problem,
                  buffer.padded, columns, buffer.state);
  for (int64_t position = 0; position < problem.length; position += buffer.stretch) {
    const int64_t left = problem.length - position;
    const int64_t count = left < buffer.stretch ? left : buffer.stretch;
    if (problem.chunk > 0) {
      store_head_state(buffer.state, problem, columns,
                       args.checkpoints + head.checkpoint_at(position));
    }
    head.load_steps(position, count, buffer.step, buffer.decay, nullptr);
    if (in.sequence != nullptr) head.mark_forgotten(position, count, buffer.forget);
    load_tokens(in.x, batch, head_index, problem.width, position, count, columns, buffer.x);
    for (int64_t i = 0; i < count * columns; i += W) {
      Vec<T> skipped{};
      if (in.skip != nullptr) {
        const int64_t p = i % columns;
        skipped = load(buffer.x + i) *
                  load_partial(in.skip + head_index * problem.width + p, problem.width - p);
      }
      store<T>(buffer.y + i, skipped);
    }
    scale_rows(buffer.step, count, columns, buffer.x);
    ssd_stretch(buffer, head, position, count);
    if (in.z.data != nullptr) {
      load_tokens(in.z, batch, head_index, problem.width, position, count, columns, buffer.x);
      for (int64_t i = 0; i < count * columns; i += W) {
        const Vec<T> gate = load(buffer.x + i);
        store<T>(buffer.y + i, load(buffer.y + i) * gate * fast_sigmoid<T>(gate));
      }
    }
    store_tokens(buffer.y, columns, problem.width, count, problem.heads * problem.width,
                 args.out + head.token_at(position) * problem.width);
  }
  store_head_state(buffer.state, problem, columns, args.final_state + head.state_at());
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
