// SSD, backward: stretches from the last to the first. A tile of the state is run again from the
// saved one, keeping every step's state, and then time goes back.
#pragma once

#include "scan/cpu_ssd.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// Vectors of a tile: its gradients, their shares for B and C and the sums for x stay in registers.
constexpr int kBackTile = SACCADE_REGISTERS / 8;

template <typename T>
struct SsdBackwardBuffers : SsdBuffers<T> {
  T *grad_y, *grad_x, *gate, *plain;  // [stretch][columns]; grad_x is that of x times step
  T *raw, *grad_decay;                // [stretch], [stretch][lanes]
  T *carry, *history;                 // [padded N][columns], [stretch + 1][kSsdStates][kBackTile]
  T* grad_skip;                       // [columns]

  SsdBackwardBuffers(const SsdProblem& problem, Arena<T>& arena) : SsdBuffers<T>(problem, arena) {
    constexpr int W = kWidth<T>;
    const int64_t rows = this->stretch * this->columns;
    grad_y = arena.take(rows);
    grad_x = arena.take(rows);
    gate = arena.take(rows);
    plain = arena.take(rows);
    raw = arena.take((this->stretch + W - 1) / W * W);
    grad_decay = arena.take(this->stretch * W);
    carry = arena.take(this->padded * this->columns);
    history = arena.take((this->stretch + 1) * kSsdStates * kBackTile * W);
    grad_skip = arena.take(this->columns);
  }
};

template <typename T, int kVectors, bool kGated>
inline void ssd_retreat(const SsdBackwardBuffers<T>& buffer, int64_t count, int64_t column,
                        int64_t n, const T* b, int64_t b_stride, const T* c, int64_t c_stride,
                        bool any_forgotten, T* partial) {
  constexpr int W = kWidth<T>, N = kSsdStates, kSize = kSsdStates * kVectors * W;
  const int64_t columns = buffer.columns;
  Vec<T> h[N][kVectors];
  const T* state = buffer.state + n * columns + column;
  T* history = buffer.history;
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) {
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      h[i][v] = load(state + i * columns + v * W);
      store<T>(history + (i * kVectors + v) * W, h[i][v]);
    }
  }
  for (int64_t t = 0; t < count; ++t) {
    const T decay = buffer.decay[t];
    if (any_forgotten && buffer.forget[t]) {
      // as if nothing had been before: its gradient through the decay is none
      SACCADE_UNROLL
      for (int i = 0; i < N; ++i) {
        SACCADE_UNROLL
        for (int v = 0; v < kVectors; ++v) h[i][v] = Vec<T>{};
      }
    }
    history += kSize;
    const T* x = buffer.x + t * columns + column;
    T* y = buffer.y + t * columns + column;
    Vec<T> out[kVectors];
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) out[v] = kGated ? load(y + v * W) : Vec<T>{};
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      const T bi = b[t * b_stride + n + i], ci = c[t * c_stride + n + i];
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        h[i][v] = decay * h[i][v] + load(x + v * W) * bi;
        store<T>(history + (i * kVectors + v) * W, h[i][v]);
        if constexpr (kGated) out[v] += h[i][v] * ci;
      }
    }
    if constexpr (kGated) {
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) store<T>(y + v * W, out[v]);
    }
  }

  Vec<T>(&g)[N][kVectors] = h;
  T* carry = buffer.carry + n * columns + column;
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) {
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) g[i][v] = load(carry + i * columns + v * W);
  }
  for (int64_t t = count - 1; t >= 0; --t, history -= kSize) {
    const bool forgotten = any_forgotten && buffer.forget[t];
    const T decay = buffer.decay[t];
    const T* x = buffer.x + t * columns + column;
    const T* dy = buffer.grad_y + t * columns + column;
    T* dx = buffer.grad_x + t * columns + column;
    Vec<T> through_x[kVectors], through_decay{};
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) through_x[v] = load(dx + v * W);
    Vec<T> shares[2 * N];
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      const T bi = b[t * b_stride + n + i], ci = c[t * c_stride + n + i];
      Vec<T> share_b{}, share_c{};
      SACCADE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const Vec<T> dyv = load(dy + v * W);
        const T* now = history + (i * kVectors + v) * W;
        const Vec<T> grad = g[i][v] + dyv * ci;
        through_x[v] += grad * bi;
        share_b += grad * load(x + v * W);
        share_c += load(now) * dyv;
        through_decay += grad * load(now - kSize);
        g[i][v] = decay * grad;
      }
      shares[i] = share_b;
      shares[N + i] = share_c;
    }
    if (forgotten) {
      through_decay = Vec<T>{};
      SACCADE_UNROLL
      for (int i = 0; i < N; ++i) {
        SACCADE_UNROLL
        for (int v = 0; v < kVectors; ++v) g[i][v] = Vec<T>{};
      }
    }
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) store<T>(dx + v * W, through_x[v]);
    T* to = buffer.grad_decay + t * W;
    store<T>(to, load(to) + through_decay);
    add_row_sums<T, 2 * N>(shares, partial + t * 2 * buffer.padded + 2 * n);
  }
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) {
    SACCADE_UNROLL
    for (int v = 0; v < kVectors; ++v) store<T>(carry + i * columns + v * W, g[i][v]);
  }
}

