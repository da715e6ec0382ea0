// Causal depthwise convolution. Inputs pass through a line: W - 1 values from before a block, then
// the block's. A lane is a position, and taps are one element apart; or, where channels stand side
// by side in memory, a lane is a channel, and taps are a vector apart. Everything else is the same.
#pragma once

#include "scan/cpu_lanes.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

constexpr int kMaxTaps = 16;
// Vectors of a block.
constexpr int64_t kConvVectors = 32;
// Elements that are fetched ahead.
constexpr int64_t kAhead = 512;

// A task's channels and how their positions become vectors.
template <typename T, bool kByChannel>
struct Rows {
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kTap = kByChannel ? W : 1;                     // elements between taps
  static constexpr int64_t kBlock = kConvVectors * (kByChannel ? 1 : W);  // positions of a block
  static constexpr int64_t kLine = (kConvVectors + kMaxTaps) * W;

  int64_t batch, channel, count;

  int64_t vectors(int64_t positions) const {
    return kByChannel ? positions : (positions + W - 1) / W;
  }

  void load(const View<const T>& view, int64_t position, int64_t positions, T* line) const {
    if constexpr (kByChannel) {
      load_rows(view, batch, 0, channel, count, position, positions, line);
    } else {
      const T* from =
          view.data + batch * view.batch + channel * view.channel + position * view.position;
      if (view.position == 1) {
        memcpy(line, from, static_cast<size_t>(positions) * sizeof(T));
        for (int64_t i = 0; i < positions; i += W) __builtin_prefetch(from + positions + i);
      } else {
        for (int64_t i = 0; i < positions; ++i) line[i] = from[i * view.position];
      }
    }
  }

  void store(const T* line, int64_t position, int64_t positions, const View<T>& view) const {
    if constexpr (kByChannel) {
      store_rows(line, batch, 0, channel, count, position, positions, view);
    } else {
      T* to = view.data + batch * view.batch + channel * view.channel + position * view.position;
      if (view.position == 1) {
        memcpy(to, line, static_cast<size_t>(positions) * sizeof(T));
      } else {
        for (int64_t i = 0; i < positions; ++i) to[i * view.position] = line[i];
      }
    }
  }

  // A parameter of every channel, one in a lane or the only one in all of them.
  Vec<T> parameter(const T* data, int64_t stride) const {
    if constexpr (kByChannel) {
      Vec<T> v{};
      for (int64_t i = 0; i < count; ++i) v[i] = data[(channel + i) * stride];
      return v;
    } else {
      return broadcast<T>(data[channel * stride]);
    }
  }

  // A sum over positions, lane by lane so far.
  void store_sum(Vec<T> sum, int64_t stride, T* data) const {
    if constexpr (kByChannel) {
      for (int64_t i = 0; i < count; ++i) data[(channel + i) * stride] = sum[i];
    } else {
      data[channel * stride] = horizontal_sum<T>(sum);
    }
  }
};

// The end of the run of one sequence that starts at `begin`.
inline int64_t run_end(const int32_t* sequence, int64_t begin, int64_t length) {
  if (sequence == nullptr) return length;
  int64_t end = begin + 1;
  while (end < length && sequence[end] == sequence[begin]) ++end;
  return end;
}

template <typename T, bool kByChannel>
struct Conv {
  using Channels = Rows<T, kByChannel>;
  static constexpr int W = kWidth<T>;

  const ConvProblem& problem;
  const ConvInputs<T>& in;
  const int32_t* sequence;
  Channels rows;
  int64_t before;  // W - 1
  Vec<T> weight[kMaxTaps]{}, bias;

  Conv(const ConvProblem& problem, const ConvInputs<T>& in, Channels rows)
      : problem(problem),
        in(in),
        sequence(in.sequence == nullptr ? nullptr : in.sequence + rows.batch * problem.length),
        rows(rows),
        before(problem.width - 1),
        bias(in.bias == nullptr ? Vec<T>{} : rows.parameter(in.bias, 1)) {
    for (int64_t w = 0; w < problem.width; ++w) {
      weight[w] = rows.parameter(in.weight + w, problem.width);
    }
  }

  // Whether the input at a position before a run is seen by the run.
  bool is_seen(int64_t position, int64_t run) const {
    return position >= 0 && sequence != nullptr && sequence[position] == sequence[run];
  }

