// SSD, backward: stretches from the last to the first. The states before every block are computed
// again from the saved one, and then time goes back. With G the gradient of the state behind a
// block and dy that of its outputs,
//   dx_j = F_j b_j G + sum over i >= j of L[i][j] (c_i . b_j) dy_i,   G' = D G + sum of E_i c_i
//   dy_i, db_j = F_j G x_j + sum over i >= j of L[i][j] (dy_i . x_j) c_i,   and dc_i likewise with
//   E_i H,
// and d_t times its gradient is the sum over everything that passes through it: the products of
// inputs before t and outputs from t on, inside the block or beyond it.
#pragma once

#include "scan/cpu_ssd.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// States that are run through a stretch at once: those before every block should stay in the
// second-level cache.
constexpr int64_t kHistoryStates = 16;

template <typename T>
struct SsdBackwardBuffers : SsdBuffers<T> {
  T *grad_y, *early_grad_y;  // [stretch][columns], the latter times E
  T *grad_x, *gate;          // [stretch][columns]; grad_x is that of x times step
  T *raw, *decay_share;      // [stretch]; decay_share is the decay times its gradient
  T *past, *through;         // [stretch][lanes]: dy_i E_i c_i H, and D G H by block
  T *carry, *history;        // [padded N][columns], [stretch][kHistoryStates][columns]
  T* grad_skip;              // [columns]

  SsdBackwardBuffers(const SsdProblem& problem, Arena<T>& arena) : SsdBuffers<T>(problem, arena) {
    constexpr int W = kWidth<T>;
    const int64_t rows = this->stretch * this->columns;
    grad_y = arena.take(rows);
    early_grad_y = arena.take(rows);
    grad_x = arena.take(rows);
    gate = arena.take(rows);
    raw = arena.take((this->stretch + W - 1) / W * W);
    decay_share = arena.take(this->stretch);
    past = arena.take(this->stretch * W);
    through = arena.take(this->stretch * W);
    carry = arena.take(this->padded * this->columns);
    history = arena.take(this->stretch * kHistoryStates * this->columns);
    grad_skip = arena.take(this->columns);
  }
};

// What the states before and behind a block give to the gradients of B and C: for kSteps steps and
// kSsdStates states, shares of B grow by G x_j, those of C by H dy_i, and past by c_i H dy_i.
template <typename T, int kSteps>
inline void ssd_shares(int64_t columns, const T* h, const T* g, const T* x, const T* dy,
                       Coefficients<T> c, T* past, T* share_b, T* share_c, int64_t stride) {
  constexpr int W = kWidth<T>, N = kSsdStates;
  Vec<T> sum_b[kSteps][N], sum_c[kSteps][N];
  SACCADE_UNROLL
  for (int t = 0; t < kSteps; ++t) {
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) sum_b[t][i] = sum_c[t][i] = Vec<T>{};
  }
  for (int64_t p = 0; p < columns; p += W) {
    Vec<T> gs[N], hs[N];
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      gs[i] = load(g + i * columns + p);
      hs[i] = load(h + i * columns + p);
    }
    SACCADE_UNROLL
    for (int t = 0; t < kSteps; ++t) {
      const Vec<T> xs = load(x + t * columns + p), dys = load(dy + t * columns + p);
      SACCADE_UNROLL
      for (int i = 0; i < N; ++i) {
        sum_b[t][i] += gs[i] * xs;
        sum_c[t][i] += hs[i] * dys;
      }
    }
  }
  SACCADE_UNROLL
  for (int t = 0; t < kSteps; ++t) {
    Vec<T> sum = load(past + t * W);
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) sum += sum_c[t][i] * c.first[t * c.stride + i];
    store<T>(past + t * W, sum);
    add_row_sums<T, N>(sum_b[t], share_b + t * stride);
    add_row_sums<T, N>(sum_c[t], share_c + t * stride);
  }
}

// The block's part of a group of states: all that passes through the states before and behind it.
template <typename T, int kSteps>
inline void ssd_retreat_block(const SsdBackwardBuffers<T>& buffer, int64_t k, int64_t n,
                              int64_t rows, Coefficients<T> b, Coefficients<T> c, T* partial) {
  // Steps whose sums fit the registers.
  constexpr int kTogether = kSteps > 1 && SACCADE_REGISTERS == 32 ? 2 : 1;
  constexpr int W = kWidth<T>;
  const SsdBlock& block = buffer.blocks.block[k];
  const int64_t columns = buffer.columns, padded = buffer.padded, first = block.first;
  const T* h = buffer.history + k * kHistoryStates * columns;
  T* g = buffer.carry + n * columns;
  for (int64_t i = 0; i < rows; i += kSsdStates) {
    for (int64_t t = first; t < first + kSteps; t += kTogether) {
      const Coefficients<T> ct{c.first + (t - first) * c.stride + n + i, c.stride};
      T* share = partial + t * 2 * padded + n + i;
      ssd_shares<T, kTogether>(columns, h + i * columns, g + i * columns,
                               buffer.late_x + t * columns, buffer.early_grad_y + t * columns, ct,
                               buffer.past + t * W, share, share + padded, 2 * padded);
    }
  }
  ssd_advance_columns<T, kSteps, true, true>({rows,
                                              columns,
                                              buffer.blocks.whole_decay(block),
                                              g,
                                              g,
                                              buffer.early_grad_y + first * columns,
                                              {c.first + n, c.stride},
                                              {b.first + n, b.stride},
                                              buffer.grad_x + first * columns,
                                              h,
                                              buffer.through + k * W});
  if (block.forgotten) fill_zero(g, rows * columns);
}

