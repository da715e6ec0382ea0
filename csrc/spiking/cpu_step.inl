// What forward and backward share: the parameters of a tile, and the charge of one step.
#pragma once

#include <type_traits>

#include "common/math.inl"
#include "spiking/kernel.h"

namespace saccade::spiking::SACCADE_ISA_NAMESPACE {

using namespace ::saccade::SACCADE_ISA_NAMESPACE;

#define SACCADE_STEP inline __attribute__((always_inline))

template <typename T>
SACCADE_STEP int64_t round_up(int64_t n) {
  return (n + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
}

// Hands out pieces of a task's scratch; without memory it counts.
template <typename T>
class Scratch {
 public:
  explicit Scratch(T* memory) : memory_(memory) {}
  T* take(int64_t count) {
    T* piece = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + kLine - 1) / kLine * kLine;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  static constexpr int64_t kLine = 64 / sizeof(T);
  T* memory_;
  int64_t used_ = 0;
};

// A value for every neuron of a tile, or one vector for all of them.
template <typename T>
struct Operand {
  const T* data;
  int64_t step;  // 1 or 0
};

// The compiler must not fuse a product with the sum that takes it: the loop in torch rounds both.
template <typename T>
SACCADE_STEP Vec<T> rounded(Vec<T> v) {
#if defined(__x86_64__)
  __asm__("" : "+x"(v));
#else
  __asm__("" : "+m"(v));
#endif
  return v;
}

template <typename T, bool kPartial>
SACCADE_STEP Vec<T> load_some(const T* p, int64_t count) {
  if constexpr (kPartial) {
    return load_partial(p, count);
  } else {
    return load(p);
  }
}

template <typename T, bool kPartial>
SACCADE_STEP void store_some(T* p, Vec<T> v, int64_t count) {
  if constexpr (kPartial) {
    store_partial<T>(p, v, count);
  } else {
    store<T>(p, v);
  }
}

// A store past the caches; p is aligned to a vector.
template <typename T>
SACCADE_STEP void store_stream(T* p, Vec<T> v) {
#if defined(__x86_64__)
  typedef long long Words __attribute__((vector_size(SACCADE_BYTES)));
#if SACCADE_BYTES == 64
  __builtin_ia32_movntdq512(reinterpret_cast<Words*>(p), reinterpret_cast<Words>(v));
#elif SACCADE_BYTES == 32
  __builtin_ia32_movntdq256(reinterpret_cast<Words*>(p), reinterpret_cast<Words>(v));
#else
  __builtin_ia32_movntdq(reinterpret_cast<Words*>(p), reinterpret_cast<Words>(v));
#endif
#else
  store<T>(p, v);
#endif
}

// Makes streamed stores visible before a task ends.
inline void fence_stream() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

// Runs body(kPartial, i, lanes) for every vector of a tile; only the last one may be partial.
template <typename T, typename F>
SACCADE_STEP void for_each_vector(int64_t count, const F& body) {
  int64_t i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) body(std::false_type{}, i, kWidth<T>);
  if (i < count) body(std::true_type{}, i, count - i);
}

// Runs body(channel, i, length) for every run of neurons of one channel.
template <typename F>
SACCADE_STEP void for_each_run(const Problem& problem, const Tile& tile, const F& body) {
  int64_t channel = tile.begin / problem.inner % problem.channels;
  int64_t left = problem.inner - tile.begin % problem.inner;
  for (int64_t i = 0; i < tile.count;) {
    const int64_t length = left < tile.count - i ? left : tile.count - i;
    body(channel, i, length);
    i += length;
    left = problem.inner;
    if (++channel == problem.channels) channel = 0;
  }
}

// The channels' values at a tile's neurons; the last vector is filled up.
template <typename T>
inline void spread(const Problem& problem, const Tile& tile, const T* values, T* out) {
  for_each_run(problem, tile, [&](int64_t channel, int64_t i, int64_t length) {
    for (int64_t j = i; j < i + length; ++j) out[j] = values[channel];
  });
  for (int64_t i = tile.count; i < round_up<T>(tile.count); ++i) out[i] = out[tile.count - 1];
}

template <typename T>
inline bool is_power_of_two(T x) {
  int exponent;
  return x > 0 && ::frexp(static_cast<double>(x), &exponent) == 0.5;
}

// The parameters of a tile, ready for vectors.
template <typename T>
struct Operands {
  Operand<T> v0, rate, inverse, threshold, weight, bias;
  // rate is 1 / tau, a power of two, so that the product has the bits of the quotient.
  bool multiply;
  T reset;