template <typename T, bool kGated>
inline void ssd_retreat_stretch(const SsdBackwardBuffers<T>& buffer, const Head<T>& head,
                                int64_t position, int64_t count, T* partial) {
  constexpr int W = kWidth<T>;
  const T* b = head.b_row(position);
  const T* c = head.c_row(position);
  const int64_t b_stride = head.in.b.position, c_stride = head.in.c.position;
  const bool forgets = head.in.sequence != nullptr;
  int64_t column = 0;
  for (; column + kBackTile * W <= buffer.columns; column += kBackTile * W) {
    for (int64_t n = 0; n < buffer.padded; n += kSsdStates) {
      ssd_retreat<T, kBackTile, kGated>(buffer, count, column, n, b, b_stride, c, c_stride, forgets,
                                        partial);
    }
  }
  for (; column < buffer.columns; column += W) {
    for (int64_t n = 0; n < buffer.padded; n += kSsdStates) {
      ssd_retreat<T, 1, kGated>(buffer, count, column, n, b, b_stride, c, c_stride, forgets,
                                partial);
    }
  }
}

// The gradient of dt from that of the step, through clamp and softplus.
template <typename T>
inline Vec<T> through_step(const SsdProblem& problem, Vec<T> raw, Vec<T> grad) {
  Vec<T> soft = raw, slope = broadcast<T>(T(1));
  if (problem.softplus) {
    soft = fast_softplus<T>(raw);
    slope = raw > T(20) ? slope : fast_sigmoid<T>(raw);
  }
  const T low = static_cast<T>(problem.dt_min), high = static_cast<T>(problem.dt_max);
  const Mask<T> outside = (soft < low) | (soft > high);
  return outside ? Vec<T>{} : grad * slope;
}