  // The W - 1 inputs before a run.
  void load_before(int64_t run, T* line) const {
    fill_zero(line, before * Channels::kTap);
    for (int64_t i = 0; i < before; ++i) {
      T* at = line + i * Channels::kTap;
      if (run == 0 && in.initial != nullptr) {
        const int64_t lanes = kByChannel ? rows.count : 1;
        for (int64_t c = 0; c < lanes; ++c) {
          at[c] = in.initial[(rows.batch * problem.channels + rows.channel + c) * before + i];
        }
      } else if (is_seen(run - before + i, run)) {
        rows.load(in.x, run - before + i, 1, at);
      }
    }
  }

  // The last W - 1 inputs of a block become those before the next.
  void shift(int64_t positions, T* line) const {
    memmove(line, line + positions * Channels::kTap,
            static_cast<size_t>(before * Channels::kTap) * sizeof(T));
  }
};

// Taps in registers, if their number is known when this is compiled.
template <typename T, int kTaps>
struct Taps {
  static constexpr int kCount = kTaps > 0 ? kTaps : kMaxTaps;
  Vec<T> at[kCount];

  explicit Taps(const Vec<T>* from) {
    SACCADE_UNROLL
    for (int w = 0; w < kCount; ++w) at[w] = from[w];
  }
};

template <typename T, bool kByChannel, int kTaps>
SACCADE_INLINE Vec<T> apply_taps(const Taps<T, kTaps>& weight, int64_t count, const T* from,
                                 Vec<T> sum) {
  constexpr int64_t kTap = Rows<T, kByChannel>::kTap;
  if constexpr (kTaps > 0) {
    SACCADE_UNROLL
    for (int w = 0; w < kTaps; ++w) sum += weight.at[w] * load(from + w * kTap);
  } else {
    for (int64_t w = 0; w < count; ++w) sum += weight.at[w] * load(from + w * kTap);
  }
  return sum;
}

template <typename T, bool kByChannel, int kTaps>
inline void conv_block(const Conv<T, kByChannel>& conv, const T* line, int64_t vectors, T* out) {
  constexpr int W = kWidth<T>;
  const Taps<T, kTaps> weight(conv.weight);
  const int64_t taps = conv.problem.width;
  const Vec<T> bias = conv.bias;
  const bool silu = conv.problem.silu;
  for (int64_t i = 0; i < vectors * W; i += W) {
    // a row often ends where a page does, and what fetches ahead by itself stops there
    __builtin_prefetch(line + i + kAhead);
    __builtin_prefetch(out + i + kAhead, 1);
    const Vec<T> y = apply_taps<T, kByChannel, kTaps>(weight, taps, line + i, bias);
    store<T>(out + i, silu ? y / (T(1) + exp2_clamped(y * -kLog2E<T>)) : y);
  }
}

template <typename T, bool kByChannel, int kTaps>
inline void conv_forward_rows(const ConvForward<T>& args, int64_t batch, int64_t channel,
                              int64_t count, T* scratch) {
  using Channels = Rows<T, kByChannel>;
  const Conv<T, kByChannel> conv(args.problem, args.in, {batch, channel, count});
  const int64_t length = args.problem.length;
  T* line = scratch;
  T* out = scratch + Channels::kLine;
  // Positions side by side need the line at both ends of a run alone.
  constexpr int W = kWidth<T>;
  const bool direct = !kByChannel && args.in.x.position == 1 && args.out.position == 1;
  fill_zero(line, direct ? conv.before + 2 * W : Channels::kLine);
  const int64_t head = (conv.before + W - 1) / W * W;
  for (int64_t run = 0; run < length;) {
    const int64_t end = run_end(conv.sequence, run, length);
    conv.load_before(run, line);
    for (int64_t position = run; position < end;) {
      const int64_t left = end - position;
      if (direct && position > run && left >= W) {
        const View<const T>& x = args.in.x;
        const T* from = x.data + batch * x.batch + channel * x.channel + position - conv.before;
        const int64_t vectors = left / W;
        conv_block<T, kByChannel, kTaps>(
            conv, from, vectors,
            args.out.data + batch * args.out.batch + channel * args.out.channel + position);
        position += vectors * W;
        if (position < end)
          memcpy(line, from + vectors * W, sizeof(T) * static_cast<size_t>(conv.before));
        continue;
      }
      int64_t positions = left < Channels::kBlock ? left : Channels::kBlock;
      if (direct && position == run && head > 0 && head < positions) positions = head;
      conv.rows.load(args.in.x, position, positions, line + conv.before * Channels::kTap);
      conv_block<T, kByChannel, kTaps>(conv, line, conv.rows.vectors(positions), out);
      conv.rows.store(out, position, positions, args.out);
      conv.shift(positions, line);
      position += positions;
    }
    run = end;
  }
}