  Operands(const Problem& problem, const Inputs<T>& in, const Tile& tile, Scratch<T>& scratch)
      : reset(static_cast<T>(problem.reset)) {
    v0 = in.v0 == nullptr ? constant(reset, scratch) : Operand<T>{in.v0 + tile.begin, 1};
    threshold = per_channel(problem, in.threshold, problem.threshold, tile, scratch);
    weight = in.weight == nullptr
                 ? Operand<T>{}
                 : per_channel(problem, PerChannel<T>{in.weight, false}, 1, tile, scratch);
    bias = in.bias == nullptr
               ? Operand<T>{}
               : per_channel(problem, PerChannel<T>{in.bias, false}, 0, tile, scratch);
    rate = per_channel(problem, in.tau, problem.tau, tile, scratch);
    multiply = rate.step == 0 && is_power_of_two(rate.data[0]);
    const int64_t count = rate.step == 0 ? kWidth<T> : round_up<T>(tile.count);
    T* one_over_tau = scratch.take(count);
    for (int64_t i = 0; i < count; ++i) one_over_tau[i] = T(1) / rate.data[i];
    inverse = {one_over_tau, rate.step};
    if (multiply) rate = inverse;
  }

  // One number each for all neurons.
  bool plain() const { return rate.step == 0 && threshold.step == 0 && weight.data == nullptr; }

  // What the constructor takes, at most.
  static void count(int64_t tile, Scratch<T>& scratch) {
    for (int i = 0; i < 6; ++i) scratch.take(round_up<T>(tile));
  }

 private:
  static Operand<T> constant(T value, Scratch<T>& scratch) {
    T* out = scratch.take(kWidth<T>);
    store<T>(out, broadcast<T>(value));
    return {out, 0};
  }

  static Operand<T> per_channel(const Problem& problem, const PerChannel<T>& given, double number,
                                const Tile& tile, Scratch<T>& scratch) {
    if (given.data == nullptr) return constant(static_cast<T>(number), scratch);
    if (given.shared || problem.channels == 1) return constant(given.data[0], scratch);
    T* out = scratch.take(round_up<T>(tile.count));
    spread(problem, tile, given.data, out);
    return {out, 1};
  }
};

// u = weight * x + bias + residual, from left to right.
template <typename T, bool kPartial>
SACCADE_STEP Vec<T> input_of(Vec<T> u, const Operands<T>& operands, const T* residual, int64_t i,
                             int64_t lanes) {
  if (operands.weight.data != nullptr) {
    u = rounded<T>(load(operands.weight.data + i * operands.weight.step) * u) +
        load(operands.bias.data + i * operands.bias.step);
  }
  if (residual != nullptr) u = u + load_some<T, kPartial>(residual + i, lanes);
  return u;
}

template <typename T, Charge kCharge, bool kMultiply>
SACCADE_STEP Vec<T> charged(Vec<T> v, Vec<T> u, T reset, Vec<T> rate) {
  if constexpr (kCharge == kIntegrate) {
    return v + u;
  } else {
    const Vec<T> above = v - reset;
    const Vec<T> difference = kCharge == kDecayInput ? u - above : above;
    const Vec<T> change = kMultiply ? rounded<T>(difference * rate) : difference / rate;
    return kCharge == kDecayInput ? v + change : (v - change) + u;
  }
}

template <typename T, bool kHard>
SACCADE_STEP Vec<T> after_reset(Vec<T> h, Vec<T> d, T reset) {
  // d is h - threshold already
  return d >= T(0) ? (kHard ? broadcast<T>(reset) : d) : h;
}

// Calls body with charge, multiply and reset as types.
template <typename F>
inline void for_charge(const Problem& problem, bool multiply, const F& body) {
  const auto with_reset = [&](auto charge, auto times) {
    if (problem.hard_reset) {
      body(charge, times, std::true_type{});
    } else {
      body(charge, times, std::false_type{});
    }
  };
  const auto with_rate = [&](auto charge) {
    if (multiply) {
      with_reset(charge, std::true_type{});
    } else {
      with_reset(charge, std::false_type{});
    }
  };
  switch (problem.charge) {
    case kIntegrate:
      return with_reset(std::integral_constant<Charge, kIntegrate>{}, std::false_type{});
    case kDecayInput:
      return with_rate(std::integral_constant<Charge, kDecayInput>{});
    case kLeak:
      return with_rate(std::integral_constant<Charge, kLeak>{});
  }
}

}  // namespace saccade::spiking::SACCADE_ISA_NAMESPACE