// rows[i] = sum over j <= i of by[i][j] from[j], or with kTransposed over j >= i of by[j][i]
// from[j], added to rows.
template <typename T, int kSteps, bool kTransposed>
inline void ssd_add_mixed(const T (&by)[kSteps][kSteps], int64_t count, Coefficients<T> from,
                          T* rows, int64_t stride) {
  for (int64_t p = 0; p < count; p += kWidth<T>) {
    Vec<T> values[kSteps];
    SACCADE_UNROLL
    for (int j = 0; j < kSteps; ++j)
      values[j] = load_partial(from.first + j * from.stride + p, count - p);
    SACCADE_UNROLL
    for (int i = 0; i < kSteps; ++i) {
      Vec<T> sum = load_partial(rows + i * stride + p, count - p);
      SACCADE_UNROLL
      for (int j = kTransposed ? i : 0; j < (kTransposed ? kSteps : i + 1); ++j)
        sum += values[j] * (kTransposed ? by[j][i] : by[i][j]);
      store_partial<T>(rows + i * stride + p, sum, count - p);
    }
  }
}

// The block's own inputs and outputs, after all states: the gradient of x, the rest of those of B
// and C, and the decays' shares.
template <typename T, int kSteps>
inline void ssd_finish_gradients(const SsdBackwardBuffers<T>& buffer, int64_t k, Coefficients<T> b,
                                 Coefficients<T> c, T* partial) {
  constexpr int W = kWidth<T>;
  const SsdBlock& block = buffer.blocks.block[k];
  const int64_t columns = buffer.columns, padded = buffer.padded, first = block.first;
  const T *x = buffer.x + first * columns, *dy = buffer.grad_y + first * columns;
  T* dx = buffer.grad_x + first * columns;
  T between[kSteps][kSteps], by_x[kSteps][kSteps], by_states[kSteps][kSteps];
  buffer.blocks.between(block, between);
  ssd_dots<T, kSteps>(c, b, padded, by_x);
  ssd_dots<T, kSteps>({dy, columns}, {x, columns}, columns, by_states);
  T inside[kSteps][kSteps];
  for (int i = 0; i < kSteps; ++i) {
    for (int j = 0; j <= i; ++j) {
      by_x[i][j] *= between[i][j];
      inside[i][j] = by_x[i][j] * by_states[i][j];
      by_states[i][j] *= between[i][j];
    }
  }
  T later[kSteps];  // x_j times what comes back through the states behind the block
  for (int j = 0; j < kSteps; ++j) {
    const T to_end = buffer.blocks.to_end[first + j];
    Vec<T> sum{};
    for (int64_t p = 0; p < columns; p += W) {
      const Vec<T> grad = load(dx + j * columns + p) * to_end;
      store<T>(dx + j * columns + p, grad);
      sum += grad * load(x + j * columns + p);
    }
    later[j] = horizontal_sum<T>(sum);
  }
  ssd_add_mixed<T, kSteps, true>(by_x, columns, {dy, columns}, dx, columns);
  T* share = partial + first * 2 * padded;
  ssd_add_mixed<T, kSteps, true>(by_states, padded, c, share, 2 * padded);
  ssd_add_mixed<T, kSteps, false>(by_states, padded, b, share + padded, 2 * padded);

  const T through =
      horizontal_sum<T>(load(buffer.through + k * W)) * buffer.blocks.whole_decay(block);
  for (int t = 0; t < kSteps; ++t) {
    T sum = through;
    for (int i = t; i < kSteps; ++i) {
      sum += horizontal_sum<T>(load(buffer.past + (first + i) * W));
      for (int j = 0; j < t; ++j) sum += inside[i][j];
    }
    for (int j = 0; j < t; ++j) sum += later[j];
    buffer.decay_share[first + t] = sum;
  }
}