template <typename T, bool kByChannel>
struct ConvSums {
  Vec<T> weight[kMaxTaps]{}, bias{};
};

// The gradient before the activation, behind the last W - 1 of the block before, and the sums for
// weight and bias.
template <typename T, bool kByChannel, int kTaps>
inline void conv_slopes(const Conv<T, kByChannel>& conv, const T* line, const T* grad_out,
                        int64_t positions, T* slopes, ConvSums<T, kByChannel>& sums) {
  using Channels = Rows<T, kByChannel>;
  constexpr int W = kWidth<T>;
  const Taps<T, kTaps> weight(conv.weight);
  Taps<T, kTaps> sum(sums.weight);
  Vec<T> sum_bias = sums.bias;
  const int64_t taps = kTaps > 0 ? kTaps : conv.problem.width;
  const int64_t vectors = conv.rows.vectors(positions);
  const bool silu = conv.problem.silu;
  for (int64_t v = 0; v < vectors; ++v) {
    const int64_t i = v * W;
    Vec<T> grad = load(grad_out + i);
    if (silu) {
      const Vec<T> y = apply_taps<T, kByChannel, kTaps>(weight, taps, line + i, conv.bias);
      const Vec<T> s = fast_sigmoid<T>(y);
      grad *= s + y * s * (T(1) - s);
    }
    if (!kByChannel && i + W > positions) {
      grad = lanes_between<T>(0, positions - i) ? grad : Vec<T>{};
    }
    sum_bias += grad;
    if constexpr (kTaps > 0) {
      SACCADE_UNROLL
      for (int w = 0; w < kTaps; ++w) {
        sum.at[w] += grad * load(line + i + w * Channels::kTap);
      }
    } else {
      for (int64_t w = 0; w < taps; ++w) {
        sum.at[w] += grad * load(line + i + w * Channels::kTap);
      }
    }
    store<T>(slopes + i, grad);
  }
  sums.bias = sum_bias;
  SACCADE_UNROLL
  for (int w = 0; w < Taps<T, kTaps>::kCount; ++w) sums.weight[w] = sum.at[w];
}

// Lanes moved up by a number, and the last lanes of the vector before in front of them.
template <typename T, int kShift, int... i>
SACCADE_INLINE Vec<T> shift_in(Vec<T> before, Vec<T> now, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(before, now, (kWidth<T> - kShift + i)...);
}

// tap[w] is `now` moved by w, or by as much as W - 1 - w.
template <typename T, int kTaps, bool kReversed, int... w>
SACCADE_INLINE void shift_taps(Vec<T> before, Vec<T> now, Vec<T>* tap,
                               std::integer_sequence<int, w...>) {
  ((tap[w] = shift_in<T, kReversed ? kTaps - 1 - w : w>(before, now, Lanes<T>{})), ...);
}

// The backward pass inside a run whose positions stand side by side: what a vector shares with the
// one before it, inputs and slopes, stays in registers. grad_x is W - 1 positions behind x.
template <typename T, int kTaps>
inline Vec<T> conv_backward_inside(const Conv<T, false>& conv, const T* x, const T* grad_out,
                                   int64_t vectors, Vec<T> slopes_before, T* grad_x,
                                   ConvSums<T, false>& sums) {
  constexpr int W = kWidth<T>;
  using Each = std::make_integer_sequence<int, kTaps>;
  const Taps<T, kTaps> weight(conv.weight);
  Taps<T, kTaps> sum(sums.weight);
  Vec<T> sum_bias = sums.bias;
  const Vec<T> bias = conv.bias;
  const bool silu = conv.problem.silu;
  Vec<T> x_before = load(x - W);
  for (int64_t i = 0; i < vectors * W; i += W) {
    __builtin_prefetch(x + i + kAhead);
    __builtin_prefetch(grad_out + i + kAhead);
    __builtin_prefetch(grad_x + i + kAhead, 1);
    const Vec<T> x_now = load(x + i);
    Vec<T> grad = load(grad_out + i);
    Vec<T> tap[kTaps];
    shift_taps<T, kTaps, true>(x_before, x_now, tap, Each{});
    if (silu) {
      Vec<T> y = bias;
      SACCADE_UNROLL
      for (int w = 0; w < kTaps; ++w) y += weight.at[w] * tap[w];
      const Vec<T> s = fast_sigmoid<T>(y);
      grad *= s + y * s * (T(1) - s);
    }
    sum_bias += grad;
    SACCADE_UNROLL
    for (int w = 0; w < kTaps; ++w) sum.at[w] += grad * tap[w];
    shift_taps<T, kTaps, false>(slopes_before, grad, tap, Each{});
    Vec<T> out{};
    SACCADE_UNROLL
    for (int w = 0; w < kTaps; ++w) out += weight.at[w] * tap[w];
    store<T>(grad_x + i, out);
    x_before = x_now;
    slopes_before = grad;
  }
  sums.bias = sum_bias;
  SACCADE_UNROLL
  for (int w = 0; w < kTaps; ++w) sums.weight[w] = sum.at[w];
  return slopes_before;
}

