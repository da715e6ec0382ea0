// Selective scan, forward: a lane is a channel. A sequence is taken in ranges that stay in the
// cache; a map is one range, because its paths cross it in all directions. Within a range u, the
// step and the result stand as rows of lanes in map order, so that a path is an order of rows.
#pragma once

#include "scan/cpu_lanes.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

// Positions of a sequence that are packed at once; a multiple of every interval between states.
constexpr int64_t kRange = 128;

// States that are held in registers while time passes; with their two gradients they fill a
// vector's lanes, so that sums over channels are one transposition.
template <typename T>
constexpr int kStates = kWidth<T> / 2;

inline int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

struct Ranges {
  int64_t size, count, length;

  explicit Ranges(const SelectiveProblem& problem) : length(problem.length) {
    const bool whole = problem.paths > 1 || problem.directions[0] > 1;
    const int64_t unit = problem.chunk > 0 ? round_up(kRange, problem.chunk) : kRange;
    size = whole || length < unit ? length : unit;
    count = size == 0 ? 0 : (length + size - 1) / size;
  }
  int64_t begin(int64_t range) const { return range * size; }
  int64_t steps(int64_t range) const {
    const int64_t left = length - range * size;
    return left < size ? left : size;
  }
  // The first position of a range of steps; a path over several ranges is straight.
  int64_t first_position(int64_t range, int64_t direction) const {
    return direction == 1 ? length - begin(range) - steps(range) : begin(range);
  }
};

// The row of every step of a range along a path.
inline void order_rows(const SelectiveProblem& problem, int64_t direction, int64_t steps,
                       int32_t* order) {
  const bool backwards = direction % 2 != 0;
  const int64_t height = problem.height, width = problem.length / height;
  int64_t row = 0, column = 0;
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t at = direction < 2 ? s : row * width + column;
    order[backwards ? steps - 1 - s : s] = static_cast<int32_t>(at);
    if (++row == height) row = 0, ++column;
  }
}

// forget[s]: the state before step s belongs to another sequence.
inline void mark_borders(const SelectiveProblem& problem, const int32_t* sequence,
                         const int32_t* order, int64_t first_position, int64_t first_step,
                         int64_t steps, uint8_t* forget) {
  const int64_t back = problem.directions[0] == 1 ? 1 : -1;  // from a step's position to the last's
  for (int64_t s = 0; s < steps; ++s) {
    const int64_t p = first_position + order[s];
    forget[s] = first_step + s > 0 && sequence[p] != sequence[p + back];
  }
}

template <typename T>
struct SelectiveBuffers {
  int64_t padded;
  T *u, *step, *y;                         // [R][lanes]
  T *octaves, *state, *b, *c, *skip_bias;  // [padded N][lanes]; skip and bias one row each
  int32_t* order;
  uint8_t* forget;

  SelectiveBuffers(const SelectiveProblem& problem, const Ranges& ranges, Arena<T>& arena) {
    constexpr int W = kWidth<T>;
    padded = round_up(problem.state, kStates<T>);
    u = arena.take(ranges.size * W);
    step = arena.take(ranges.size * W);
    y = arena.take(ranges.size * W);
    octaves = arena.take(padded * W);
    state = arena.take(padded * W);
    b = arena.take(padded * W);
    c = arena.take(padded * W);
    skip_bias = arena.take(2 * W);
    order = reinterpret_cast<int32_t*>(arena.take(ranges.size));
    forget = reinterpret_cast<uint8_t*>(arena.take(ranges.size));
  }
};

// What one path of one task looks at.
template <typename T>
struct Path {
  const SelectiveProblem& problem;
  int64_t batch, path, channel, count;

  int64_t states_at() const {  // [B, K, D, N]
    return ((batch * problem.paths + path) * problem.channels + channel) * problem.state;
  }
  int64_t parameters_at() const { return path * problem.channels + channel; }  // [K, D]
  // [B, K, T, N, D]
  int64_t checkpoint_at(int64_t step) const {
    const int64_t saved = intervals(problem.length, problem.chunk);
    return ((batch * problem.paths + path) * saved + step / problem.chunk) * problem.state *
               problem.channels +
           channel;
  }
  const T* coefficients(const Coefficient<T>& from) const {
    const int64_t group = channel / (problem.channels / problem.groups);
    return from.data + batch * from.batch + path * from.path + group * from.group;
  }

