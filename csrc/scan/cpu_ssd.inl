// SSD, forward: a head's state [N][P] stays in the first-level cache while a stretch of time passes
// in blocks.
#pragma once

#include "scan/cpu_ssd_block.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// Steps that are packed at once where no states are saved.
constexpr int64_t kStretch = 64;

template <typename T>
struct SsdBuffers {
  int64_t stretch, columns, padded;  // columns: P, padded: N, both rounded up
  T *plain, *x, *late_x, *y;         // [stretch][columns]: x, times step, times F, outputs
  T* step;                           // [stretch]
  T* state;                          // [padded N][columns]
  uint8_t* forget;
  SsdBlocks<T> blocks;

  SsdBuffers(const SsdProblem& problem, Arena<T>& arena)
      : stretch(problem.chunk > 0 ? problem.chunk : kStretch),
        columns((problem.width + kWidth<T> - 1) / kWidth<T> * kWidth<T>),
        padded((problem.state + kSsdStates - 1) / kSsdStates * kSsdStates),
        blocks(stretch, arena) {
    plain = arena.take(stretch * columns);
    x = arena.take(stretch * columns);
    late_x = arena.take(stretch * columns);
    y = arena.take(stretch * columns);
    step = arena.take((stretch + kWidth<T> - 1) / kWidth<T> * kWidth<T>);
    state = arena.take(padded * columns);
    forget = reinterpret_cast<uint8_t*>(arena.take(stretch));
  }
};

// The outputs of a block from c_i H in y.
template <typename T>
inline void ssd_finish_block(const SsdBuffers<T>& buffer, const SsdBlock& block, Coefficients<T> b,
                             Coefficients<T> c) {
  with_steps(block, [&](auto steps) {
    constexpr int S = decltype(steps)::value;
    T by[S][S], between[S][S];
    ssd_dots<T, S>(c, b, buffer.padded, by);
    buffer.blocks.between(block, between);
    for (int i = 0; i < S; ++i) {
      for (int j = 0; j <= i; ++j) by[i][j] *= between[i][j];
    }
    const int64_t at = block.first * buffer.columns;
    ssd_finish<T, S>(buffer.blocks.from_start + block.first, by, buffer.columns, buffer.x + at,
                     buffer.y + at);
  });
}

template <typename T>
inline void ssd_forward(const SsdForward<T>& args, int64_t batch, int64_t head_index, T* scratch) {
  constexpr int W = kWidth<T>;
  const SsdProblem& problem = args.problem;
  const SsdInputs<T>& in = args.in;
  const Head<T> head{problem, in, batch, head_index};
  Arena<T> arena(scratch);
  SsdBuffers<T> buffer(problem, arena);
  SsdBlocks<T>& blocks = buffer.blocks;
  const int64_t columns = buffer.columns;
  load_head_state(in.initial == nullptr ? nullptr : in.initial + head.state_at(), problem,
                  buffer.padded, columns, buffer.state);
  for (int64_t position = 0; position < problem.length; position += buffer.stretch) {
    const int64_t left = problem.length - position;
    const int64_t count = left < buffer.stretch ? left : buffer.stretch;
    const int64_t next = left > 2 * count ? position + count : position;
    const int64_t size = count * columns;
    if (problem.chunk > 0) {
      store_head_state(buffer.state, problem, columns,
                       args.checkpoints + head.checkpoint_at(position));
    }
    head.load_steps(position, count, buffer.step, blocks.decay, nullptr);
    if (in.sequence != nullptr) head.mark_forgotten(position, count, buffer.forget);
    blocks.cut(count, in.sequence != nullptr ? buffer.forget : nullptr);
    T* out = args.out + head.token_at(position) * problem.width;
    prefetch_rows<true>(out, problem.heads * problem.width, count, problem.width);
    load_tokens(in.x, batch, head_index, problem.width, position, next, count, columns,
                buffer.plain);
    scale_rows(buffer.plain, buffer.step, count, columns, buffer.x);
    scale_rows(buffer.x, blocks.to_end, count, columns, buffer.late_x);
    fill_zero(buffer.y, size);
    for (int64_t k = 0; k < blocks.count; ++k) {
      const SsdBlock& block = blocks.block[k];
      const Coefficients<T> b = head.b(position + block.first), c = head.c(position + block.first);
      const int64_t at = block.first * columns;
      if (block.forgotten) fill_zero(buffer.state, buffer.padded * columns);
      const SsdAdvance<T> advance{buffer.padded,
                                  columns,
                                  blocks.whole_decay(block),
                                  buffer.state,
                                  buffer.state,
                                  buffer.late_x + at,
                                  b,
                                  c,
                                  buffer.y + at,
                                  nullptr,
                                  nullptr};
      with_steps(block, [&](auto steps) {
        ssd_advance_columns<T, decltype(steps)::value, true>(advance);
      });
      ssd_finish_block(buffer, block, b, c);
    }
    if (in.skip != nullptr) {
      for (int64_t i = 0; i < size; i += W) {
        const int64_t p = i % columns;
        const Vec<T> skip =
            load_partial(in.skip + head_index * problem.width + p, problem.width - p);
        store<T>(buffer.y + i, load(buffer.y + i) + load(buffer.plain + i) * skip);
      }
    }
    if (in.z.data != nullptr) {
      load_tokens(in.z, batch, head_index, problem.width, position, next, count, columns, buffer.x);
      for (int64_t i = 0; i < size; i += W) {
        const Vec<T> gate = load(buffer.x + i);
        store<T>(buffer.y + i, load(buffer.y + i) * gate * fast_sigmoid<T>(gate));
      }
    }
    store_tokens(buffer.y, columns, problem.width, count, problem.heads * problem.width, out);
  }
  store_head_state(buffer.state, problem, columns, args.final_state + head.state_at());
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