// Gradients of inputs that start W - 1 positions before a block's slopes.
template <typename T, bool kByChannel, int kTaps>
inline void conv_transposed(const Conv<T, kByChannel>& conv, const T* slopes, int64_t positions,
                            T* out) {
  constexpr int W = kWidth<T>;
  const int64_t taps = conv.problem.width;
  Vec<T> turned[kMaxTaps]{};
  for (int64_t w = 0; w < taps; ++w) turned[w] = conv.weight[taps - 1 - w];
  const Taps<T, kTaps> weight(turned);
  for (int64_t i = 0; i < conv.rows.vectors(positions) * W; i += W) {
    store<T>(out + i, apply_taps<T, kByChannel, kTaps>(weight, taps, slopes + i, Vec<T>{}));
  }
}

// Writes gradients of the inputs [first, first + positions); those before the run belong to the
// initial states, to an earlier run of the same sequence, or to nobody.
template <typename T, bool kByChannel>
inline void conv_store_inputs(const ConvBackward<T>& args, const Conv<T, kByChannel>& conv,
                              int64_t run, int64_t first, int64_t positions, const T* line,
                              T* one) {
  using Channels = Rows<T, kByChannel>;
  const int64_t lanes = kByChannel ? conv.rows.count : 1;
  int64_t i = 0;
  for (; i < positions && first + i < run; ++i) {
    const int64_t position = first + i;
    const T* from = line + i * Channels::kTap;
    if (run == 0 && args.grad_initial != nullptr) {
      for (int64_t c = 0; c < lanes; ++c) {
        const int64_t row = conv.rows.batch * conv.problem.channels + conv.rows.channel + c;
        args.grad_initial[row * conv.before + position + conv.before] = from[c];
      }
    } else if (conv.is_seen(position, run)) {
      const View<const T> written{args.grad_x.data, args.grad_x.batch, 0, args.grad_x.channel,
                                  args.grad_x.position};
      conv.rows.load(written, position, 1, one);
      for (int64_t c = 0; c < lanes; ++c) one[c] += from[c];
      conv.rows.store(one, position, 1, args.grad_x);
    }
  }
  if (i < positions) {
    conv.rows.store(line + i * Channels::kTap, first + i, positions - i, args.grad_x);
  }
}