  void load_parameters(const SelectiveInputs<T>& in, const SelectiveBuffers<T>& buffer) const {
    constexpr int W = kWidth<T>;
    const int64_t n = problem.state;
    load_states(in.a + parameters_at() * n, n, 1, count, n, buffer.padded, buffer.octaves);
    for (int64_t i = 0; i < buffer.padded; ++i) {
      store<T>(buffer.octaves + i * W, in_octaves<T>(load(buffer.octaves + i * W)));
    }
    if (in.b.constant) {
      load_states(in.b.data + parameters_at() * n, n, 1, count, n, buffer.padded, buffer.b);
    }
    if (in.c.constant) {
      load_states(in.c.data + parameters_at() * n, n, 1, count, n, buffer.padded, buffer.c);
    }
    const Vec<T> zero{};
    store<T>(buffer.skip_bias,
             in.skip == nullptr ? zero : load_partial(in.skip + parameters_at(), count));
    store<T>(buffer.skip_bias + W, in.delta_bias == nullptr
                                       ? zero
                                       : load_partial(in.delta_bias + parameters_at(), count));
  }
};

// delta + bias, through softplus where asked for.
template <typename T>
inline void finish_steps(int64_t rows, Vec<T> bias, bool through_softplus, T* step) {
  constexpr int W = kWidth<T>;
  for (int64_t p = 0; p < rows; ++p) {
    const Vec<T> x = load(step + p * W) + bias;
    store<T>(step + p * W, through_softplus ? fast_softplus<T>(x) : x);
  }
}

// B or C of one state at one row, in all lanes.
template <typename T, bool kConstant>
SACCADE_INLINE Vec<T> coefficient(const T* variable, const T* constant, int i) {
  if constexpr (kConstant) {
    return load(constant + i * kWidth<T>);
  } else {
    return broadcast<T>(variable[i]);
  }
}

// Advances kStates states over a stretch of steps.
template <typename T, bool kConstantB, bool kConstantC>
inline void advance(const SelectiveBuffers<T>& buffer, int64_t first, int64_t last, int64_t n,
                    const T* b, int64_t b_stride, const T* c, int64_t c_stride,
                    bool any_forgotten) {
  constexpr int W = kWidth<T>, N = kStates<T>;
  Vec<T> h[N];
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) h[i] = load(buffer.state + (n + i) * W);
  const T* octaves = buffer.octaves + n * W;
  for (int64_t s = first; s < last; ++s) {
    const int64_t row = buffer.order[s];
    const T* b_row = kConstantB ? nullptr : b + row * b_stride + n;
    const T* c_row = kConstantC ? nullptr : c + row * c_stride + n;
    if (any_forgotten && buffer.forget[s]) {
      SACCADE_UNROLL
      for (int i = 0; i < N; ++i) h[i] = Vec<T>{};
    }
    const Vec<T> dt = load(buffer.step + row * W);
    const Vec<T> drive = dt * load(buffer.u + row * W);
    Vec<T> y = load(buffer.y + row * W);
    SACCADE_UNROLL
    for (int i = 0; i < N; ++i) {
      const Vec<T> decay = exp2_clamped(dt * load(octaves + i * W));
      h[i] = decay * h[i] + drive * coefficient<T, kConstantB>(b_row, buffer.b + n * W, i);
      y += h[i] * coefficient<T, kConstantC>(c_row, buffer.c + n * W, i);
    }
    store<T>(buffer.y + row * W, y);
  }
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) store<T>(buffer.state + (n + i) * W, h[i]);
}

template <typename T>
using Advance = void (*)(const SelectiveBuffers<T>&, int64_t, int64_t, int64_t, const T*, int64_t,
                         const T*, int64_t, bool);

