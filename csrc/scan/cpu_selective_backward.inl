// Selective scan, backward: ranges and stretches from the last to the first. A stretch starts from
// its saved state and is run again, keeping decays and decayed states; then time goes back.
#pragma once

#include "scan/cpu_selective.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

template <typename T>
struct BackwardBuffers : SelectiveBuffers<T> {
  T *grad_y, *grad_u, *grad_step, *raw_step;  // [R][lanes]
  T *carry, *grad_a, *grad_b, *grad_c;        // [padded N][lanes]
  T *decay, *decayed;                         // [chunk][kStates][lanes]

  BackwardBuffers(const SelectiveProblem& problem, const Ranges& ranges, Arena<T>& arena)
      : SelectiveBuffers<T>(problem, ranges, arena) {
    constexpr int W = kWidth<T>;
    grad_y = arena.take(ranges.size * W);
    grad_u = arena.take(ranges.size * W);
    grad_step = arena.take(ranges.size * W);
    raw_step = arena.take(ranges.size * W);
    const int64_t states = this->padded * W;
    carry = arena.take(states);
    grad_a = arena.take(states);
    grad_b = arena.take(states);
    grad_c = arena.take(states);
    decay = arena.take(problem.chunk * kStates<T> * W);
    decayed = arena.take(problem.chunk * kStates<T> * W);
  }
};

// One stretch of steps for kStates states, forwards and back. partial: [row][2 * padded N].
template <typename T, bool kConstantB, bool kConstantC>
inline void retreat(const BackwardBuffers<T>& buffer, int64_t first, int64_t last, int64_t n,
                    const T* b, int64_t b_stride, const T* c, int64_t c_stride, bool any_forgotten,
                    T* partial) {
  constexpr int W = kWidth<T>, N = kStates<T>;
  const T* octaves = buffer.octaves + n * W;
  const T* constant_b = buffer.b + n * W;
  const T* constant_c = buffer.c + n * W;
  Vec<T> h[N];
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) h[i] = load(buffer.state + (n + i) * W);
  for (int64_t s = first; s < last; ++s) {
    const int64_t row = buffer.order[s];
    const T* b_row = kConstantB ? nullptr : b + row * b_stride + n;
    const T* c_row = kConstantC ? nullptr : c + row * c_stride + n;
    const int64_t at = (s - first) * N * W;
    const bool forgotten = any_forgotten && buffer.forget[s];
    const Vec<T> dt = load(buffer.step + row * W);
    const Vec<T> drive = dt * load(buffer.u + row * W);
    Vec<T> y = load(buffer.y + row * W);
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec<T> decay = exp2_clamped(dt * load(octaves + i * W));
      const Vec<T> decayed = forgotten ? Vec<T>{} : decay * h[i];
      store<T>(buffer.decay + at + i * W, decay);
      store<T>(buffer.decayed + at + i * W, decayed);
      h[i] = decayed + drive * coefficient<T, kConstantB>(b_row, constant_b, i);
      y += h[i] * coefficient<T, kConstantC>(c_row, constant_c, i);
    }
    store<T>(buffer.y + row * W, y);
  }

  Vec<T> carry[N], grad_a[N];
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) carry[i] = load(buffer.carry + (n + i) * W);
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) grad_a[i] = load(buffer.grad_a + (n + i) * W);
  for (int64_t s = last - 1; s >= first; --s) {
    const int64_t row = buffer.order[s];
    const T* b_row = kConstantB ? nullptr : b + row * b_stride + n;
    const T* c_row = kConstantC ? nullptr : c + row * c_stride + n;
    const int64_t at = (s - first) * N * W;
    const bool forgotten = any_forgotten && buffer.forget[s];
    const Vec<T> dt = load(buffer.step + row * W);
    const Vec<T> drive = dt * load(buffer.u + row * W);
    const Vec<T> dy = load(buffer.grad_y + row * W);
    Vec<T> through_decay{}, through_drive{};
    Vec<T> shares[2 * N];
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec<T> bi = coefficient<T, kConstantB>(b_row, constant_b, i);
      const Vec<T> ci = coefficient<T, kConstantC>(c_row, constant_c, i);
      const Vec<T> decayed = load(buffer.decayed + at + i * W);
      const Vec<T> g = carry[i] + ci * dy;
      const Vec<T> kept = g * decayed;
      through_decay += kept * load(octaves + i * W);
      through_drive += g * bi;
      grad_a[i] += kept * dt;
      const Vec<T> share_b = g * drive, share_c = (decayed + drive * bi) * dy;
      if constexpr (kConstantB) {
        T* to = buffer.grad_b + (n + i) * W;
        store<T>(to, load(to) + share_b);
      }
      if constexpr (kConstantC) {
        T* to = buffer.grad_c + (n + i) * W;
        store<T>(to, load(to) + share_c);
      }
      shares[i] = kConstantB ? Vec<T>{} : share_b;
      shares[N + i] = kConstantC ? Vec<T>{} : share_c;
      carry[i] = forgotten ? Vec<T>{} : load(buffer.decay + at + i * W) * g;
    }
    if constexpr (!kConstantB || !kConstantC) {
      add_row_sums<T, 2 * N>(shares, partial + row * 2 * buffer.padded + 2 * n);
    }
    T* grad_step = buffer.grad_step + row * W;
    T* grad_u = buffer.grad_u + row * W;
    // ln 2 turns octaves back into A
    store<T>(grad_step, load(grad_step) + through_decay * (T(1) / kLog2E<T>)+through_drive *
                                              load(buffer.u + row * W));
    store<T>(grad_u, load(grad_u) + through_drive * dt);
  }
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) store<T>(buffer.carry + (n + i) * W, carry[i]);
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) store<T>(buffer.grad_a + (n + i) * W, grad_a[i]);
}