template <typename T>
inline void ssd_backward(const SsdBackward<T>& args, int64_t batch, int64_t head_index, T* partial,
                         T* scratch) {
  constexpr int W = kWidth<T>;
  const SsdProblem& problem = args.problem;
  const SsdInputs<T>& in = args.in;
  const Head<T> head{problem, in, batch, head_index};
  Arena<T> arena(scratch);
  const SsdBackwardBuffers<T> buffer(problem, arena);
  const int64_t columns = buffer.columns, width = problem.width;
  const int64_t row = problem.heads * width;
  load_head_state(args.grad_final + head.state_at(), problem, buffer.padded, columns, buffer.carry);
  fill_zero(buffer.grad_skip, columns);
  T grad_a{}, grad_bias{};

  const int64_t stretches = (problem.length + buffer.stretch - 1) / buffer.stretch;
  for (int64_t s = stretches - 1; s >= 0; --s) {
    const int64_t position = s * buffer.stretch, left = problem.length - position;
    const int64_t count = left < buffer.stretch ? left : buffer.stretch;
    const int64_t size = count * columns;
    head.load_steps(position, count, buffer.step, buffer.decay, buffer.raw);
    if (in.sequence != nullptr) head.mark_forgotten(position, count, buffer.forget);
    load_head_state(args.checkpoints + head.checkpoint_at(position), problem, buffer.padded,
                    columns, buffer.state);
    load_tokens(in.x, batch, head_index, width, position, count, columns, buffer.plain);
    memcpy(buffer.x, buffer.plain, static_cast<size_t>(size) * sizeof(T));
    scale_rows(buffer.step, count, columns, buffer.x);
    load_tokens(args.grad_out, batch, head_index, width, position, count, columns, buffer.grad_y);
    if (in.z.data != nullptr) {
      load_tokens(in.z, batch, head_index, width, position, count, columns, buffer.gate);
      for (int64_t i = 0; i < size; i += W) {
        const Vec<T> z = load(buffer.gate + i), sigma = fast_sigmoid<T>(z);
        const Vec<T> dout = load(buffer.grad_y + i);
        store<T>(buffer.grad_y + i, dout * (z * sigma));
        store<T>(buffer.gate + i, dout * (sigma + z * sigma * (T(1) - sigma)));
      }
    }
    fill_zero(buffer.y, size);
    fill_zero(buffer.grad_x, size);
    fill_zero(buffer.grad_decay, count * W);
    T* shares = partial + position * 2 * buffer.padded;
    // what stands before the gate is run again for the gate's own gradient alone
    if (in.z.data != nullptr) {
      ssd_retreat_stretch<T, true>(buffer, head, position, count, shares);
    } else {
      ssd_retreat_stretch<T, false>(buffer, head, position, count, shares);
    }

    for (int64_t t = 0; t < count; ++t) {
      const T decay_share = horizontal_sum<T>(load(buffer.grad_decay + t * W)) * buffer.decay[t];
      Vec<T> through_x{};
      for (int64_t p = 0; p < columns; p += W) {
        const int64_t at = t * columns + p;
        const Vec<T> skip = in.skip == nullptr
                                ? Vec<T>{}
                                : load_partial(in.skip + head_index * width + p, width - p);
        const Vec<T> x = load(buffer.plain + at), dy = load(buffer.grad_y + at);
        const Vec<T> grad = load(buffer.grad_x + at);
        through_x += grad * x;
        store<T>(buffer.grad_skip + p, load(buffer.grad_skip + p) + dy * x);
        store<T>(buffer.grad_x + at, grad * buffer.step[t] + skip * dy);
        if (in.z.data != nullptr) {
          store<T>(buffer.gate + at, load(buffer.gate + at) * (load(buffer.y + at) + skip * x));
        }
      }
      grad_a += decay_share * buffer.step[t];
      // from here on the step's gradient stands in its place
      buffer.step[t] = decay_share * in.a[head_index] + horizontal_sum<T>(through_x);
    }
    for (int64_t t = 0; t < count; t += W) {
      const Vec<T> grad =
          through_step<T>(problem, load(buffer.raw + t), load_partial(buffer.step + t, count - t));
      for (int64_t i = t; i < count && i < t + W; ++i) {
        args.grad_dt[head.token_at(position + i)] = grad[i - t];
        grad_bias += grad[i - t];
      }
    }
    const int64_t at = head.token_at(position) * width;
    store_tokens(buffer.grad_x, columns, width, count, row, args.grad_x + at);
    if (in.z.data != nullptr) {
      store_tokens(buffer.gate, columns, width, count, row, args.grad_z + at);
    }
  }
  const int64_t entry = batch * problem.heads + head_index;
  args.grad_a[entry] = grad_a;
  if (args.grad_bias != nullptr) args.grad_bias[entry] = grad_bias;
  if (args.grad_skip != nullptr) {
    memcpy(args.grad_skip + entry * width, buffer.grad_skip,
           static_cast<size_t>(width) * sizeof(T));
  }
  if (args.grad_initial != nullptr) {
    store_head_state(buffer.carry, problem, columns, args.grad_initial + head.state_at());
  }
}

template <typename T>
inline int64_t ssd_scratch(const SsdProblem& problem, bool backward) {
  Arena<T> arena(nullptr);
  if (backward) {
    SsdBackwardBuffers<T>(problem, arena);
  } else {
    SsdBuffers<T>(problem, arena);
  }
  return arena.used();
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
