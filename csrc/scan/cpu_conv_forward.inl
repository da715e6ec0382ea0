// Causal depthwise convolution, forward.
#pragma once

#include "scan/cpu_conv.inl"

namespace saccade::scan::SACCADE_ISA_NAMESPACE {

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

template <typename T>
inline void conv_forward(const ConvForward<T>& args, int64_t batch, int64_t channel, int64_t count,
                         T* scratch) {
  with_taps(args.problem.width, [&](auto taps) {
    conv_forward_taps<T, decltype(taps)::value>(args, batch, channel, count, scratch);
  });
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