template <typename T>
using Retreat = void (*)(const BackwardBuffers<T>&, int64_t, int64_t, int64_t, const T*, int64_t,
                         const T*, int64_t, bool, T*);

template <typename T>
inline Retreat<T> choose_retreat(bool constant_b, bool constant_c) {
  if (constant_b) return constant_c ? retreat<T, true, true> : retreat<T, true, false>;
  return constant_c ? retreat<T, false, true> : retreat<T, false, false>;
}

// One range of one path. grad_u and y grow; the gradient of delta is written; returns the range's
// sum of it in every lane.
template <typename T>
inline Vec<T> retreat_range(const SelectiveBackward<T>& args, const Path<T>& path,
                            const Ranges& ranges, int64_t range, const BackwardBuffers<T>& buffer,
                            T* partial) {
  constexpr int W = kWidth<T>;
  const SelectiveProblem& problem = args.problem;
  const SelectiveInputs<T>& in = args.in;
  const int64_t direction = problem.directions[path.path];
  const int64_t steps = ranges.steps(range), position = ranges.first_position(range, direction);
  const int64_t begin = ranges.begin(range), state = problem.state;
  order_rows(problem, direction, steps, buffer.order);
  if (in.sequence != nullptr) {
    mark_borders(problem, in.sequence + path.batch * problem.length, buffer.order, position, begin,
                 steps, buffer.forget);
  }
  const Vec<T> bias = load(buffer.skip_bias + W);
  load_rows(in.delta, path.batch, path.path, path.channel, path.count, position, steps,
            buffer.raw_step);
  memcpy(buffer.step, buffer.raw_step, static_cast<size_t>(steps * W) * sizeof(T));
  finish_steps<T>(steps, bias, problem.softplus, buffer.step);
  fill_zero(buffer.grad_step, steps * W);

  const T* b = in.b.constant ? nullptr : path.coefficients(in.b) + position * in.b.position;
  const T* c = in.c.constant ? nullptr : path.coefficients(in.c) + position * in.c.position;
  T* shares = partial + (path.path * problem.length + position) * 2 * buffer.padded;
  const Retreat<T> retreat = choose_retreat<T>(in.b.constant, in.c.constant);
  for (int64_t s = (steps - 1) / problem.chunk * problem.chunk; s >= 0; s -= problem.chunk) {
    load_states(args.checkpoints + path.checkpoint_at(begin + s), 1, problem.channels, path.count,
                state, buffer.padded, buffer.state);
    const int64_t end = s + problem.chunk < steps ? s + problem.chunk : steps;
    for (int64_t n = 0; n < buffer.padded; n += kStates<T>) {
      retreat(buffer, s, end, n, b, in.b.position, c, in.c.position, in.sequence != nullptr,
              shares);
    }
  }

  Vec<T> sum{};
  for (int64_t i = 0; i < steps * W; i += W) {
    Vec<T> grad = load(buffer.grad_step + i);
    if (problem.softplus) {
      const Vec<T> x = load(buffer.raw_step + i) + bias;
      grad = x > T(20) ? grad : grad * fast_sigmoid<T>(x);
    }
    store<T>(buffer.grad_step + i, grad);
    sum += grad;
  }
  store_rows(buffer.grad_step, path.batch, path.path, path.channel, path.count, position, steps,
             args.grad_delta);
  return sum;
}