template <typename T, bool kByChannel, int kTaps>
inline void conv_backward_rows(const ConvBackward<T>& args, int64_t batch, int64_t channel,
                               int64_t count, T* scratch) {
  using Channels = Rows<T, kByChannel>;
  constexpr int64_t kTap = Channels::kTap;
  const Conv<T, kByChannel> conv(args.problem, args.in, {batch, channel, count});
  const int64_t length = args.problem.length, width = args.problem.width, before = conv.before;
  T* line = scratch;
  T* grad_out = scratch + Channels::kLine;
  T* slopes = scratch + 2 * Channels::kLine;
  T* grad_in = scratch + 3 * Channels::kLine;
  // Positions side by side need the lines at both ends of a run alone.
  constexpr int W = kWidth<T>;
  constexpr bool kInside = !kByChannel && kTaps > 0 && kTaps - 1 <= W;
  const bool direct = kInside && args.in.x.position == 1 && args.grad_out.position == 1 &&
                      args.grad_x.position == 1;
  for (T* part : {line, grad_out, slopes, grad_in})
    fill_zero(part, direct ? before + 2 * W : Channels::kLine);
  ConvSums<T, kByChannel> sums;
  if (length == 0 && args.grad_initial != nullptr) {
    const int64_t lanes = kByChannel ? count : 1;
    fill_zero(args.grad_initial + (batch * args.problem.channels + channel) * before,
              lanes * before);
  }
  for (int64_t run = 0; run < length;) {
    const int64_t end = run_end(conv.sequence, run, length);
    conv.load_before(run, line);
    fill_zero(slopes, before * kTap);
    for (int64_t position = run; position < end;) {
      const int64_t left = end - position;
      if constexpr (kInside) {
        if (direct && position > run && left >= W) {
          const auto at = [&](const auto& view) {
            return view.data + batch * view.batch + channel * view.channel + position;
          };
          const T* x = at(args.in.x);
          const int64_t vectors = left / W;
          // the last W - 1 slopes in the last lanes
          T last[W];
          store<T>(last, conv_backward_inside<T, kTaps>(conv, x, at(args.grad_out), vectors,
                                                        load(slopes + before - W),
                                                        at(args.grad_x) - before, sums));
          const size_t bytes = sizeof(T) * static_cast<size_t>(before);
          memcpy(slopes, last + W - before, bytes);
          memcpy(line, x + vectors * W - before, bytes);
          position += vectors * W;
          continue;
        }
      }
      int64_t positions = left < Channels::kBlock ? left : Channels::kBlock;
      if (direct && position == run && positions > W) positions = W;
      conv.rows.load(args.in.x, position, positions, line + before * kTap);
      conv.rows.load(args.grad_out, position, positions, grad_out);
      conv_slopes<T, kByChannel, kTaps>(conv, line, grad_out, positions, slopes + before * kTap,
                                        sums);
      conv_transposed<T, kByChannel, kTaps>(conv, slopes, positions, grad_in);
      conv_store_inputs(args, conv, run, position - before, positions, grad_in, grad_out);
      conv.shift(positions, line);
      conv.shift(positions, slopes);
      position += positions;
    }
    // the last W - 1 inputs meet no outputs after the run
    fill_zero(slopes + before * kTap, before * kTap);
    conv_transposed<T, kByChannel, kTaps>(conv, slopes, before, grad_in);
    conv_store_inputs(args, conv, run, end - before, before, grad_in, grad_out);
    run = end;
  }
  for (int64_t w = 0; w < width; ++w) {
    conv.rows.store_sum(sums.weight[w], width,
                        args.grad_weight + batch * args.problem.channels * width + w);
  }
  if (args.grad_bias != nullptr) {
    conv.rows.store_sum(sums.bias, 1, args.grad_bias + batch * args.problem.channels);
  }
}

template <typename T>
inline int64_t conv_scratch(const ConvProblem&) {
  return 4 * Rows<T, true>::kLine;
}

template <typename T>
inline bool by_channel(const View<const T>& x, int64_t count) {
  return count > 1 && x.channel == 1 && x.position != 1;
}

// Channels side by side come in blocks of lanes, others one by one.
template <typename T, int kTaps>
inline void conv_forward_taps(const ConvForward<T>& args, int64_t batch, int64_t channel,
                              int64_t count, T* scratch) {
  if (by_channel(args.in.x, count)) {
    conv_forward_rows<T, true, kTaps>(args, batch, channel, count, scratch);
    return;
  }
  for (int64_t c = channel; c < channel + count; ++c) {
    conv_forward_rows<T, false, kTaps>(args, batch, c, 1, scratch);
  }
}

template <typename T, int kTaps>
inline void conv_backward_taps(const ConvBackward<T>& args, int64_t batch, int64_t channel,
                               int64_t count, T* scratch) {
  if (by_channel(args.in.x, count)) {
    conv_backward_rows<T, true, kTaps>(args, batch, channel, count, scratch);
    return;
  }
  for (int64_t c = channel; c < channel + count; ++c) {
    conv_backward_rows<T, false, kTaps>(args, batch, c, 1, scratch);
  }
}

template <typename T>
inline void conv_forward(const ConvForward<T>& args, int64_t batch, int64_t channel, int64_t count,
                         T* scratch) {
  switch (args.problem.width) {
    case 3:
      return conv_forward_taps<T, 3>(args, batch, channel, count, scratch);
    case 4:
      return conv_forward_taps<T, 4>(args, batch, channel, count, scratch);
    default:
      return conv_forward_taps<T, 0>(args, batch, channel, count, scratch);
  }
}

template <typename T>
inline void conv_backward(const ConvBackward<T>& args, int64_t batch, int64_t channel,
                          int64_t count, T* scratch) {
  switch (args.problem.width) {
    case 3:
      return conv_backward_taps<T, 3>(args, batch, channel, count, scratch);
    case 4:
      return conv_backward_taps<T, 4>(args, batch, channel, count, scratch);
    default:
      return conv_backward_taps<T, 0>(args, batch, channel, count, scratch);
  }
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
