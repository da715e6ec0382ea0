// Causal depthwise convolution, backward: the gradient before the activation, then the transposed
// convolution of it, and sums of it for weight and bias.
#pragma once

#include "scan/cpu_conv.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

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

// Channels side by side come in blocks of lanes, others one by one.
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
inline void conv_backward(const ConvBackward<T>& args, int64_t batch, int64_t channel,
                          int64_t count, T* scratch) {
  with_taps(args.problem.width, [&](auto taps) {
    conv_backward_taps<T, decltype(taps)::value>(args, batch, channel, count, scratch);
  });
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