// grad_y from the gradient of the output, and the gate's derivative, which waits in raw memory.
template <typename T>
inline void open_gate(const SelectiveBackward<T>& args, int64_t batch, int64_t channel,
                      int64_t count, int64_t position, int64_t rows, T* grad_y, T* z) {
  constexpr int W = kWidth<T>;
  load_rows(args.grad_out, batch, 0, channel, count, position, rows, grad_y);
  if (z == nullptr) return;
  load_rows(args.in.z, batch, 0, channel, count, position, rows, z);
  for (int64_t i = 0; i < rows * W; i += W) {
    const Vec<T> x = load(z + i), s = fast_sigmoid<T>(x), dout = load(grad_y + i);
    store<T>(grad_y + i, dout * (x * s));
    store<T>(z + i, dout * (s + x * s * (T(1) - s)));
  }
}

template <typename T>
inline void selective_backward(const SelectiveBackward<T>& args, int64_t batch, int64_t channel,
                               int64_t count, T* partial, T* scratch) {
  constexpr int W = kWidth<T>;
  const SelectiveProblem& problem = args.problem;
  const SelectiveInputs<T>& in = args.in;
  const Ranges ranges(problem);
  Arena<T> arena(scratch);
  const BackwardBuffers<T> buffer(problem, ranges, arena);
  T* gate = arena.take(in.z.data == nullptr ? 0 : ranges.size * W);
  if (in.z.data == nullptr) gate = nullptr;
  const int64_t state = problem.state, states = buffer.padded * W;

  Vec<T> grad_bias{}, grad_skip{};
  for (int64_t range = ranges.count - 1; range >= 0; --range) {
    const int64_t rows = ranges.steps(range);
    const int64_t position = ranges.first_position(range, problem.directions[0]);
    load_rows(in.u, batch, 0, channel, count, position, rows, buffer.u);
    open_gate(args, batch, channel, count, position, rows, buffer.grad_y, gate);
    fill_zero(buffer.y, rows * W);
    fill_zero(buffer.grad_u, rows * W);
    for (int64_t i = 0; i < rows * W; i += W) {
      grad_skip += load(buffer.u + i) * load(buffer.grad_y + i);
    }
    Vec<T> skip{};
    for (int64_t k = 0; k < problem.paths; ++k) {
      const Path<T> path{problem, batch, k, channel, count};
      if (range == ranges.count - 1) {
        path.load_parameters(in, buffer);
        load_states(args.grad_last_state + path.states_at(), state, 1, count, state, buffer.padded,
                    buffer.carry);
        fill_zero(buffer.grad_a, states);
        fill_zero(buffer.grad_b, states);
        fill_zero(buffer.grad_c, states);
        grad_bias = Vec<T>{};
      }
      grad_bias += retreat_range(args, path, ranges, range, buffer, partial);
      skip += load(buffer.skip_bias);
      if (range > 0) continue;
      store_states(buffer.grad_a, state, 1, count, state, args.grad_a + path.states_at());
      if (in.b.constant) {
        store_states(buffer.grad_b, state, 1, count, state, args.grad_b + path.states_at());
      }
      if (in.c.constant) {
        store_states(buffer.grad_c, state, 1, count, state, args.grad_c + path.states_at());
      }
      if (args.grad_initial != nullptr) {
        store_states(buffer.carry, state, 1, count, state, args.grad_initial + path.states_at());
      }
      const int64_t at = (batch * problem.paths + k) * problem.channels + channel;
      if (args.grad_bias != nullptr) store_partial<T>(args.grad_bias + at, grad_bias, count);
      if (args.grad_skip != nullptr) store_partial<T>(args.grad_skip + at, grad_skip, count);
    }
    for (int64_t i = 0; i < rows * W; i += W) {
      store<T>(buffer.grad_u + i, load(buffer.grad_u + i) + skip * load(buffer.grad_y + i));
      if (gate != nullptr) {
        const Vec<T> y = load(buffer.y + i) + skip * load(buffer.u + i);
        store<T>(gate + i, load(gate + i) * y);
      }
    }
    store_rows(buffer.grad_u, batch, 0, channel, count, position, rows, args.grad_u);
    if (gate != nullptr) {
      store_rows(gate, batch, 0, channel, count, position, rows, args.grad_z);
    }
  }
}

template <typename T>
inline int64_t selective_scratch(const SelectiveProblem& problem, bool backward) {
  const Ranges ranges(problem);
  Arena<T> arena(nullptr);
  if (backward) {
    BackwardBuffers<T>(problem, ranges, arena);
    arena.take(ranges.size * kWidth<T>);
  } else {
    SelectiveBuffers<T>(problem, ranges, arena);
  }
  return arena.used();
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
