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

template <typename T>
inline int64_t conv_scratch(const ConvProblem&) {
  return 4 * Rows<T, true>::kLine;
}

template <typename T>
inline bool by_channel(const View<const T>& x, int64_t count) {
  return count > 1 && x.channel == 1 && x.position != 1;
}

// Calls f(number of taps as a constant, or 0).
template <typename F>
SACCADE_INLINE void with_taps(int64_t width, const F& f) {
  switch (width) {
    case 3:
      return f(std::integral_constant<int, 3>{});
    case 4:
      return f(std::integral_constant<int, 4>{});
    default:
      return f(std::integral_constant<int, 0>{});
  }
}

}  // namespace saccade::scan::SACCADE_ISA_NAMESPACE