template <typename T>
inline void ssd_retreat_stretch(const SsdBackwardBuffers<T>& buffer, const Head<T>& head,
                                int64_t position, bool gated, T* partial) {
  const SsdBlocks<T>& blocks = buffer.blocks;
  const int64_t columns = buffer.columns;
  const auto each = [&](int64_t k, const auto& f) {
    const int64_t at = position + blocks.block[k].first;
    with_steps(blocks.block[k], [&](auto steps) { f(steps, head.b(at), head.c(at)); });
  };
  for (int64_t n = 0; n < buffer.padded; n += kHistoryStates) {
    const int64_t left = buffer.padded - n, rows = left < kHistoryStates ? left : kHistoryStates;
    const int64_t size = kHistoryStates * columns;
    memcpy(buffer.history, buffer.state + n * columns,
           static_cast<size_t>(rows * columns) * sizeof(T));
    for (int64_t k = 0; k < blocks.count; ++k) {
      const SsdBlock& block = blocks.block[k];
      T* h = buffer.history + k * size;
      if (block.forgotten) fill_zero(h, rows * columns);
      // The state behind the last block is written to where nobody looks.
      T* next = k + 1 < blocks.count ? h + size : buffer.state + n * columns;
      each(k, [&](auto steps, Coefficients<T> b, Coefficients<T> c) {
        constexpr int S = decltype(steps)::value;
        const SsdAdvance<T> advance{rows,
                                    columns,
                                    blocks.whole_decay(block),
                                    h,
                                    next,
                                    buffer.late_x + block.first * columns,
                                    {b.first + n, b.stride},
                                    {c.first + n, c.stride},
                                    buffer.y + block.first * columns,
                                    nullptr,
                                    nullptr};
        // what stands before the gate is computed again for the gate's own gradient alone
        if (gated) {
          ssd_advance_columns<T, S, true>(advance);
        } else if (k + 1 < blocks.count) {
          ssd_advance_columns<T, S, false>(advance);
        }
      });
    }
    for (int64_t k = blocks.count - 1; k >= 0; --k) {
      each(k, [&](auto steps, Coefficients<T> b, Coefficients<T> c) {
        ssd_retreat_block<T, decltype(steps)::value>(buffer, k, n, rows, b, c, partial);
      });
    }
  }
  for (int64_t k = 0; k < blocks.count; ++k) {
    each(k, [&](auto steps, Coefficients<T> b, Coefficients<T> c) {
      ssd_finish_gradients<T, decltype(steps)::value>(buffer, k, b, c, partial);
      if (gated) ssd_finish_block(buffer, blocks.block[k], b, c);
    });
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
  SsdBackwardBuffers<T> buffer(problem, arena);
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
    const int64_t next = s > 0 ? position - buffer.stretch : position;
    const int64_t at = head.token_at(position) * width;
    prefetch_rows<true>(args.grad_x + at, row, count, width);
    prefetch_rows(args.checkpoints + head.checkpoint_at(next), 0, 1, width * problem.state);
    head.load_steps(position, count, buffer.step, buffer.blocks.decay, buffer.raw);
    if (in.sequence != nullptr) head.mark_forgotten(position, count, buffer.forget);
    buffer.blocks.cut(count, in.sequence != nullptr ? buffer.forget : nullptr);
    load_head_state(args.checkpoints + head.checkpoint_at(position), problem, buffer.padded,
                    columns, buffer.state);
    load_tokens(in.x, batch, head_index, width, position, next, count, columns, buffer.plain);
    scale_rows(buffer.plain, buffer.step, count, columns, buffer.x);
    scale_rows(buffer.x, buffer.blocks.to_end, count, columns, buffer.late_x);
    load_tokens(args.grad_out, batch, head_index, width, position, next, count, columns,
                buffer.grad_y);
    if (in.z.data != nullptr) {
      load_tokens(in.z, batch, head_index, width, position, next, count, columns, buffer.gate);
      for (int64_t i = 0; i < size; i += W) {
        const Vec<T> z = load(buffer.gate + i), sigma = fast_sigmoid<T>(z);
        const Vec<T> dout = load(buffer.grad_y + i);
        store<T>(buffer.grad_y + i, dout * (z * sigma));
        store<T>(buffer.gate + i, dout * (sigma + z * sigma * (T(1) - sigma)));
      }
    }
    scale_rows(buffer.grad_y, buffer.blocks.from_start, count, columns, buffer.early_grad_y);
    const bool gated = in.z.data != nullptr;
    if (gated) fill_zero(buffer.y, size);
    fill_zero(buffer.grad_x, size);
    fill_zero(buffer.past, count * W);
    fill_zero(buffer.through, count * W);
    ssd_retreat_stretch(buffer, head, position, gated, partial + position * 2 * buffer.padded);

    for (int64_t t = 0; t < count; ++t) {
      const T decay_share = buffer.decay_share[t];
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
        if (gated) {
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
    store_tokens(buffer.grad_x, columns, width, count, row, args.grad_x + at);
    if (gated) {
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