template <typename T>
inline Advance<T> choose_advance(bool constant_b, bool constant_c) {
  if (constant_b) return constant_c ? advance<T, true, true> : advance<T, true, false>;
  return constant_c ? advance<T, false, true> : advance<T, false, false>;
}

// One range of one path: y of every row grows by C h.
template <typename T>
inline void scan_range(const SelectiveForward<T>& args, const Path<T>& path, const Ranges& ranges,
                       int64_t range, const SelectiveBuffers<T>& buffer) {
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
  load_rows(in.delta, path.batch, path.path, path.channel, path.count, position, steps,
            buffer.step);
  finish_steps<T>(steps, load(buffer.skip_bias + W), problem.softplus, buffer.step);
  if (begin == 0) {
    if (in.initial == nullptr) {
      fill_zero(buffer.state, buffer.padded * W);
    } else {
      load_states(in.initial + path.states_at(), state, 1, path.count, state, buffer.padded,
                  buffer.state);
    }
  }
  const T* b = in.b.constant ? nullptr : path.coefficients(in.b) + position * in.b.position;
  const T* c = in.c.constant ? nullptr : path.coefficients(in.c) + position * in.c.position;
  const Advance<T> advance = choose_advance<T>(in.b.constant, in.c.constant);
  const int64_t stretch = problem.chunk > 0 ? problem.chunk : steps;
  for (int64_t s = 0; s < steps; s += stretch) {
    if (problem.chunk > 0) {
      store_states(buffer.state, 1, problem.channels, path.count, state,
                   args.checkpoints + path.checkpoint_at(begin + s));
    }
    const int64_t end = s + stretch < steps ? s + stretch : steps;
    for (int64_t n = 0; n < buffer.padded; n += kStates<T>) {
      advance(buffer, s, end, n, b, in.b.position, c, in.c.position, in.sequence != nullptr);
    }
  }
}

template <typename T>
inline void selective_forward(const SelectiveForward<T>& args, int64_t batch, int64_t channel,
                              int64_t count, T* scratch) {
  constexpr int W = kWidth<T>;
  const SelectiveProblem& problem = args.problem;
  const SelectiveInputs<T>& in = args.in;
  const Ranges ranges(problem);
  Arena<T> arena(scratch);
  const SelectiveBuffers<T> buffer(problem, ranges, arena);
  const int64_t state = problem.state;

  for (int64_t range = 0; range < ranges.count; ++range) {
    const int64_t rows = ranges.steps(range);
    const int64_t position = ranges.first_position(range, problem.directions[0]);
    load_rows(in.u, batch, 0, channel, count, position, rows, buffer.u);
    fill_zero(buffer.y, rows * W);
    Vec<T> skip{};
    for (int64_t k = 0; k < problem.paths; ++k) {
      const Path<T> path{problem, batch, k, channel, count};
      if (range == 0 || problem.paths > 1) path.load_parameters(in, buffer);
      scan_range(args, path, ranges, range, buffer);
      skip += load(buffer.skip_bias);
      if (range == ranges.count - 1) {
        store_states(buffer.state, state, 1, count, state, args.last_state + path.states_at());
      }
    }
    if (in.skip != nullptr) {
      for (int64_t i = 0; i < rows * W; i += W) {
        store<T>(buffer.y + i, load(buffer.y + i) + skip * load(buffer.u + i));
      }
    }
    if (in.z.data != nullptr) {
      load_rows(in.z, batch, 0, channel, count, position, rows, buffer.u);
      for (int64_t i = 0; i < rows * W; i += W) {
        const Vec<T> gate = load(buffer.u + i);
        store<T>(buffer.y + i, load(buffer.y + i) * gate * fast_sigmoid<T>(gate));
      }
    }
    store_rows(buffer.y, batch, 0, channel, count, position, rows, args.out);
  }
  if (ranges.count == 0) {
    for (int64_t k = 0; k < problem.paths; ++k) {
      const int64_t at = Path<T>{problem, batch, k, channel, count}.states_at();
      for (int64_t i = 0; i < count * state; ++i) {
        args.last_state[at + i] = in.initial == nullptr ? T(0) : in.initial[at + i];
      }
    }
  }
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
